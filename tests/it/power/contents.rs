//! The bytes of one file: those that reads see, and those that a power failure can't reach.

use super::fate::{Fate, Sync};
use super::synced::{Change, Synced};

/// The unit in which a write tears, in bytes.
pub const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub struct Contents(Synced<Vec<u8>, Part>);

#[derive(Clone, Debug)]
enum Part {
    /// Bytes within one sector.
    Bytes {
        offset: usize,
        bytes: Vec<u8>,
    },
    Size(usize),
}

impl Change<Vec<u8>> for Part {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Part::Size(size) => to.resize(*size, 0),
            Part::Bytes { offset, bytes } => {
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
        self.0.live()
    }

    /// Changes that a power failure may take.
    pub fn unsynced(&self) -> usize {
        self.0.unsynced().len()
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        // Sectors lie on the file's own grid, wherever the write begins.
        let (first, rest) = bytes.split_at(bytes.len().min(SECTOR - offset % SECTOR));
        let mut offset = offset;
        for bytes in std::iter::once(first).chain(rest.chunks(SECTOR)) {
            self.0.change(Part::Bytes { offset, bytes: bytes.to_vec() });
            offset += bytes.len();
        }
    }

    pub fn resize(&mut self, size: usize) {
        self.0.change(Part::Size(size));
    }

    /// fsync(2), and fdatasync(2) as well: the size is what the data can't be found without, and times are not kept.
    pub fn sync(&mut self, outcome: Sync) {
        self.0.sync(outcome);
    }

    /// The file as it is found when the power is back.
    pub fn after_power_failure(&self, fate: &mut Fate) -> Contents {
        Contents(self.0.after_power_failure(self.0.unsynced().iter().filter(|_| fate.survives())))
    }
}
