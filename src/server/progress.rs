//! How far commits have come, and what a reply waits for.
//!
//! Pure: numbers of batches in, decisions out. Knows neither the engine, whose batches these are, nor the
//! log, which makes them durable, nor the replies.

use crate::engine::BatchId;

/// What must be durable before a reply may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wait {
    /// This batch and every one before it; 0 is none.
    pub batch: BatchId,
    /// This batch and every one before it must also have been synced, whatever the policy; 0 is none.
    pub synced: BatchId,
    /// The flush of this version must also have been swept, since the reply tells how many keys it removed. Who hears
    /// of that puts the reply right, and takes this away.
    pub sweep: Option<u64>,
}

impl Wait {
    /// Waits for nothing.
    pub const NOTHING: Wait = Wait { batch: 0, synced: 0, sweep: None };

    /// Waits until this batch is committed as the policy wants it.
    pub const fn commit(batch: BatchId) -> Wait {
        Wait { batch, synced: 0, sweep: None }
    }

    /// Waits for both. Of two sweeps it holds one: who has parts that wait for several remembers them itself.
    pub fn and(self, other: Wait) -> Wait {
        Wait {
            batch: self.batch.max(other.batch),
            synced: self.synced.max(other.synced),
            sweep: other.sweep.or(self.sweep),
        }
    }
}

/// What is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Durable {
    /// Every batch up to this one is committed as the policy wants it.
    pub committed: BatchId,
    /// Every batch up to this one has been synced.
    pub synced: BatchId,
}

impl Durable {
    /// Whether a reply that waits for this may leave.
    pub fn covers(self, wait: Wait) -> bool {
        wait.batch <= self.committed && wait.synced <= self.synced && wait.sweep.is_none()
    }
}

/// The batch that forms, the one in flight, and the syncs that were asked for.
///
/// A batch forms, is submitted, and is committed or refused; one is in flight at a time, and the next one
/// forms meanwhile. A sync covers what was committed when it began.
#[derive(Debug)]
pub(super) struct Progress {
    /// A commit is a sync.
    commits_sync: bool,
    forming: BatchId,
    in_flight: Option<BatchId>,
    durable: Durable,
    /// The newest batch that somebody wants synced.
    sync_wanted: BatchId,
    /// What the sync that is going on will cover.
    syncing: Option<BatchId>,
}

impl Progress {
    /// Nothing in flight. `commits_sync` is whether the policy syncs before it calls a batch committed.
    pub fn new(commits_sync: bool) -> Progress {
        Progress {
            commits_sync,
            forming: 1,
            in_flight: None,
            durable: Durable::default(),
            sync_wanted: 0,
            syncing: None,
        }
    }

    /// What is durable now.
    pub fn durable(&self) -> Durable {
        self.durable
    }

    /// Whether a commit is a sync.
    pub fn commits_sync(&self) -> bool {
        self.commits_sync
    }

    /// Whether a batch is in flight.
    pub fn in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The forming batch, which has this number, was closed and goes to the log.
    pub fn submitted(&mut self, batch: BatchId) {
        debug_assert!(self.in_flight.is_none(), "one batch at a time");
        self.in_flight = Some(batch);
        self.forming = batch + 1;
    }

    /// The log committed the batch in flight: its number.
    pub fn committed(&mut self) -> Option<BatchId> {
        let batch = self.in_flight.take()?;
        self.durable.committed = batch;
        if self.commits_sync {
            self.durable.synced = batch;
        }
        Some(batch)
    }

    /// The log refused the batch in flight, and what formed on top of it is void. Neither number comes again.
    pub fn refused(&mut self) {
        self.in_flight = None;
        self.forming += 1;
    }

    /// What a reply waits for that promises everything before it to be synced. `forming_holds` is whether
    /// anything is in the forming batch.
    pub fn want_sync(&mut self, forming_holds: bool) -> Wait {
        let batch = match self.in_flight {
            _ if forming_holds => self.forming,
            Some(in_flight) => in_flight,
            None => self.durable.committed,
        };
        self.sync_wanted = self.sync_wanted.max(batch);
        Wait { batch, synced: batch, sweep: None }
    }

    /// What is to be waited for until everything that was committed so far is synced.
    pub fn want_committed_synced(&mut self) -> Wait {
        let batch = self.durable.committed;
        self.sync_wanted = self.sync_wanted.max(batch);
        Wait { batch, synced: batch, sweep: None }
    }

    /// Whether a sync is to begin now. If so, it is taken to have begun.
    pub fn begin_sync(&mut self) -> bool {
        let due = self.syncing.is_none()
            && self.durable.synced < self.durable.committed
            && self.durable.synced < self.sync_wanted;
        if due {
            self.syncing = Some(self.durable.committed);
        }
        due
    }

    /// The sync that was going on is done.
    pub fn synced(&mut self) {
        if let Some(covered) = self.syncing.take() {
            self.durable.synced = self.durable.synced.max(covered);
        }
    }

    /// Whether a sync is going on.
    pub fn syncing(&self) -> bool {
        self.syncing.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_waits_for_its_batch() {
        let mut progress = Progress::new(true);
        let wait = Wait::commit(1);
        progress.submitted(1);
        assert!(!progress.durable().covers(wait));
        assert_eq!(progress.committed(), Some(1));
        assert!(progress.durable().covers(wait));
        assert!(!progress.durable().covers(Wait::commit(2)));
    }

    #[test]
    fn where_a_commit_is_a_sync_none_is_asked_for() {
        let mut progress = Progress::new(true);
        assert!(progress.durable().covers(progress.want_sync(false)), "there is nothing to sync");
        let wait = progress.want_sync(true);
        progress.submitted(1);
        assert!(!progress.durable().covers(wait));
        progress.committed();
        assert!(progress.durable().covers(wait));
        assert!(!progress.begin_sync());
    }

    #[test]
    fn a_sync_covers_what_was_committed_when_it_began() {
        let mut progress = Progress::new(false);
        progress.submitted(1);
        let first = progress.want_sync(false);
        let second = progress.want_sync(true);
        assert!(!progress.begin_sync(), "nothing is committed yet");
        let nothing = progress.want_committed_synced();
        assert!(progress.durable().covers(nothing), "what may be refused yet is not waited for");
        progress.committed();
        assert!(progress.begin_sync());
        assert!(!progress.begin_sync(), "one at a time");
        progress.submitted(2);
        progress.committed();
        progress.synced();
        assert!(progress.durable().covers(first));
        assert!(!progress.durable().covers(second), "it was committed after that sync began");
        assert!(progress.begin_sync());
        progress.synced();
        assert!(progress.durable().covers(second));
        assert!(!progress.begin_sync());
    }

    #[test]
    fn who_waits_for_two_things_waits_for_both() {
        let sync_then_write = Wait { batch: 1, synced: 1, sweep: None }.and(Wait::commit(2));
        assert!(!Durable { committed: 1, synced: 1 }.covers(sync_then_write));
        assert!(!Durable { committed: 2, synced: 0 }.covers(sync_then_write));
        assert!(Durable { committed: 2, synced: 1 }.covers(sync_then_write), "nobody asked for a sync of 2");
        let flush = Wait { sweep: Some(7), ..Wait::commit(1) };
        for both in [flush.and(Wait::commit(2)), Wait::commit(2).and(flush)] {
            assert_eq!(both, Wait { sweep: Some(7), ..Wait::commit(2) });
        }
    }

    #[test]
    fn after_a_refusal_the_next_batch_goes_its_own_way() {
        let mut progress = Progress::new(true);
        progress.submitted(1);
        progress.refused();
        assert!(!progress.in_flight());
        assert!(!progress.durable().covers(Wait::commit(1)));
        assert_eq!(progress.want_sync(true).batch, 3, "2 was forming meanwhile, and is void too");
        progress.submitted(3);
        assert_eq!(progress.committed(), Some(3));
    }
}
