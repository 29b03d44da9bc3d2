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
    /// So many batches must also have been proven durable, whatever the policy, what the start found being the first; 0 is none.
    pub proven: u64,
    /// The flush of this version must also have been swept, since the reply tells how many keys it removed. Who hears
    /// of that puts the reply right, and takes this away.
    pub sweep: Option<u64>,
}

impl Wait {
    /// Waits for nothing.
    pub const NOTHING: Wait = Wait { batch: 0, proven: 0, sweep: None };

    /// Waits until this batch is committed as the policy wants it.
    pub const fn commit(batch: BatchId) -> Wait {
        Wait { batch, proven: 0, sweep: None }
    }

    /// Waits for both. Of two sweeps it holds one: who has parts that wait for several remembers them itself.
    pub fn and(self, other: Wait) -> Wait {
        Wait {
            batch: self.batch.max(other.batch),
            proven: self.proven.max(other.proven),
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
    /// Of so many batches the log proves that they were synced, so that what is lost of them is told from a torn write. The
    /// first of them is what the start found.
    pub proven: u64,
}

impl Durable {
    /// Whether a reply that waits for this may leave.
    pub fn covers(self, wait: Wait) -> bool {
        wait.batch <= self.committed && wait.proven <= self.proven && wait.sweep.is_none()
    }
}

/// The batch that forms, the one in flight, and the syncs that were asked for.
///
/// A batch forms, is submitted, and is committed or refused; one is in flight at a time, and the next one
/// forms meanwhile. A sync covers what was committed when it began, and proves it, if there is room for the mark that this
/// takes.
#[derive(Debug)]
pub(super) struct Progress {
    /// A commit is a sync.
    commits_sync: bool,
    forming: BatchId,
    in_flight: Option<BatchId>,
    durable: Durable,
    /// The newest batch that somebody wants synced, and how many somebody wants proven.
    sync_wanted: BatchId,
    proof_wanted: u64,
    /// Of how many batches there was no room for proof, and nobody has asked for it again.
    unprovable: u64,
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
            proof_wanted: 0,
            unprovable: 0,
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
            // Its header says of those before it that they are durable.
            self.durable.proven = self.durable.proven.max(batch);
        }
        Some(batch)
    }

    /// The log refused the batch in flight, and what formed on top of it is void. Neither number comes again.
    pub fn refused(&mut self) {
        self.in_flight = None;
        self.forming += 1;
    }

    /// What a reply waits for that promises everything before it to be synced, and never to be taken for a torn tail.
    /// `forming_holds` is whether anything is in the forming batch.
    pub fn want_proof(&mut self, forming_holds: bool) -> Wait {
        let batch = match self.in_flight {
            _ if forming_holds => self.forming,
            Some(in_flight) => in_flight,
            None => self.durable.committed,
        };
        let proven = batch + 1;
        if proven <= self.unprovable {
            self.unprovable = 0;
        }
        self.proof_wanted = self.proof_wanted.max(proven);
        Wait { batch, proven, sweep: None }
    }

    /// The batch that is to be waited for until everything that was committed so far is synced.
    pub fn want_committed_synced(&mut self) -> BatchId {
        self.sync_wanted = self.sync_wanted.max(self.durable.committed);
        self.durable.committed
    }

    /// Whether a sync is to begin now. If so, it is taken to have begun.
    pub fn begin_sync(&mut self) -> bool {
        let Durable { committed, synced, proven } = self.durable;
        // Where a commit is a sync, the one that is going on proves what came before it.
        let proof_follows = self.commits_sync && self.in_flight();
        let lacks_sync = synced < committed.min(self.sync_wanted);
        let lacks_proof = proven.max(self.unprovable) < (committed + 1).min(self.proof_wanted) && !proof_follows;
        let due = self.syncing.is_none() && (lacks_sync || lacks_proof);
        if due {
            self.syncing = Some(committed);
        }
        due
    }

    /// The sync that was going on is done. Without room for proof of it, those who wanted that have to be told: returns how
    /// many batches are not proven that they waited for.
    pub fn synced(&mut self, is_proven: bool) -> Option<u64> {
        let covered = self.syncing.take()?;
        self.durable.synced = self.durable.synced.max(covered);
        if is_proven {
            self.durable.proven = self.durable.proven.max(covered + 1);
            return None;
        }
        self.unprovable = covered + 1;
        Some(covered + 1)
    }

    /// Whether a sync is going on.
    pub fn syncing(&self) -> bool {
        self.syncing.is_some()
    }

    /// The forming batch.
    #[cfg(test)]
    pub fn forming(&self) -> BatchId {
        self.forming
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
    fn where_a_commit_is_a_sync_proof_alone_is_asked_for() {
        let mut progress = Progress::new(true);
        let found = progress.want_proof(false);
        assert!(!progress.durable().covers(found) && progress.begin_sync(), "nothing proves what the start found");
        assert_eq!(progress.synced(true), None);
        assert!(progress.durable().covers(found));
        let wait = progress.want_proof(true);
        progress.submitted(1);
        assert!(!progress.begin_sync());
        progress.committed();
        assert!(!progress.durable().covers(wait));
        progress.submitted(2);
        assert!(!progress.begin_sync(), "what is in flight will prove it");
        progress.committed();
        assert!(progress.durable().covers(wait));
        let last = progress.want_proof(false);
        assert!(!progress.durable().covers(last) && progress.begin_sync(), "nothing follows it");
        progress.synced(true);
        assert!(progress.durable().covers(last));
    }

    #[test]
    fn who_wants_proof_is_told_where_there_is_no_room_for_it() {
        let mut progress = Progress::new(false);
        progress.submitted(1);
        progress.committed();
        let first = progress.want_proof(false);
        assert!(progress.begin_sync());
        progress.submitted(2);
        let second = progress.want_proof(false);
        let unproven = progress.synced(false).expect("no proof");
        assert!(first.proven <= unproven && second.proven > unproven);
        assert!(!progress.begin_sync(), "the second is not committed");
        progress.committed();
        assert!(progress.begin_sync());
        assert_eq!(progress.synced(true), None);
        assert!(progress.durable().covers(second));
        let third = progress.want_proof(false);
        assert!(progress.durable().covers(third) && !progress.begin_sync());
    }

    #[test]
    fn who_was_told_that_there_is_no_room_for_proof_may_ask_again() {
        let mut progress = Progress::new(false);
        progress.want_proof(false);
        assert!(progress.begin_sync());
        assert_eq!(progress.synced(false), Some(1));
        assert!(!progress.begin_sync(), "nobody waits");
        let again = progress.want_proof(false);
        assert!(progress.begin_sync());
        progress.synced(true);
        assert!(progress.durable().covers(again));
    }

    #[test]
    fn a_sync_covers_what_was_committed_when_it_began() {
        let mut progress = Progress::new(false);
        progress.submitted(1);
        let first = progress.want_proof(false);
        let second = progress.want_proof(true);
        assert_eq!(progress.want_committed_synced(), 0, "what may be refused yet is not waited for");
        progress.committed();
        assert!(progress.begin_sync());
        assert!(!progress.begin_sync(), "one at a time");
        progress.submitted(2);
        progress.committed();
        progress.synced(true);
        assert!(progress.durable().covers(first));
        assert!(!progress.durable().covers(second), "it was committed after that sync began");
        assert!(progress.begin_sync());
        progress.synced(true);
        assert!(progress.durable().covers(second));
        assert!(!progress.begin_sync());
    }

    #[test]
    fn who_waits_for_two_things_waits_for_both() {
        let sync_then_write = Wait { batch: 1, proven: 2, sweep: None }.and(Wait::commit(2));
        assert!(!Durable { committed: 1, synced: 1, proven: 2 }.covers(sync_then_write));
        assert!(!Durable { committed: 2, synced: 2, proven: 1 }.covers(sync_then_write));
        assert!(Durable { committed: 2, synced: 1, proven: 2 }.covers(sync_then_write), "nobody asked for a sync of 2");
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
        assert_eq!(progress.want_proof(true).batch, 3, "2 was forming meanwhile, and is void too");
        progress.submitted(3);
        assert_eq!(progress.committed(), Some(3));
    }
}
