//! Compaction as the server runs it: when to begin, how fast, and who answers its questions.
//!
//! Joins the accounts, the choice of victims and the compaction thread, which the log keeps apart, and asks the table for
//! them. Knows neither peers nor commands, nor a byte of a segment.
//!
//! The engine's thread spends a bounded time on it in one pass: it stops amid the questions when that is over.

use super::allowance::Bound;
use crate::fault;
use crate::log::batch::list_bytes;
use crate::log::budget::{Budget, Urgency};
use crate::log::compaction::{CompactionError, Fate, Outcome, Questions};
use crate::log::compactor::{Compactor, Report, UNPACED};
use crate::log::victims::{self, Appetite, Run};
use crate::log::{Ledger, LogError, Shortage, Tally, record};
use crate::table::{Entry, Table};
use rustix::time::{ClockId, clock_gettime};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// How long compaction keeps quiet after a start, when caches are cold and clients come back, unless it is urgent.
const QUIET: Duration = Duration::from_secs(10);
/// How often the accounts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Questions answered between two looks at the time. Their entries are fetched together, so that the processor waits for
/// memory once, and not for each.
const PORTION: usize = 32;
/// How long a compaction that found no room is not tried again.
const AFTER_NO_SPACE: Duration = Duration::from_secs(1);

/// A pass over all segments that somebody asked for.
#[derive(Clone, Copy, Debug)]
struct FullRun {
    /// The next number to look at.
    from: u64,
    /// The last one.
    up_to: u64,
}

/// Room on a full disk, which the log has in reserve: a compaction gives back more than it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reserve {
    Whole,
    /// A compaction found no room, and would have with so many bytes more.
    Wanted(RangeInclusive<u64>),
    Asked,
    Lent,
    /// It is not needed any more.
    Unneeded,
}

/// What compaction did since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    compactions: u64,
    given_up: u64,
    read: u64,
    copied: u64,
    reclaimed: u64,
    longest_pause: Duration,
}

/// How long processors have worked for this thread: what others on the machine take is not in it.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// The segments of a run, and their verb.
fn named(run: Run) -> String {
    let Run { first, last, .. } = run;
    if first == last { format!("segment {first} was") } else { format!("segments {first} to {last} were") }
}

/// Takes into the accounts of a log, in which nothing counts yet, the table that was made of it. Works on so many threads.
pub(super) fn account(ledger: &mut Ledger, table: &Table, threads: usize) {
    debug_assert_eq!(ledger.live_bytes(), 0, "what counted before would count once for each part");
    let parts = table.read_all(threads, |entries| {
        let mut part = ledger.clone();
        for entry in entries {
            part.found(entry.version(), record::encoded_len(&entry.mutation()));
        }
        part
    });
    for part in &parts {
        ledger.found_too(part);
    }
}

/// Compaction of a store that serves.
pub(super) struct Compaction {
    compactor: Compactor,
    ledger: Ledger,
    budget: Budget,
    /// How many questions one pass answers.
    bound: Bound,
    /// Bytes a second, where it is not urgent.
    rate: u64,
    running: Option<Run>,
    /// Questions that are not answered to the end.
    unanswered: Option<Questions>,
    /// Whether it waits until the log is synced.
    unsettled: bool,
    reserve: Reserve,
    full_run: Option<FullRun>,
    /// What a compaction lacked, if that was said and nothing was compacted since.
    said: Option<Shortage>,
    /// Whether the disk was full when it was looked at last.
    was_full: bool,
    quiet_until: Instant,
    look_at: Instant,
    figures: Figures,
}

impl Compaction {
    /// Nothing to do yet. The accounts must say what the table holds: see [`account`].
    pub fn new(compactor: Compactor, ledger: Ledger, budget: Budget, rate: u64, now: Instant) -> Compaction {
        Compaction {
            compactor,
            ledger,
            budget,
            bound: Bound::TIMED,
            rate,
            running: None,
            unanswered: None,
            unsettled: false,
            reserve: Reserve::Whole,
            full_run: None,
            said: None,
            was_full: false,
            quiet_until: now + QUIET,
            look_at: now,
            figures: Figures::default(),
        }
    }

    /// A batch was committed.
    pub fn appended(&mut self, segment: u64, first_version: u64, length: u64, tally: Tally, now: Instant) {
        if self.ledger.segments().last().is_some_and(|active| active.number < segment) {
            // One more is sealed: how urgent it is now decides how fast writers may go on.
            self.look_at = now;
        }
        self.ledger.appended(segment, first_version, length, tally);
    }

    /// An entry has left the table.
    pub fn died(&mut self, entry: &Entry) {
        self.ledger.died(entry.version(), record::encoded_len(&entry.mutation()));
    }

    /// Asks for a pass over everything, without a pace.
    pub fn begin_full_run(&mut self, now: Instant) {
        if let Some((_, sealed)) = self.ledger.segments().split_last()
            && let Some(newest) = sealed.last()
        {
            self.full_run = Some(FullRun { from: 1, up_to: newest.number });
            self.look_at = now;
        }
    }

    /// Takes in what the thread reports, and answers what it asks, for a bounded time.
    ///
    /// # Errors
    /// The log can't be relied on any more.
    pub fn hear(&mut self, table: &Table, now: Instant) -> Result<(), LogError> {
        while let Some(report) = self.compactor.report() {
            match report {
                Report::Ask(questions) => self.unanswered = Some(questions),
                Report::Settle => self.unsettled = true,
                Report::Done(run, outcome) => self.done(run, &outcome, now),
                Report::GaveUp(run, why) => self.gave_up(run, &why, now),
                Report::Failed(error) => return Err(error),
            }
        }
        if self.can_answer(table)
            && let Some(questions) = self.unanswered.take()
        {
            fault::at("compaction-asked").map_err(LogError::io("answer", "a compaction"))?;
            self.answer(questions, table);
        }
        Ok(())
    }

    /// Whether it waits for [`Compaction::settled`], now for the first time.
    pub fn begins_to_settle(&mut self) -> bool {
        std::mem::take(&mut self.unsettled)
    }

    /// All that was committed when it began to wait is synced, and everything up to this version.
    pub fn settled(&mut self, durable_version: u64) {
        self.compactor.settled(durable_version);
    }

    /// How many bytes of the log's reserve it needs to go on, at least and at most, asked once.
    pub fn borrows(&mut self) -> Option<RangeInclusive<u64>> {
        let Reserve::Wanted(bytes) = &self.reserve else { return None };
        let bytes = bytes.clone();
        self.reserve = Reserve::Asked;
        Some(bytes)
    }

    /// Whether as many are given up for it.
    pub fn lent(&mut self, lends: bool, now: Instant) {
        if lends {
            self.reserve = Reserve::Lent;
            self.look_at = now;
        } else {
            self.reserve = Reserve::Whole;
        }
    }

    /// Whether it has what was lent, or will, before anything that is asked of the log from now on.
    pub fn has_borrowed(&self) -> bool {
        matches!(self.reserve, Reserve::Asked | Reserve::Lent)
    }

    /// Whether it is through with what was lent, told once.
    pub fn returns(&mut self) -> bool {
        let is_unneeded = self.reserve == Reserve::Unneeded;
        if is_unneeded {
            self.reserve = Reserve::Whole;
        }
        is_unneeded
    }

    /// Begins a compaction if it is time for one. `full` is whether the disk has no room.
    ///
    /// None is begun amid a sweep: the accounts still call live what a flush hides, and a segment of which all is live
    /// would be taken to hold nothing that the flush has to hide.
    pub fn tend(&mut self, table: &Table, now: Instant, full: bool) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        if std::mem::replace(&mut self.was_full, full) && !full {
            self.said = None;
        }
        let urgency = if full { Urgency::Pressed } else { self.budget.urgency(&self.ledger) };
        let unpaced = urgency == Urgency::Pressed || self.full_run.is_some();
        self.compactor.set_rate(if unpaced { UNPACED } else { self.rate });
        if self.running.is_none()
            && table.sweeping().is_none()
            && let Some(run) = self.choose(urgency, now)
        {
            let within = (self.ledger.segments().iter().map(|usage| usage.number))
                .filter(|number| (run.first..=run.last).contains(number));
            self.compactor.begin(run, within.collect(), self.ledger.older_than(run.first));
            self.running = Some(run);
        }
        if self.running.is_none() && self.reserve == Reserve::Lent {
            self.reserve = Reserve::Unneeded;
        }
    }

    /// How long it may be until there is something to do for it although nothing happens.
    pub fn wait(&self, table: &Table, now: Instant) -> Option<Duration> {
        if self.can_answer(table) {
            return Some(Duration::ZERO);
        }
        let idle = self.running.is_none() && self.full_run.is_none();
        let next = match self.budget.urgency(&self.ledger) {
            _ if !idle => self.look_at,
            Urgency::None => return None,
            Urgency::Paced => self.quiet_until.max(self.look_at),
            Urgency::Pressed => self.look_at,
        };
        // Where nothing can be gained, now and then is enough.
        let next = if idle && next < now { now + AFTER_NO_SPACE } else { next };
        Some(next.saturating_duration_since(now))
    }

    /// How long a batch of this length should be held up.
    pub fn delay(&self, length: u64) -> Option<Duration> {
        self.running.and_then(|_| self.budget.delay(&self.ledger, length))
    }

    /// Whether the log has a limit of its own, beside what the disk has.
    pub fn has_limit(&self) -> bool {
        self.budget.max_log_size < u64::MAX
    }

    /// Whether this many more bytes must be refused: they lead beyond the log's limit, and compaction can't make room for them,
    /// or not for all of them.
    pub fn is_at_limit(&self, more: u64) -> bool {
        let can_compact = || self.running.is_some() || self.pick(Appetite::Any).is_some();
        self.budget.is_short(&self.ledger, more) && (self.budget.is_beyond(&self.ledger, more) || !can_compact())
    }

    /// Adds its part of STATS.
    pub fn figures(&self, into: &mut Vec<(&'static str, String)>) {
        let (live, sealed) = (self.ledger.live_bytes(), self.ledger.sealed_bytes());
        let active = self.ledger.segments().last().map_or(0, |active| active.bytes);
        let figures = self.figures;
        into.extend([
            ("log_segments", self.ledger.segments().len().to_string()),
            ("log_bytes", (sealed + active).to_string()),
            ("log_live_bytes", live.to_string()),
            ("log_dead_bytes", (sealed + active).saturating_sub(live).to_string()),
            ("compacting", u8::from(self.running.is_some()).to_string()),
            ("compactions", figures.compactions.to_string()),
            ("compactions_given_up", figures.given_up.to_string()),
            ("compaction_bytes_read", figures.read.to_string()),
            ("compaction_bytes_copied", figures.copied.to_string()),
            ("compaction_bytes_reclaimed", figures.reclaimed.to_string()),
            ("compaction_longest_pause_us", figures.longest_pause.as_micros().to_string()),
        ]);
    }

    fn choose(&mut self, urgency: Urgency, now: Instant) -> Option<Run> {
        if let Some(full_run) = self.full_run {
            let (_, sealed) = self.ledger.segments().split_last()?;
            let run = victims::next(sealed, self.budget.segment_size, full_run.from, full_run.up_to);
            self.full_run = run.map(|run| FullRun { from: run.last + 1, ..full_run });
            if run.is_some() {
                return run;
            }
        }
        match urgency {
            Urgency::Paced if now >= self.quiet_until => self.pick(Appetite::Quarter),
            Urgency::None | Urgency::Paced => self.pick(Appetite::Free),
            Urgency::Pressed => self.pick(Appetite::Quarter).or_else(|| self.pick(Appetite::Any)),
        }
    }

    fn pick(&self, appetite: Appetite) -> Option<Run> {
        let (_, sealed) = self.ledger.segments().split_last()?;
        victims::choose(sealed, self.budget.segment_size, appetite)
    }

    /// Whether there is something to answer, and the table can. Amid a sweep it can't: what a flush hides has left the
    /// table only when it was swept.
    fn can_answer(&self, table: &Table) -> bool {
        self.unanswered.is_some() && table.sweeping().is_none()
    }

    fn answer(&mut self, mut questions: Questions, table: &Table) {
        let (mut allowance, work) = (self.bound.begin(), processor_time());
        while !questions.are_answered() && allowance.take() {
            for (key, _) in questions.open().take(PORTION) {
                table.prefetch(table.probe(key).hash);
            }
            questions.answer(PORTION, |key, version| match table.get(table.probe(key)).map(Entry::version) {
                Some(held) if held == version => Fate::Live,
                Some(_) => Fate::Superseded,
                None => Fate::Absent,
            });
        }
        if questions.are_answered() {
            self.compactor.answered(questions);
        } else {
            self.unanswered = Some(questions);
        }
        self.figures.longest_pause = self.figures.longest_pause.max(processor_time().saturating_sub(work));
    }

    fn done(&mut self, run: Run, outcome: &Outcome, now: Instant) {
        self.running = None;
        self.said = None;
        self.look_at = now;
        self.ledger.replaced(run.first, run.last, outcome.length, outcome.tally);
        self.reserve = match std::mem::replace(&mut self.reserve, Reserve::Whole) {
            Reserve::Lent => Reserve::Unneeded,
            Reserve::Wanted(_) => Reserve::Whole,
            reserve => reserve,
        };
        self.figures.compactions += 1;
        self.figures.read += outcome.read;
        self.figures.copied += outcome.length;
        self.figures.reclaimed += outcome.replaced.saturating_sub(outcome.length);
        tracing::debug!(
            first = run.first,
            last = run.last,
            bytes = outcome.replaced,
            left = outcome.length,
            "compacted segments"
        );
    }

    /// Bytes that the output of a run takes at most, and what a file takes beside them: a name and an inode, of which xfs makes
    /// 64 at a time.
    fn needed(&self, run: Run) -> RangeInclusive<u64> {
        const OF_A_FILE: RangeInclusive<u64> = 64 << 10..=256 << 10;
        let within = self.ledger.segments().iter().filter(|usage| (run.first..=run.last).contains(&usage.number));
        let records = within.map(|usage| usage.live_bytes + usage.tally.removal_bytes).sum::<u64>();
        let output = records + list_bytes(self.ledger.older_than(run.first).len());
        output + OF_A_FILE.start()..=output + OF_A_FILE.end()
    }

    fn gave_up(&mut self, run: Run, why: &CompactionError, now: Instant) {
        self.running = None;
        self.figures.given_up += 1;
        if let CompactionError::Spoiled { number, .. } = why {
            self.ledger.spoiled(*number);
            tracing::error!("{why}. It was found while compacting, which leaves this segment alone from now on");
        } else {
            self.look_at = now + AFTER_NO_SPACE;
            self.reserve = match (why, std::mem::replace(&mut self.reserve, Reserve::Whole)) {
                (CompactionError::NoSpace(shortage), Reserve::Whole) if shortage.is_of_bytes() => {
                    Reserve::Wanted(self.needed(run))
                }
                (_, Reserve::Lent) => Reserve::Unneeded,
                (_, reserve) => reserve,
            };
            if self.is_news(why) {
                tracing::warn!("{} not compacted: {why}", named(run));
            }
        }
    }

    /// Whether it is to be said why nothing came of a compaction: a shortage lasts, and is met again every second.
    fn is_news(&mut self, why: &CompactionError) -> bool {
        match why {
            CompactionError::NoSpace(shortage) => self.said.replace(*shortage) != Some(*shortage),
            _ => true,
        }
    }
}

/// What a simulation has to know and to say.
#[cfg(test)]
impl Compaction {
    pub fn with_bound(self, bound: Bound) -> Compaction {
        Compaction { bound, ..self }
    }

    /// How many reports there will have been when its thread has done all that was asked so far.
    pub fn reports_due(&self) -> u64 {
        self.compactor.requested()
    }

    pub fn count(&self) -> u64 {
        self.figures.compactions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fs::FakeDisk;
    use crate::log::{Secret, Usage};
    use std::sync::Arc;

    fn of_two_segments(now: Instant) -> Compaction {
        let usage = |number| Usage { number, first: number, versions_from: number, bytes: 8192, ..Usage::default() };
        let ledger = Ledger::new(vec![usage(1), usage(2)]);
        let compactor = Compactor::start(Arc::new(FakeDisk::new()), Secret::new(2), || ()).expect("a thread");
        let budget = Budget { segment_size: 8192, max_log_size: u64::MAX };
        Compaction::new(compactor, ledger, budget, UNPACED, now)
    }

    #[test]
    fn nothing_is_chosen_amid_a_sweep() {
        let now = Instant::now();
        let mut compaction = of_two_segments(now);
        let mut table = Table::new(1);
        table.begin_flush(None, 9);
        compaction.tend(&table, now, true);
        assert_eq!(compaction.running, None);
        while table.sweeping().is_some() {
            table.sweep(1000, &mut |_, _| ());
        }
        compaction.tend(&table, now + LOOK_EVERY, true);
        assert!(compaction.running.is_some_and(|run| run.first == 1 && run.is_empty));
    }
    #[test]
    fn a_shortage_is_said_once_until_something_was_compacted_or_there_is_room() {
        let now = Instant::now();
        let mut compaction = of_two_segments(now);
        let mut table = Table::new(1);
        // Nothing is begun meanwhile.
        table.begin_flush(None, 9);
        let full = CompactionError::NoSpace(Shortage::Disk);
        assert!(compaction.is_news(&full) && !compaction.is_news(&full));
        assert!(compaction.is_news(&CompactionError::NoSpace(Shortage::Inodes)), "it is another one");
        let run = Run { first: 1, last: 1, keep_removals: false, is_empty: true };
        let outcome = Outcome { length: 4096, tally: Tally::default(), read: 8192, replaced: 8192 };
        compaction.done(run, &outcome, now);
        assert!(compaction.is_news(&full), "something was compacted");
        for (is_full, is_news) in [(true, false), (false, true)] {
            compaction.look_at = now;
            compaction.tend(&table, now, is_full);
            assert_eq!(compaction.is_news(&full), is_news, "full: {is_full}");
        }
        assert_eq!(
            (named(run), named(Run { last: 3, ..run })),
            ("segment 1 was".into(), "segments 1 to 3 were".into())
        );
    }
}
