//! What compaction asks of the table: which of these records still count.
//!
//! Knows keys and versions. Does not know who answers.

use crate::mutation::{Key, Space};

/// Keys that are asked about at a time.
pub const QUESTIONS: usize = 1024;

/// What the table says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has an entry of this very version.
    Live,
    /// It has a newer one of this key.
    Superseded,
    /// It has none of this key.
    Absent,
}

/// Records of which the table is asked. Filled, answered, read and filled again.
#[derive(Debug, Default)]
pub struct Questions {
    keys: Vec<u8>,
    /// Where each key ends, its space, and the version of the record.
    asked: Vec<(usize, Space, u64)>,
    pub(super) fates: Vec<Fate>,
}

impl Questions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Asks each.
    pub fn answer(&mut self, mut fate: impl FnMut(Key<'_>, u64) -> Fate) {
        let mut start = 0;
        self.fates.clear();
        for &(end, space, version) in &self.asked {
            let bytes = self.keys.get(start..end).unwrap_or_default();
            self.fates.push(fate(Key { space, bytes }, version));
            start = end;
        }
    }

    pub(super) fn push(&mut self, key: Key<'_>, version: u64) {
        self.keys.extend_from_slice(key.bytes);
        self.asked.push((self.keys.len(), key.space, version));
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.asked.clear();
        self.fates.clear();
    }
}
