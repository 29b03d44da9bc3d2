//! The figures as data, for plots and for whoever wants to compare two runs.
//!
//! A file holds a list of records a section. A run replaces the sections that it measured and leaves the others.

use serde_json::{Map, Value};
use std::fs;
use std::io;
use std::path::Path;

/// Records, by section.
#[derive(Default)]
pub struct Results {
    sections: Map<String, Value>,
}

impl Results {
    /// Adds a record to a section.
    pub fn add(&mut self, section: &str, record: Value) {
        let records = self.sections.entry(section).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(records) = records {
            records.push(record);
        }
    }

    /// Puts them into the file.
    ///
    /// # Errors
    /// It can't be written, or holds something else.
    pub fn write(self, file: &Path) -> io::Result<()> {
        let mut all: Map<String, Value> = match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error),
        };
        all.extend(self.sections);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut text = serde_json::to_string_pretty(&all)?;
        text.push('\n');
        fs::write(file, text)
    }
}
