//! Something of which reads see one state, and a power failure can't reach another.

use super::fate::Sync;

/// A step from one state to the next.
pub trait Change<S> {
    fn apply(&self, to: &mut S);
}

#[derive(Clone, Debug)]
pub struct Synced<S, C> {
    live: S,
    durable: S,
    /// What a sync would make durable, in the order in which it came.
    unsynced: Vec<C>,
}

// Derived, it would ask for a default change as well.
impl<S: Default, C> Default for Synced<S, C> {
    fn default() -> Self {
        Synced { live: S::default(), durable: S::default(), unsynced: Vec::new() }
    }
}

impl<S: Clone, C: Change<S>> Synced<S, C> {
    /// What reads see.
    pub fn live(&self) -> &S {
        &self.live
    }

    /// Changes that a power failure may take.
    pub fn unsynced(&self) -> &[C] {
        &self.unsynced
    }

    pub fn change(&mut self, change: C) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    pub fn sync(&mut self, outcome: Sync) {
        let changes = std::mem::take(&mut self.unsynced);
        if outcome == Sync::Succeeds {
            for change in &changes {
                change.apply(&mut self.durable);
            }
        }
    }

    /// What is found when the power is back, if of the unsynced changes these had reached the disk.
    pub fn after_power_failure<'c>(&self, survivors: impl IntoIterator<Item = &'c C>) -> Synced<S, C>
    where
        C: 'c,
    {
        let mut found = self.durable.clone();
        survivors.into_iter().for_each(|change| change.apply(&mut found));
        Synced { live: found.clone(), durable: found, unsynced: Vec::new() }
    }
}
