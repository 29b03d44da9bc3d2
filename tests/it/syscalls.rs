//! The matrix of failing system calls: each call by which kvd changes a disk, each error that a disk has for it, the first
//! to the twentieth time that a thread makes it.
//!
//! A case starts the daemon on a directory with something to do (several segments, a torn tail, garbage), lets the call
//! fail once in each thread, and puts a small load on it that rotates and compacts all the time. Then it is started once
//! more, without errors. What must hold in every case: nothing that was acknowledged is missing and nothing that was
//! refused is there, judged by the [`crate::oracle`]; the end is one of those that the manual names, and is told on
//! standard error; the next start finds a log that is clean or has a torn tail, never damage. What the error itself must
//! lead to is [`demanded`].
//!
//! Errors are for files of the data directory, and `write` is for standard error: of the other descriptors that it is
//! used on, wake-ups in memory, the kernel promises that it does not fail.
//!
//! `KVD_SYSCALL_CASES` is how many cases are run, spread over the whole, or `all` of the 720.

use crate::daemon::{Launch, Store};
use crate::faults::{sends_ok, strace, strace_is_missing};
use crate::oracle::Verdict;
use crate::small_load::{Life, SEGMENT, Seed, Went, judge_what_is_left, live, run_all};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::Path;

/// As strace writes them: what each architecture has of a group.
const CALLS: [&str; 9] = [
    "write",
    "pwrite64",
    "fdatasync",
    "fsync",
    "?open,openat",
    "?rename,?renameat,renameat2",
    "?unlink,unlinkat",
    "fallocate",
    "ftruncate",
];
const ERRORS: [&str; 4] = ["EIO", "ENOSPC", "EDQUOT", "EINTR"];
const TIMES: usize = 20;
const ALL: usize = CALLS.len() * ERRORS.len() * TIMES;
/// Cases where nobody says how many.
const USUAL: usize = 60;

/// Rounds of the load.
const ROUNDS: usize = 24;

#[derive(Clone, Copy)]
struct Case {
    call: &'static str,
    error: &'static str,
    /// Which call of each thread fails.
    time: usize,
}

impl Case {
    /// The first cases have every call and every error already.
    fn numbered(index: usize) -> Case {
        let (pair, turn) = (index % (CALLS.len() * ERRORS.len()), index / (CALLS.len() * ERRORS.len()));
        // 7 and 9 have no factor in common with 20: each pair gets each time once.
        let time = 1 + (7 * pair + 9 * turn) % TIMES;
        Case { call: CALLS[pair / ERRORS.len()], error: ERRORS[pair % ERRORS.len()], time }
    }

    /// Whether another peer is about, so that the log thread makes late calls too.
    fn in_company(&self) -> bool {
        self.time > TIMES / 2
    }

    fn is_sync(&self) -> bool {
        matches!(self.call, "fdatasync" | "fsync")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{} of the {}. {}", self.error, self.time, self.call)
    }
}

/// What an injected error must lead to, once the daemon serves. Before that it may refuse to start for any but that of
/// standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// It goes on, and answers as if nothing had happened.
    GoesOn,
    /// It goes on, and may refuse writes for a while.
    Refuses,
    /// It ends with 74.
    Ends,
    /// It refuses, or ends with 74.
    RefusesOrEnds,
}

/// `line` is how the trace tells of the error.
fn demanded(case: Case, line: &str) -> Demand {
    match (case.call, case.error) {
        ("write", _) | ("pwrite64" | "?open,openat" | "fallocate" | "ftruncate", "EINTR") => Demand::GoesOn,
        ("fdatasync" | "fsync", _) | ("pwrite64", "EIO") => Demand::Ends,
        ("pwrite64" | "fallocate", "ENOSPC" | "EDQUOT") => Demand::Refuses,
        ("?open,openat", "ENOSPC" | "EDQUOT") if line.contains("O_CREAT") => Demand::Refuses,
        _ => Demand::RefusesOrEnds,
    }
}

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// No thread made the call that often.
    NeverCame,
    WentOn,
    RefusedWrites,
    RefusedToStart,
    EndedWith74,
}

/// The daemon under strace, which lets the call fail in files of the data directory (up to so many segments), or in its
/// standard error.
fn launch(case: Case, store: &Store, log: &Path) -> Launch {
    let (trace, inject) = (
        format!("trace={}{}", case.call, if case.is_sync() { ",sendto,sendmsg" } else { "" }),
        format!("inject={}:error={}:when={}", case.call, case.error, case.time),
    );
    let mut arguments = vec!["-Y".to_owned(), "-y".into(), "-s".into(), "64".into()];
    arguments.extend(["-e".to_owned(), trace, "-e".into(), inject]);
    let launch = store.launch().segment_size(SEGMENT).option("--log-level", "debug");
    if case.call == "write" {
        // A pipe has no path, but it has a name.
        let script = r#"tracer=$1; shift; exec "$tracer" -P "$(readlink /proc/$$/fd/2)" "$@""#;
        let mut words = ["sh", "-c", script, "sh"].map(OsString::from).to_vec();
        words.extend(strace(log, &arguments));
        return launch.under(&words);
    }
    if !case.is_sync() {
        let numbers = 1..=2 * ROUNDS + 8;
        let names = numbers.flat_map(|number| ["log", "log.tmp"].map(|end| format!("segment-{number:020}.{end}")));
        let files = names.chain(["LOCK".to_owned()]).map(|name| store.path().join(name));
        for file in files.chain([store.path()]) {
            arguments.extend(["-P".to_owned(), file.display().to_string()]);
        }
    }
    launch.under(&strace(log, &arguments))
}

/// Judges the end of a daemon by what the trace tells of the errors.
fn judge(case: Case, trace: &str, life: &Life) -> Verdict<Outcome> {
    let Life { is_ready, went, refused, ended } = life;
    let (is_ready, refused) = (*is_ready, *refused);
    let wrong = |what: &str| Err(format!("{what}: {}", ended.status));
    let injected: Vec<&str> = trace.lines().filter(|line| line.contains("(INJECTED)")).collect();
    let demands: Vec<Demand> = injected.iter().map(|line| demanded(case, line)).collect();
    let all = |allowed: &[Demand]| demands.iter().all(|demand| allowed.contains(demand));
    let code = ended.status.code();
    if ended.stderr.contains("panicked") {
        return wrong("a panic");
    }
    if !matches!(code, Some(0)) && !ended.stderr.contains("kvd: ") {
        return wrong("it does not say why it ended");
    }
    if refused > 0 && !matches!(case.error, "ENOSPC" | "EDQUOT") {
        return wrong("writes are refused although no disk was full");
    }
    if case.is_sync() {
        judge_syncs(case, trace)?;
    }
    match code {
        Some(code) if !is_ready && case.call != "write" => {
            let due = match case.error {
                // What there is too little of, there may be more of at another start.
                "ENOSPC" | "EDQUOT" | "ENOMEM" | "EMFILE" | "EAGAIN" => 75,
                "EIO" => 74,
                _ => 1,
            };
            if code == due { Ok(Outcome::RefusedToStart) } else { wrong("not the code that this refusal has") }
        }
        _ if !is_ready => wrong("an end before it serves"),
        Some(74) if !all(&[Demand::GoesOn, Demand::Refuses]) => Ok(Outcome::EndedWith74),
        Some(0) if demands.contains(&Demand::Ends) => wrong("it went on after an error that is final"),
        Some(0) if *went == Went::Short => wrong("it stopped without being asked to"),
        Some(0) if injected.is_empty() && refused == 0 => Ok(Outcome::NeverCame),
        Some(0) if refused == 0 => Ok(Outcome::WentOn),
        Some(0) if !all(&[Demand::GoesOn]) => Ok(Outcome::RefusedWrites),
        _ => wrong("not an end for this error"),
    }
}

/// After a failed sync its thread makes none again, and what was waiting for it is not acknowledged. (What compaction syncs
/// nobody waits for.)
fn judge_syncs(case: Case, trace: &str) -> Verdict {
    let lines: Vec<&str> = trace.lines().collect();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("(INJECTED)")) {
        let thread = line.split(' ').next().unwrap_or_default();
        let after = &lines[at + 1..];
        if let Some(retried) = after.iter().find(|line| line.starts_with(thread) && line.contains(case.call)) {
            return Err(format!("a failed sync is tried again: {retried}"));
        }
        let late = after.iter().find(|line| sends_ok(line));
        if let Some(late) = late.filter(|_| !thread.contains("compaction")) {
            return Err(format!("a reply after a failed sync: {late}"));
        }
    }
    Ok(())
}

fn run(case: Case, seed: &Seed) -> Verdict<Outcome> {
    let (store, mut writer) = seed.copy();
    let log = store.beside("strace");
    let life = live(&launch(case, &store, &log), ROUNDS, case.in_company(), &mut writer)?;
    let trace = fs::read_to_string(&log).map_err(|error| format!("no trace: {error}"))?;
    let told = |wrong| {
        let injected: Vec<_> = trace.lines().filter(|line| line.contains("(INJECTED)")).collect();
        format!("{wrong}\n{}\n--- standard error ---\n{}---", injected.join("\n"), life.ended.stderr)
    };
    let outcome = judge(case, &trace, &life).map_err(told)?;

    judge_what_is_left(&store, &mut writer).map_err(told)?;
    Ok(outcome)
}

#[test]
fn no_failing_system_call_loses_anything_or_goes_unnoticed() {
    if strace_is_missing() {
        return;
    }
    let count = match std::env::var("KVD_SYSCALL_CASES") {
        Ok(all) if all == "all" => ALL,
        Ok(count) => count.parse().expect("KVD_SYSCALL_CASES is a number or `all`"),
        Err(_) => USUAL,
    };
    let seed = Seed::plant();
    let cases: Vec<Case> = (0..count).map(Case::numbered).collect();
    let mut outcomes = BTreeMap::<Outcome, usize>::new();
    for outcome in run_all(&cases, |case| run(*case, &seed)) {
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!("{count} cases: {outcomes:?}");
    let never = outcomes.get(&Outcome::NeverCame).copied().unwrap_or(0);
    assert!(never < count / 4, "in {never} of {count} cases the error never came: the load is too small");
}

#[test]
fn an_interrupted_wait_is_no_failure() {
    if strace_is_missing() {
        return;
    }
    let store = Store::new();
    let log = store.beside("strace");
    let arguments = ["-e", "trace=?poll,ppoll", "-e", "inject=?poll,ppoll:error=EINTR:when=5+3"];
    let daemon = store.launch().under(&strace(&log, &arguments)).start();
    let clients: Vec<_> = (0..4).map(|_| daemon.dealer()).collect();
    for round in 0..50 {
        for client in &clients {
            client.send_words(&format!("SET k {round}"));
            client.send_words("GET k");
        }
        for client in &clients {
            assert!(client.hear().starts_with("OK "));
            assert!(client.hear().starts_with(&format!("OK {round} ")));
        }
    }
    // libzmq's own waits are among them, and so are those of a stop.
    daemon.stop();
    let trace = fs::read_to_string(&log).expect("a trace");
    let interrupted = trace.lines().filter(|line| line.contains("(INJECTED)")).count();
    assert!(interrupted > 50, "only {interrupted} waits were interrupted");
}
