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

use crate::daemon::{Ended, Launch, PATIENCE, Store, figure_of, words};
use crate::faults::{sends_ok, strace, strace_is_missing};
use crate::oracle::{Condition, Entry, Operation, State, Verdict, Writer, parse_get};
use crate::zmtp::Peer;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

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

/// Rounds of the load; each fills a segment.
const ROUNDS: usize = 24;
/// Rounds from one full compaction to the next. One is several compactions.
const COMPACT_EVERY: usize = 3;
const SEGMENT: &str = "64KiB";
/// Two of them fill a segment.
const LARGE: usize = 30_000;
const KEYS: usize = 4;

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

    /// Whether another peer is about. Then all commits are the log thread's, which so makes late calls too; a peer that is
    /// alone is soon committed for by the thread that answers it.
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

/// A directory to start on, and how it came to be.
struct Seed {
    store: Store,
    told: Vec<(Operation, Vec<Vec<u8>>)>,
}

impl Seed {
    /// Sealed segments with garbage, an active one with a torn tail, a spare.
    fn plant() -> Seed {
        let store = Store::new();
        let daemon = store.launch().segment_size(SEGMENT).start();
        let mut peer = daemon.peer();
        let mut told = Vec::new();
        for operation in (0..3).flat_map(|round| operations(0, round)) {
            let reply = peer.call(&operation.frames()).expect("a reply");
            told.push((operation, reply));
        }
        daemon.kill();
        // The last file is the spare, all zeros.
        let last_byte = |path: &PathBuf| fs::read(path).expect("a segment").iter().rposition(|&byte| byte != 0);
        let ends = store.segments().into_iter().rev().find_map(|path| Some((last_byte(&path)?, path)));
        let (end, active) = ends.expect("an active segment");
        let file = fs::File::options().write(true).open(active).expect("a segment");
        file.write_all_at(b"half a batch", end as u64 + 100).expect("a torn tail");
        Seed { store, told }
    }

    /// A copy of it to ruin, and what is known of it.
    fn copy(&self) -> (Store, Writer) {
        let store = Store::new();
        fs::create_dir(store.path()).expect("a directory");
        for (name, bytes) in self.store.contents() {
            fs::write(store.path().join(name), bytes).expect("a copy");
        }
        let mut writer = Writer::default();
        for (operation, reply) in &self.told {
            writer.send(operation.clone());
            writer.receive(reply).expect("the replies of a life without errors");
        }
        (store, writer)
    }
}

/// What one round writes, in this life of the store.
fn operations(life: usize, round: usize) -> Vec<Operation> {
    let key = |number: usize| format!("k{}", number % KEYS);
    let value = |number: usize, length: usize| {
        let mut value = format!("{life}/{round}/{number}:").into_bytes();
        value.resize(value.len() + length, b'.');
        value
    };
    vec![
        Operation::Set(key(round), value(0, LARGE), Condition::Always),
        Operation::Increment("n".to_owned(), 1),
        Operation::SetMany(vec![("a".to_owned(), value(1, 10)), ("b".to_owned(), value(2, 10))]),
        Operation::Set(key(round + 1), value(3, LARGE), Condition::Always),
        Operation::Delete(vec![if round.is_multiple_of(2) { "a".to_owned() } else { key(round + 2) }]),
        Operation::Append("b".to_owned(), value(4, 10)),
        Operation::Get("b".to_owned()),
    ]
}

/// Everything that was ever written, as it is now.
fn state(peer: &mut Peer) -> Verdict<State> {
    let names = (0..KEYS).map(|number| format!("k{number}")).chain(["n", "a", "b"].map(str::to_owned));
    let mut state = State::new();
    for name in names {
        let reply = peer.call(&["GET", &name]).map_err(|error| format!("GET {name}: {error}"))?;
        if let Some((value, version)) = parse_get(&reply)? {
            state.insert(name, Entry { value, version: Some(version) });
        }
    }
    Ok(state)
}

/// How a load went.
#[derive(Debug, PartialEq, Eq)]
enum Went {
    Through,
    /// The daemon ended amid it.
    Short,
}

/// One request at a time, so that no reply to it is on its way when a call fails for it.
struct Load<'w> {
    peer: Peer,
    company: Option<Peer>,
    writer: &'w mut Writer,
    /// Writes answered `ERR NOSPACE`.
    refused: usize,
}

impl Load<'_> {
    fn run(&mut self) -> Verdict<Went> {
        for round in 0..ROUNDS {
            for operation in operations(1, round) {
                if self.carry_out(operation)? == Went::Short {
                    return Ok(Went::Short);
                }
            }
            // What it is told does not matter, nor whether it is.
            self.company.iter_mut().for_each(|peer| drop(peer.call(&["PING"])));
            if round.is_multiple_of(COMPACT_EVERY) && self.compact()? == Went::Short {
                return Ok(Went::Short);
            }
        }
        Ok(Went::Through)
    }

    /// Until it is accepted: there is room again as soon as the one error is over.
    fn carry_out(&mut self, operation: Operation) -> Verdict<Went> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = match self.peer.call(&operation.frames()) {
                Ok(reply) => reply,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(format!("neither a reply nor an end: {operation:.100?}"));
                }
                Err(_) => {
                    // It may or may not have happened.
                    self.writer.send(operation);
                    return Ok(Went::Short);
                }
            };
            if !words(&reply).starts_with("ERR NOSPACE ") {
                self.writer.send(operation);
                self.writer.receive(&reply)?;
                return Ok(Went::Through);
            }
            self.refused += 1;
            if Instant::now() > deadline {
                return Err(format!("refused for {PATIENCE:?}: {operation:.100?}"));
            }
        }
    }

    /// Has everything compacted, and waits until that is done or given up.
    fn compact(&mut self) -> Verdict<Went> {
        let deadline = Instant::now() + PATIENCE;
        let mut ask = |request: &str| match self.peer.call(&[request]) {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(format!("no reply to {request}")),
            Err(_) => Ok(None),
        };
        if ask("COMPACT")?.is_none() {
            return Ok(Went::Short);
        }
        loop {
            match ask("STATS")? {
                None => return Ok(Went::Short),
                Some(stats) if figure_of(&stats, "compacting") == 0 => return Ok(Went::Through),
                Some(_) if Instant::now() > deadline => return Err("compaction never ends".to_owned()),
                Some(_) => {}
            }
        }
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
fn judge(case: Case, trace: &str, is_ready: bool, load: (&Went, usize), ended: &Ended) -> Verdict<Outcome> {
    let (went, refused) = load;
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
        Some(1) if !is_ready && case.call != "write" => Ok(Outcome::RefusedToStart),
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
    let mut daemon = launch(case, &store, &log).spawn();
    let is_ready = daemon.comes_up();
    let (mut went, mut refused) = (Went::Short, 0);
    if is_ready {
        // It may have ended by now.
        if let Ok(peer) = Peer::connect(daemon.endpoint()) {
            let company = if case.in_company() { Peer::connect(daemon.endpoint()).ok() } else { None };
            let mut load = Load { peer, company, writer: &mut writer, refused: 0 };
            went = load.run()?;
            refused = load.refused;
        }
    }
    let ended = if went == Went::Through { daemon.terminate() } else { daemon.wait() };
    let trace = fs::read_to_string(&log).map_err(|error| format!("no trace: {error}"))?;
    let told = |wrong| {
        let injected: Vec<_> = trace.lines().filter(|line| line.contains("(INJECTED)")).collect();
        format!("{wrong}\n{}\n--- standard error ---\n{}---", injected.join("\n"), ended.stderr)
    };
    let outcome = judge(case, &trace, is_ready, (&went, refused), &ended).map_err(told)?;

    let launch = store.launch().segment_size(SEGMENT);
    let mut daemon = launch.spawn();
    if !daemon.comes_up() {
        return Err(told(format!("the next start is refused: {}", daemon.wait().stderr)));
    }
    let recovered = state(&mut daemon.peer())?;
    writer.recover(recovered).map_err(told)?;
    daemon.stop();
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
    let next = AtomicUsize::new(0);
    let (outcomes, wrongs) = (Mutex::new(BTreeMap::<Outcome, usize>::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        // Most of the time a case waits for the disk.
        for _ in 0..2 * std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < count) {
                    let case = Case::numbered(index);
                    match run(case, &seed) {
                        Ok(outcome) => {
                            println!("{index}: {case}: {outcome:?}");
                            *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
                        }
                        Err(wrong) => wrongs.lock().unwrap().push(format!("{index}: {case}: {wrong}")),
                    }
                }
            });
        }
    });
    let (outcomes, wrongs) = (outcomes.into_inner().unwrap(), wrongs.into_inner().unwrap());
    println!("{count} cases: {outcomes:?}");
    assert!(wrongs.is_empty(), "{} of {count} cases:\n{}", wrongs.len(), wrongs.join("\n"));
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
