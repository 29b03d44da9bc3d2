//! The ways in which an entry leaves the table.
//!
//! Every one of them is told to whoever changes the table, so that what is dead in the log can be accounted for
//! without ever looking for it.

use super::entry::Entry;
use super::sweeps::Sweeps;

/// Why an entry left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// A newer entry took its place.
    Superseded,
    /// Its key was removed.
    Removed,
    /// A flush covered it, whatever came first: the sweep, a newer entry, a removal, or its deadline.
    Flushed,
    /// Its deadline had come.
    Expired,
}

/// What is told of each entry that leaves, just before it is dropped.
pub type Departed<'d> = dyn FnMut(&Entry, Departure) + 'd;

/// The entries that are counted, and the flushes that hide some of those which are stored.
#[derive(Default)]
pub struct Presence {
    /// How many entries there are, those that a flush of everything hides not included.
    pub len: usize,
    /// The flushes that are being swept.
    pub sweeps: Sweeps,
}

impl Presence {
    /// An entry leaves: counts it, and tells why.
    pub fn depart(&mut self, entry: &Entry, why: Departure, departed: &mut Departed<'_>) {
        // What a flush of everything hides left the count when the flush began.
        self.len -= usize::from(!self.sweeps.wiped(entry));
        let flushed = !self.sweeps.is_empty() && self.sweeps.count(entry);
        departed(entry, if flushed { Departure::Flushed } else { why });
    }
}
