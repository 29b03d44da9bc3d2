//! What a store is made to do, step by step, and how it is started again: for whoever chooses the steps.

use crate::store_judge::{Found, open};
use crate::store_under_test::Store;
use kvd::log::LogError;
use kvd::log::fs::{Crash, FakeDisk, FaultPlan};
use kvd::log::victims::Appetite;

/// Sizes of a segment.
pub const SIZES: [u64; 3] = [8192, 6000, 20_000];
pub const HOUR: i64 = 60 * 60 * 1000;

/// What a running store is made to do.
#[derive(Clone, Debug)]
pub enum Act {
    /// A command, a word a frame; `x*3` is `xxx`.
    Ask(String),
    /// The forming batch is committed, and synced or not.
    Commit { synced: bool },
    /// One run is compacted, or all that is worth it, of one segment or with all its neighbours; during it these are asked
    /// and committed.
    Compact { appetite: Option<Appetite>, wide: bool, meanwhile: Vec<(String, bool)> },
    /// Time goes by, in milliseconds.
    Wait(u64),
    /// What has expired is removed.
    Expire,
    /// Some of what was flushed is removed.
    Sweep(usize),
    /// Entries are evicted, at most so many.
    Evict(usize),
    /// The disk has room for so many bytes more, or for anything.
    Room(Option<usize>),
    /// The store stops in an orderly way.
    Stop,
}

/// How a store is started again.
#[derive(Clone, Debug)]
pub struct Restart {
    /// What the disk keeps of the unsynced.
    pub crash: Crash,
    /// The start itself is cut short at this operation, and what is kept then.
    pub cut_short: Option<(u64, Crash)>,
    /// Bytes of a segment from then on.
    pub segment_size: u64,
    /// By how much the wall clock is stepped meanwhile, in milliseconds.
    pub step: i64,
}

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// The store does this.
    Do(Act),
    /// The store does this until the power goes, at this operation or after the last one, and is started again.
    Crash(u64, Act, Restart),
    /// The store stops and is started again.
    Stop(Restart),
}

/// Starts a store again, as often as it is cut short.
fn start_again(store: &mut Store, restart: &Restart) {
    let Restart { crash, cut_short, segment_size, step } = restart.clone();
    store.wall = store.wall.saturating_add_signed(step);
    let mut found = store.disk.crash(crash);
    let mut kill = crash == Crash::KeepAll;
    if let Some((at, crash)) = cut_short {
        found.plan(FaultPlan { power_off_at: Some(at), ..FaultPlan::default() });
        // A start that came to its end has shown what it found.
        if let Ok(opened) = try_open(store, &found, segment_size) {
            store.adopt(found.clone(), segment_size, opened, kill);
            kill = false;
        }
        kill &= crash == Crash::KeepAll;
        found = found.crash(crash);
    }
    let opened = try_open(store, &found, segment_size).unwrap_or_else(|error| panic!("{restart:?}: {error}"));
    store.adopt(found, segment_size, opened, kill);
}

fn try_open(store: &Store, disk: &FakeDisk, segment_size: u64) -> Result<Found, LogError> {
    let wall = store.wall;
    open(disk, segment_size, |recorded| starting_time(wall, recorded))
}

/// The daemon's rule: the later of both, unless the log is further ahead than can be believed.
fn starting_time(wall: u64, recorded: u64) -> u64 {
    if recorded > wall + HOUR as u64 { wall } else { wall.max(recorded) }
}

/// Does all of it, compacts what is left, and finds it again.
pub fn run(steps: &[Step]) {
    let mut store = Store::new(SIZES[0]);
    for step in steps {
        match step {
            Step::Do(act) => store.act(act).unwrap_or_else(|error| panic!("{act:?}: {error}")),
            Step::Crash(at, act, restart) => {
                store.power_off_at(*at);
                // What it managed of it, all of it included, is what the model has been told.
                let _ = store.act(act);
                start_again(&mut store, restart);
            }
            Step::Stop(restart) => {
                store.act(&Act::Stop).unwrap();
                start_again(&mut store, restart);
            }
        }
    }
    // In the end all that is left is compacted, twice, and found again.
    for _ in 0..2 {
        store.act(&Act::Room(None)).unwrap();
        store.act(&Act::Compact { appetite: None, wide: true, meanwhile: Vec::new() }).unwrap();
        let restart = Restart { crash: Crash::KeepAll, cut_short: None, segment_size: SIZES[0], step: 0 };
        start_again(&mut store, &restart);
    }
}
