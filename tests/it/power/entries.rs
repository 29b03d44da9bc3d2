//! The names in the directory: those that a lookup finds, and those that a power failure can't reach.

use super::fate::{Fate, Sync};
use std::collections::BTreeMap;

/// Which file has which name. A file is known by its place among the files of the disk.
pub type Names = BTreeMap<String, usize>;

#[derive(Clone, Debug, Default)]
pub struct Entries {
    live: Names,
    durable: Names,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Add { name: String, file: usize },
    Remove { name: String },
    Rename { from: String, to: String, file: usize },
}

impl Change {
    fn apply(&self, to: &mut Names) {
        match self {
            Change::Add { name, file } => {
                to.insert(name.clone(), *file);
            }
            Change::Remove { name } => {
                to.remove(name);
            }
            Change::Rename { from, to: name, file } => {
                // One step: whoever finds the new name does not find the old one, which may never have been durable.
                to.remove(from);
                to.insert(name.clone(), *file);
            }
        }
    }
}

impl Entries {
    /// What a lookup finds.
    pub fn live(&self) -> &Names {
        &self.live
    }

    /// Changes that a power failure may take.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    pub fn add(&mut self, name: &str, file: usize) {
        self.change(Change::Add { name: name.to_owned(), file });
    }

    pub fn remove(&mut self, name: &str) {
        self.change(Change::Remove { name: name.to_owned() });
    }

    pub fn rename(&mut self, from: &str, to: &str, file: usize) {
        self.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), file });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    /// fsync(2) of the directory.
    pub fn sync(&mut self, outcome: Sync) {
        let changes = std::mem::take(&mut self.unsynced);
        if outcome == Sync::Succeeds {
            for change in &changes {
                change.apply(&mut self.durable);
            }
        }
    }

    /// The directory as it is found when the power is back.
    pub fn after_power_failure(&self, fate: &mut Fate) -> Entries {
        let mut found = self.durable.clone();
        for change in fate.surviving(&self.unsynced) {
            change.apply(&mut found);
        }
        Entries { live: found.clone(), durable: found, unsynced: Vec::new() }
    }
}
