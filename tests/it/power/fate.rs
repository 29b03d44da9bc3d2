//! What becomes of what was not synced: in a sync, and in a power failure.

use crate::random::Random;

/// What becomes of everything that was not synced.
#[derive(Clone, Copy, Debug)]
pub enum Unsynced {
    /// None of it had reached the disk.
    Lost,
    /// All of it had.
    Kept,
    /// Some of it had, chosen by this seed.
    Torn(u64),
}

/// What a sync does with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sync {
    /// All of it is durable.
    Succeeds,
    /// It counts as clean from now on, so that no later sync writes it, although reads go on to see it (Rebello et al.,
    /// "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
    Fails,
}

/// Decides over one change after the other.
pub struct Fate {
    random: Random,
    /// Of eight changes this many survive, on average.
    survivors: usize,
    /// Directory entries survive as a journal has them: none after the first that is lost.
    is_journal: bool,
}

impl Fate {
    pub fn new(unsynced: Unsynced) -> Fate {
        let (seed, certain) = match unsynced {
            Unsynced::Lost => (0, Some(0)),
            Unsynced::Kept => (0, Some(8)),
            Unsynced::Torn(seed) => (seed, None),
        };
        let mut random = Random::seeded(seed);
        // Nearly all, half or hardly any: what is written in many sectors is hardly ever whole or gone by an even chance.
        let survivors = certain.unwrap_or_else(|| [1, 4, 7][random.below(3)]);
        let is_journal = random.one_in(2);
        Fate { random, survivors, is_journal }
    }

    /// Whether the next change had reached the disk.
    pub fn survives(&mut self) -> bool {
        self.random.below(8) < self.survivors
    }

    /// The changes to a directory that had reached the disk, in their order.
    pub fn surviving<'c, C>(&mut self, changes: &'c [C]) -> Vec<&'c C> {
        if self.is_journal {
            changes.iter().take_while(|_| self.survives()).collect()
        } else {
            changes.iter().filter(|_| self.survives()).collect()
        }
    }
}
