//! A load of one peer that never stops rotating and compacting, and a directory with something to do to put it on.
//!
//! One request at a time: whatever fails, at most one of them is without a reply. The [`crate::oracle`] judges what the next
//! start finds.

use crate::daemon::{Ended, Launch, PATIENCE, Store, figure_of, words};
use crate::oracle::{Condition, Entry, Operation, State, Verdict, Writer, parse_get};
use crate::zmtp::Peer;
use std::fmt::{Debug, Display};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Rounds from one full compaction to the next. One is several compactions.
const COMPACT_EVERY: usize = 3;
pub const SEGMENT: &str = "64KiB";
/// How often it is looked whether a compaction is through.
const POLL: Duration = Duration::from_millis(2);
/// Two of them fill a segment.
const LARGE: usize = 30_000;
const KEYS: usize = 4;

/// A directory to start on, and how it came to be.
pub struct Seed {
    pub store: Store,
    told: Vec<(Operation, Vec<Vec<u8>>)>,
}

impl Seed {
    /// Sealed segments with garbage, an active one with a torn tail, a spare.
    pub fn plant() -> Seed {
        let mut seed = Seed { store: Store::new(), told: Vec::new() };
        let daemon = seed.store.launch().segment_size(SEGMENT).start();
        let mut peer = daemon.peer();
        for operation in (0..3).flat_map(|round| operations(0, round)) {
            seed.tell(&mut peer, operation);
        }
        daemon.kill();
        seed.tear();
        seed
    }

    /// Has something more done to it.
    pub fn tell(&mut self, peer: &mut Peer, operation: Operation) {
        let reply = peer.call(&operation.frames()).expect("a reply");
        self.told.push((operation, reply));
    }

    /// Leaves half a batch at the end of the log.
    pub fn tear(&self) {
        // The last file is the spare, all zeros.
        let last_byte = |path: &PathBuf| fs::read(path).expect("a segment").iter().rposition(|&byte| byte != 0);
        let ends = self.store.segments().into_iter().rev().find_map(|path| Some((last_byte(&path)?, path)));
        let (end, active) = ends.expect("an active segment");
        let file = fs::File::options().write(true).open(active).expect("a segment");
        file.write_all_at(b"half a batch", end as u64 + 100).expect("a torn tail");
    }

    /// A copy of it to ruin, and what is known of it.
    pub fn copy(&self) -> (Store, Writer) {
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

/// What came of a life.
pub struct Life {
    /// Whether it came to serve.
    pub is_ready: bool,
    pub went: Went,
    /// Writes answered `ERR NOSPACE`.
    pub refused: usize,
    pub ended: Ended,
}

/// One life under so many rounds of the load. `in_company` is whether another peer is about. Then all commits are the log
/// thread's; a peer that is alone is soon committed for by the thread that answers it.
pub fn live(launch: &Launch, rounds: usize, in_company: bool, writer: &mut Writer) -> Verdict<Life> {
    let mut daemon = launch.spawn();
    let is_ready = daemon.comes_up();
    let (mut went, mut refused) = (Went::Short, 0);
    if is_ready {
        // It may have ended by now.
        if let Ok(peer) = Peer::connect(daemon.endpoint()) {
            let company = if in_company { Peer::connect(daemon.endpoint()).ok() } else { None };
            let mut load = Load { peer, company, writer, refused: 0 };
            went = load.run(rounds)?;
            refused = load.refused;
        }
    }
    let ended = if went == Went::Through { daemon.terminate() } else { daemon.wait() };
    Ok(Life { is_ready, went, refused, ended })
}

/// Starts once more, where nothing fails, and judges what is there.
pub fn judge_what_is_left(store: &Store, writer: &mut Writer) -> Verdict {
    let mut daemon = store.launch().segment_size(SEGMENT).spawn();
    if !daemon.comes_up() {
        return Err(format!("the next start is refused: {}", daemon.wait().stderr));
    }
    writer.recover(state(&mut daemon.peer())?)?;
    daemon.stop();
    Ok(())
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
pub enum Went {
    Through,
    /// The daemon ended amid it.
    Short,
}

/// One request at a time, so that no reply to it is on its way when something fails for it.
struct Load<'w> {
    peer: Peer,
    company: Option<Peer>,
    writer: &'w mut Writer,
    refused: usize,
}

impl Load<'_> {
    /// Each round fills a segment.
    fn run(&mut self, rounds: usize) -> Verdict<Went> {
        for round in 0..rounds {
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
        // The first figures are of before it has begun.
        if ask("COMPACT")?.is_none() || ask("STATS")?.is_none() {
            return Ok(Went::Short);
        }
        loop {
            match ask("STATS")? {
                None => return Ok(Went::Short),
                Some(stats) if figure_of(&stats, "compacting") == 0 => return Ok(Went::Through),
                Some(_) if Instant::now() > deadline => return Err("compaction never ends".to_owned()),
                // Asked all the time, the daemon would have less left for the compaction.
                Some(_) => std::thread::sleep(POLL),
            }
        }
    }
}

/// Runs cases side by side, and fails with all that is wrong in any of them.
pub fn run_all<C, O>(cases: &[C], run: impl Fn(&C) -> Verdict<O> + Sync) -> Vec<O>
where
    C: Display + Sync,
    O: Debug + Send,
{
    let next = AtomicUsize::new(0);
    let (outcomes, wrongs) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        // Most of the time a case waits for the disk.
        for _ in 0..2 * std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match run(case) {
                        Ok(outcome) => {
                            println!("{case}: {outcome:?}");
                            outcomes.lock().unwrap().push(outcome);
                        }
                        Err(wrong) => wrongs.lock().unwrap().push(format!("{case}: {wrong}")),
                    }
                }
            });
        }
    });
    let wrongs = wrongs.into_inner().unwrap();
    assert!(wrongs.is_empty(), "{} of {} cases:\n{}", wrongs.len(), cases.len(), wrongs.join("\n"));
    outcomes.into_inner().unwrap()
}
