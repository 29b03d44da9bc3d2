//! The bytes of one file: those that reads see, and those that a power failure can't reach.

use super::fate::{Fate, Sync};

/// The unit in which a write tears, in bytes.
pub const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What a sync would make durable, in the order in which it came.
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    /// Bytes within one sector.
    Bytes {
        offset: usize,
        bytes: Vec<u8>,
    },
    Size(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Size(size) => to.resize(*size, 0),
            Change::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Contents {
    /// What reads see.
    pub fn live(&self) -> &[u8] {
        &self.live
    }

    /// Changes that a power failure may take.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        // Sectors lie on the file's own grid, wherever the write begins.
        let (first, rest) = bytes.split_at(bytes.len().min(SECTOR - offset % SECTOR));
        let mut offset = offset;
        for bytes in std::iter::once(first).chain(rest.chunks(SECTOR)) {
            self.change(Change::Bytes { offset, bytes: bytes.to_vec() });
            offset += bytes.len();
        }
    }

    pub fn resize(&mut self, size: usize) {
        self.change(Change::Size(size));
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    /// fsync(2), and fdatasync(2) as well: the size is what the data can't be found without, and times are not kept.
    pub fn sync(&mut self, outcome: Sync) {
        let changes = std::mem::take(&mut self.unsynced);
        if outcome == Sync::Succeeds {
            for change in &changes {
                change.apply(&mut self.durable);
            }
        }
    }

    /// The file as it is found when the power is back.
    pub fn after_power_failure(&self, fate: &mut Fate) -> Contents {
        let mut found = self.durable.clone();
        for change in self.unsynced.iter().filter(|_| fate.survives()) {
            change.apply(&mut found);
        }
        Contents { live: found.clone(), durable: found, unsynced: Vec::new() }
    }
}
