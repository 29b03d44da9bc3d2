//! Every point of [`kvd::fault`], at which the disk refuses, a thread panics or time passes: the first time that it is passed,
//! and one amid the others.
//!
//! A case starts the daemon on a directory with all that a start has to mend, and puts the [`crate::small_load`] on it, until
//! it ends or is asked to. What must hold in every case: it ends with the code that [`demanded`] says; nothing that was
//! acknowledged is missing and nothing that was refused is there, once it is started again, judged by the
//! [`crate::oracle`]; and the point was passed as often as that. How often each is passed in a life without faults is
//! counted first, so that none stands where nobody comes.
//!
//! `KVD_FAULT_POINT` names the one point whose cases are run.

use crate::daemon::{Launch, Store};
use crate::faults::{assert_acknowledged_are_there, write_until_it_ends};
use crate::oracle::{Operation, Verdict};
use crate::readme::text_of;
use crate::small_load::{Life, SEGMENT, Seed, Went, judge_what_is_left, live, run_all};
use kvd::fault::POINTS;
use std::fmt;

/// Rounds of the load.
const ROUNDS: usize = 8;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Error,
    Panic,
    Pause,
}

impl Action {
    /// As `fail` has it.
    fn task(self) -> &'static str {
        match self {
            Action::Error => "return",
            Action::Panic => "panic",
            Action::Pause => "sleep(30)",
        }
    }
}

/// Once, at this point, when it is passed for this time.
#[derive(Clone, Copy)]
struct Case {
    point: &'static str,
    action: Action,
    time: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{:?} at {} {}", self.action, self.point, self.time)
    }
}

impl Case {
    fn launch(self, store: &Store) -> Launch {
        let actions = format!("{}={}*off->1*{}", self.point, self.time - 1, self.action.task());
        launch(store).environment("FAILPOINTS", actions)
    }
}

/// It tells of each point that it passes.
fn launch(store: &Store) -> Launch {
    store.launch().segment_size(SEGMENT).option("--log-level", "info,kvd::fault=trace")
}

/// The points passed, in their order.
fn passed(stderr: &str) -> impl Iterator<Item = &str> {
    stderr.lines().filter_map(|line| Some(line.split_once(" kvd::fault: ")?.1))
}

/// The exit code that a case must lead to.
fn demanded(case: Case) -> i32 {
    match (case.action, case.point) {
        // After such an error the compaction is called off, and another one begun.
        (Action::Pause, _) | (Action::Error, "compaction-answered" | "compaction-settled") => 0,
        (Action::Error, "stop-finished") => 70,
        // Whichever thread it was on.
        (Action::Panic, _) => 101,
        // It is none of the disk.
        (Action::Error, "start-bound" | "start-ready") => 1,
        _ => 74,
    }
}

/// Judges the end of a daemon. Returns its exit code.
fn judge(case: Case, life: &Life) -> Verdict<i32> {
    let Case { point, action, time } = case;
    let Life { is_ready, went, refused, ended } = life;
    let wrong = |what: &str| Err(format!("{what}: {}", ended.status));
    let passed: Vec<&str> = passed(&ended.stderr).collect();
    let Some((at, _)) = passed.iter().enumerate().filter(|(_, passed)| **passed == point).nth(time - 1) else {
        return wrong("it did not come so far");
    };
    let code = demanded(case);
    if ended.status.code() != Some(code) {
        return wrong(&format!("not {code}"));
    }
    if ended.stderr.contains("panicked") != (action == Action::Panic) {
        return wrong("a panic or none, where that is not what happened");
    }
    if code != 0 && action != Action::Panic && !ended.stderr.contains("kvd: ") {
        return wrong("it does not say why it ended");
    }
    let (in_start, in_stop) = (point.starts_with("start-"), point.starts_with("stop-"));
    if *is_ready != (code == 0 || !in_start) || (*went == Went::Through) != (code == 0 || in_stop) {
        return wrong("it served too long, or not long enough");
    }
    if *refused > 0 {
        return wrong("writes were refused although no disk was full");
    }
    // What the log thread meets in the middle of a batch is the end of this batch, and so of all that could be acknowledged.
    let ends_commits = code != 0 && (point.starts_with("commit-") || point.starts_with("segment-"));
    if ends_commits && passed[at + 1..].contains(&"commit-heard") {
        return wrong("a batch was acknowledged after that");
    }
    Ok(code)
}

fn run(case: Case, seed: &Seed) -> Verdict<i32> {
    let (store, mut writer) = seed.copy();
    let life = live(&case.launch(&store), ROUNDS, true, &mut writer)?;
    let told = |wrong| {
        let lines = life.ended.stderr.lines().filter(|line| !line.contains(" kvd::fault: "));
        format!("{wrong}\n{}\n---", lines.collect::<Vec<_>>().join("\n"))
    };
    judge_what_is_left(&store, &mut writer).map_err(told)?;
    judge(case, &life).map_err(told)
}

/// Beside what every seed has, the segments that a compaction would have removed had it not been cut short.
fn seed() -> Seed {
    let mut seed = Seed::plant();
    let daemon = launch(&seed.store).environment("FAILPOINTS", "compaction-removing=return").start();
    let mut peer = daemon.peer();
    seed.tell(&mut peer, Operation::Delete(["k0", "k1", "k2"].map(str::to_owned).to_vec()));
    peer.send(&["COMPACT"]).expect("a daemon");
    let ended = daemon.wait();
    assert_eq!(ended.status.code(), Some(74), "{}", ended.stderr);
    seed.tear();
    seed
}

/// How often each point is passed in a life without faults.
fn rehearse(seed: &Seed) -> Vec<(&'static str, usize)> {
    let (store, mut writer) = seed.copy();
    let life = live(&launch(&store), ROUNDS, true, &mut writer).expect("a life without faults");
    assert_eq!(life.ended.status.code(), Some(0), "{}", life.ended.stderr);
    let times = |point: &str| passed(&life.ended.stderr).filter(|passed| *passed == point).count();
    POINTS.iter().map(|point| (*point, times(point))).collect()
}

#[test]
fn whatever_happens_at_any_of_them_nothing_acknowledged_is_lost() {
    let only = std::env::var("KVD_FAULT_POINT").ok();
    let seed = seed();
    let mut cases = Vec::new();
    for (point, times) in rehearse(&seed) {
        println!("{point}: passed {times} times");
        assert_ne!(times, 0, "nobody comes to {point}");
        let amid = 1 + times / 2;
        for time in [1].into_iter().chain((amid > 1).then_some(amid)) {
            cases.extend([Action::Error, Action::Panic, Action::Pause].map(|action| Case { point, action, time }));
        }
    }
    cases.retain(|case| only.as_deref().is_none_or(|only| case.point == only));
    let manual = text_of("docs/operations.md");
    for code in run_all(&cases, |case| run(*case, &seed)) {
        assert!(manual.contains(&format!("\n| {code} | ")), "the manual knows no exit code {code}");
    }
    println!("{} points, {} cases", POINTS.len(), cases.len());
}

#[test]
fn a_new_store_that_was_not_made_to_its_end_is_made_anew() {
    for point in ["segment-header-written", "segment-header-synced", "segment-entry-synced"] {
        for (action, code) in [(Action::Error, 74), (Action::Panic, 101)] {
            let store = Store::new();
            let case = Case { point, action, time: 1 };
            let ended = case.launch(&store).refused();
            assert_eq!(ended.status.code(), Some(code), "{case}: {}", ended.stderr);
            assert_eq!(store.start().client().say("COUNT"), "OK 0", "{case}");
        }
    }
}

/// A peer that has been alone for a second is committed for by the thread that answers it.
#[test]
fn a_panic_amid_a_commit_on_the_thread_that_answers_is_the_end() {
    for point in ["commit-placed", "commit-written", "commit-synced"] {
        let store = Store::new();
        let actions = format!("{point}=1*sleep(1100)->20*off->1*panic");
        let daemon = launch(&store).environment("FAILPOINTS", actions).start();
        let acknowledged = write_until_it_ends(&daemon);
        let ended = daemon.wait();
        assert_eq!(ended.status.code(), Some(101), "{point}: {}", ended.stderr);
        assert!(ended.stderr.contains("thread 'main'"), "{point}: {}", ended.stderr);
        assert!(acknowledged > 0);
        assert_acknowledged_are_there(&store, acknowledged);
    }
}
