//! `kvd load`: lines of a dump into a running daemon, or into a directory of its own.
//!
//! Knows lines and their numbers. How they are stored is for the two places that take them.

mod directory;
mod server;

use super::line::{Line, LineError};
use crate::log::{LogError, Shortage};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What some programs begin a text with. It is no part of JSON.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Where lines go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A running daemon, at this endpoint as libzmq calls it.
    Server(String),
    /// A directory without a log, which is made if it is missing.
    Directory(PathBuf),
}

/// Why it ended early. Displays as a sentence. What was stored before stays stored.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A line is none.
    #[error("line {number} {source}")]
    Line {
        /// Counted from 1.
        number: u64,
        /// What is wrong with it.
        source: LineError,
    },
    /// The file of the lines can't be opened.
    #[error("can't read {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The lines can't be read.
    #[error("can't read the lines: {0}")]
    Input(#[source] io::Error),
    /// The daemon refused a line.
    #[error("line {number} was refused: {why}")]
    Refused {
        /// Counted from 1.
        number: u64,
        /// In the daemon's words.
        why: String,
    },
    /// A line holds what can't be stored anywhere.
    #[error("line {number} can't be stored: {why}")]
    Impossible {
        /// Counted from 1.
        number: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A key of Python's whose value is no pickle.
    #[error(
        "line {0} has a key that only a pickled request can store, and has no \"pickled\": true: --data-dir stores it as the \
         line says"
    )]
    NotPickled(u64),
    /// A key of Python's whose value is not what such a key is stored with.
    #[error("line {0} has a key that only a pickled request can store, and no such request as its value")]
    NoRequest(u64),
    /// A key of Python's with the request of another one as its value.
    #[error(
        "line {0} has a key that only a pickled request can store, and its value is the request of another key, under which a \
         daemon would store it: --data-dir stores it as the line says"
    )]
    OtherKey(u64),
    /// A key of Python's with something that the request that would store it has no place for.
    #[error(
        "line {number} has a key that only a pickled request can store, and {what}, which such a request can't tell a daemon: \
         --data-dir stores it as the line says"
    )]
    NotCarried {
        /// Counted from 1.
        number: u64,
        /// Which field.
        what: &'static str,
    },
    /// The daemon can't be reached, or does not answer.
    #[error("{endpoint}: {why}")]
    Server {
        /// Where.
        endpoint: String,
        /// What happened.
        why: String,
    },
    /// The directory has a log.
    #[error("{} holds a log already: load into the daemon that serves it, by --server, or into another directory", .0.display())]
    NotEmpty(PathBuf),
    /// There is no room for more.
    #[error("{shortage}: everything up to line {written} is stored")]
    Full {
        /// What there is not enough of.
        shortage: Shortage,
        /// The last line that is stored.
        written: u64,
    },
    /// The directory can't be used.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl LoadError {
    /// Whether it is the lines that are wrong, and their destination goes on.
    fn is_of_the_lines(&self) -> bool {
        use LoadError::{Impossible, Input, Line, NoRequest, NotCarried, NotPickled, OtherKey};
        matches!(
            self,
            Line { .. } | Input(_) | Impossible { .. } | NotPickled(_) | NoRequest(_) | OtherKey(_) | NotCarried { .. }
        )
    }
}

/// What takes lines.
trait Sink {
    /// Takes the line of this number. It may be stored later.
    fn take(&mut self, number: u64, line: &Line<'_>) -> Result<(), LoadError>;
    /// Stores what was taken.
    fn finish(self) -> Result<(), LoadError>;
}

/// Stores every line, and returns how many they were. Empty ones do not count.
///
/// # Errors
/// A [`LoadError`], at the first line that can't be stored.
pub fn load(lines: &mut dyn BufRead, into: &Destination) -> Result<u64, LoadError> {
    match into {
        Destination::Server(endpoint) => feed(lines, server::Server::connect(endpoint)?),
        Destination::Directory(path) => feed(lines, directory::Directory::make(path)?),
    }
}

/// Stores every line of a file: see [`load`].
///
/// # Errors
/// As there, and for a file that can't be opened.
pub fn load_file(path: &Path, into: &Destination) -> Result<u64, LoadError> {
    let file = File::open(path).map_err(|source| LoadError::File { path: path.to_owned(), source })?;
    load(&mut BufReader::new(file), into)
}

fn feed(lines: &mut dyn BufRead, mut sink: impl Sink) -> Result<u64, LoadError> {
    match pour(lines, &mut sink) {
        // What was taken is on its way at most. A line of it that turns out to be refused comes before the one that is told.
        Err(error) if error.is_of_the_lines() => sink.finish().and(Err(error)),
        Err(error) => Err(error),
        Ok(taken) => sink.finish().map(|()| taken),
    }
}

/// Has every line taken, and returns how many they were.
fn pour(lines: &mut dyn BufRead, sink: &mut impl Sink) -> Result<u64, LoadError> {
    let (mut bytes, mut number, mut taken) = (Vec::new(), 0, 0);
    loop {
        bytes.clear();
        if lines.read_until(b'\n', &mut bytes).map_err(LoadError::Input)? == 0 {
            return Ok(taken);
        }
        number += 1;
        let wrong = |source| LoadError::Line { number, source };
        let text = str::from_utf8(&bytes).map_err(|error| wrong(LineError::NotUtf8(error.valid_up_to() + 1)))?;
        // Where several files were put together, not the first line alone may begin with one.
        let text = text.trim_start_matches(BYTE_ORDER_MARK).trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            continue;
        }
        let line = Line::read(text).map_err(wrong)?;
        sink.take(number, &line)?;
        taken += 1;
    }
}
