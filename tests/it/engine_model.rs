//! The engine against a model that is too simple to be wrong: two maps, and a copy of the second for each batch.
//!
//! Random commands over few keys, with batches closing, committing and being refused in between, are asked of
//! both. Replies, what they wait for, and at every commit the whole table must agree; and the table must equal
//! what a replay makes of the mutations that were committed, shuffled and fed from two threads.

use kvd::command::{Absent, Command, Condition, End, Expiry, Limits, NewCounter, Reply};
use kvd::engine::{BatchId, Engine, MemoryLimit, View};
use kvd::mutation::{Key, Mutation, PICKLED, Value};
use kvd::table::{Replay, Table};
use kvd::wire::{Frame, ReplyFrames, frames};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LIMITS: Limits = Limits { max_value: 24 };
const SEED: u128 = 0x1234_5678_9abc_def0_0fed_cba9_8765_4321;

/// What happens in a run.
#[derive(Clone, Debug)]
enum Step {
    /// A command, a word a frame, under a view.
    Ask(View, String),
    /// The forming batch is closed.
    Close,
    /// The oldest closed batches, up to this many, become durable.
    Commit(usize),
    /// The oldest batch is refused.
    Refuse,
    /// Time goes by, in milliseconds.
    Wait(u64),
    /// Some of what was flushed is removed, with this effort.
    Sweep(usize),
    /// Time goes by, enough for every shard to be looked at again, and everything expired is removed.
    Expire,
    /// Entries are evicted, at most so many.
    Evict(usize),
}

/// What a key holds in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    value: Vec<u8>,
    flags: u32,
    deadline: u64,
    version: u64,
}

type Rows = BTreeMap<Vec<u8>, Row>;

/// What a pending mutation says something about.
#[derive(Clone, Debug)]
enum Touch {
    Key(Vec<u8>),
    /// What starts with it; `None` is everything.
    Prefix(Option<Vec<u8>>),
}

impl Touch {
    fn covers(&self, key: &[u8]) -> bool {
        match self {
            Touch::Key(touched) => touched == key,
            Touch::Prefix(prefix) => key.starts_with(prefix.as_deref().unwrap_or_default()),
        }
    }
}

struct Model {
    durable: Rows,
    /// With everything pending applied.
    full: Rows,
    /// Closed batches, oldest first, each with the rows as they were when it closed.
    closed: Vec<(BatchId, Rows)>,
    committed: BatchId,
    forming: BatchId,
    touches: Vec<(BatchId, Touch)>,
    /// When each pending TOUCH was asked: what had not expired by then may outlive its durable deadline.
    extended: Vec<(BatchId, u64)>,
    next_version: u64,
    /// The flushes, by version: the batch of each, and the versions of the entries that it removes.
    flushes: BTreeMap<u64, (BatchId, BTreeSet<u64>)>,
}

/// An answer of the model: words, and what must be durable first.
type Answer = (String, Option<BatchId>);

impl Model {
    fn new() -> Self {
        let (durable, full) = (Rows::new(), Rows::new());
        Model {
            durable,
            full,
            closed: Vec::new(),
            committed: 0,
            forming: 1,
            touches: Vec::new(),
            extended: Vec::new(),
            next_version: 1,
            flushes: BTreeMap::new(),
        }
    }

    /// Removes what has expired and is durable, but for what a pending TOUCH may keep alive. What is pending on top of it stays.
    ///
    /// `left` is what the engine's table holds afterwards: where a TOUCH is pending it may take its time.
    fn expire(&mut self, now: u64, left: &Rows) {
        let since = self.extended.first().map(|&(_, since)| since);
        let is_over = |row: &&Row| row.deadline != 0 && row.deadline <= since.unwrap_or(now);
        let over =
            self.durable.iter().filter(|(key, row)| is_over(row) && !(since.is_some() && left.contains_key(*key)));
        let expired: Vec<u64> = over.map(|(_, row)| row.version).collect();
        let pending = self.closed.iter_mut().map(|(_, rows)| rows);
        for rows in pending.chain([&mut self.durable, &mut self.full]) {
            rows.retain(|_, row| !expired.contains(&row.version));
        }
        for (batch, removes) in self.flushes.values_mut() {
            // Those that are in effect had hidden it, and count it.
            if *batch > self.committed {
                removes.retain(|version| !expired.contains(version));
            }
        }
    }

    /// Has the engine sweep, and compares how many entries each flush removed that is through by that.
    fn sweep(&mut self, engine: &mut Engine, effort: usize) {
        if let Some(swept) = engine.sweep(effort, &mut |_, _| ()) {
            let (batch, removes) = self.flushes.remove(&swept.version).unwrap();
            assert!(batch <= self.committed);
            assert_eq!(swept.removed, removes.len() as u64);
        }
    }

    /// Whether a flush of a prefix is pending, or in effect and not swept yet.
    fn flushing_a_prefix(&self, engine: &Engine, view: View) -> bool {
        let is_prefix = |(_, touch): &(BatchId, Touch)| matches!(touch, Touch::Prefix(Some(_)));
        engine.table().sweeping_a_prefix() || view == View::Pending && self.touches.iter().any(is_prefix)
    }

    fn newest_over(&self, key: &[u8]) -> Option<BatchId> {
        self.touches.iter().rev().find(|(_, touch)| touch.covers(key)).map(|&(batch, _)| batch)
    }

    fn live(rows: &Rows, key: &[u8], now: u64) -> Option<Row> {
        rows.get(key).filter(|row| row.deadline == 0 || row.deadline > now).cloned()
    }

    fn put(&mut self, key: &[u8], value: &[u8], flags: u32, deadline: u64) -> u64 {
        let version = self.next_version;
        self.next_version += 1;
        self.full.insert(key.to_vec(), Row { value: value.to_vec(), flags, deadline, version });
        self.touches.push((self.forming, Touch::Key(key.to_vec())));
        version
    }

    fn remove(&mut self, key: &[u8]) {
        self.next_version += 1;
        self.full.remove(key);
        self.touches.push((self.forming, Touch::Key(key.to_vec())));
    }

    fn answer(&mut self, command: &Command<'_>, view: View, now: u64) -> Answer {
        let before = self.next_version;
        let view = if self.may_outlive(command, now) { View::Pending } else { view };
        let (reply, read) = match self.read(command, view, now) {
            Some(answer) => answer,
            None => self.write(command, now),
        };
        (reply, if self.next_version > before { Some(self.forming) } else { read })
    }

    /// Whether a read is of something whose deadline is over, and may not be any more with what is pending.
    fn may_outlive(&self, command: &Command<'_>, now: u64) -> bool {
        let is_over =
            |key: &Key<'_>| self.durable.get(key.bytes).is_some_and(|row| row.deadline != 0 && row.deadline <= now);
        !self.extended.is_empty()
            && match command {
                Command::Get { key } | Command::TimeToLive { key } => is_over(key),
                Command::GetMany { keys } | Command::GetEntries { keys } | Command::Exists { keys } => {
                    keys.iter().any(is_over)
                }
                Command::Scan { .. } => true,
                _ => false,
            }
    }

    fn read(&self, command: &Command<'_>, view: View, now: u64) -> Option<Answer> {
        let rows = if view == View::Pending { &self.full } else { &self.durable };
        let over = |keys: &[Key<'_>]| match view {
            View::Pending => keys.iter().filter_map(|key| self.newest_over(key.bytes)).max(),
            View::Durable => None,
        };
        let newest = if view == View::Pending { self.touches.last().map(|&(batch, _)| batch) } else { None };
        Some(match command {
            Command::Get { key } => {
                (Self::live(rows, key.bytes, now).map_or("MISS".into(), |row| told(&row)), over(&[*key]))
            }
            Command::TimeToLive { key } => {
                let left = |row: Row| match row.deadline {
                    0 => "OK -1".into(),
                    deadline => format!("OK {}", deadline - now),
                };
                (Self::live(rows, key.bytes, now).map_or("MISS".into(), left), over(&[*key]))
            }
            Command::GetMany { keys } => {
                let values = keys.iter().map(|key| match Self::live(rows, key.bytes, now) {
                    Some(row) => format!(" 1 {}", row.value.escape_ascii()),
                    None => " 0 ".into(),
                });
                (format!("OK{}", values.collect::<String>()), over(keys))
            }
            Command::GetEntries { keys } => {
                let values = keys.iter().map(|key| match Self::live(rows, key.bytes, now) {
                    Some(row) => format!(" 1 {} {} {}", row.value.escape_ascii(), row.version, row.flags),
                    None => " 0   ".into(),
                });
                (format!("OK{}", values.collect::<String>()), over(keys))
            }
            Command::Exists { keys } => {
                let present = keys.iter().filter(|key| Self::live(rows, key.bytes, now).is_some());
                (format!("OK {}", present.count()), over(keys))
            }
            Command::Count => (format!("OK {}", rows.len()), newest),
            Command::Scan { prefix, .. } => {
                let live = rows.keys().filter(|key| key.starts_with(prefix) && Self::live(rows, key, now).is_some());
                let keys = live.map(|key| format!(" {}", key.escape_ascii()));
                (format!("OK 0{}", keys.collect::<String>()), newest)
            }
            _ => return None,
        })
    }

    fn write(&mut self, command: &Command<'_>, now: u64) -> Answer {
        match command {
            Command::Set { key, value, options } => {
                let read = self.newest_over(key.bytes);
                let row = Self::live(&self.full, key.bytes, now);
                let refusal = match (options.condition, row) {
                    (Condition::Absent, Some(_)) => Some("EXISTS".into()),
                    (Condition::Present | Condition::Version(_), None) => Some("MISS".into()),
                    (Condition::Version(wanted), Some(row)) if row.version != wanted => {
                        Some(format!("CONFLICT {}", row.version))
                    }
                    _ => None,
                };
                let stored = |model: &mut Self| {
                    model.put(key.bytes, &value.to_vec(), options.flags, deadline(options.expiry, now))
                };
                (refusal.unwrap_or_else(|| format!("OK {}", stored(self))), read)
            }
            Command::SetMany { pairs } => {
                let versions = pairs.iter().map(|(key, value)| self.put(key.bytes, value, 0, 0));
                (format!("OK {}", versions.max().unwrap()), None)
            }
            Command::SetEntries { entries, expiry } => {
                let deadline = deadline(*expiry, now);
                let versions =
                    entries.iter().map(|entry| self.put(entry.key.bytes, entry.value, entry.flags, deadline));
                (format!("OK {}", versions.max().unwrap()), None)
            }
            Command::DeleteIf { key, version } => {
                let read = self.newest_over(key.bytes);
                let answer = match Self::live(&self.full, key.bytes, now) {
                    None => "MISS".into(),
                    Some(row) if row.version != *version => format!("CONFLICT {}", row.version),
                    Some(_) => {
                        self.remove(key.bytes);
                        "OK".into()
                    }
                };
                (answer, read)
            }
            Command::Delete { keys } => {
                let read = keys.iter().filter_map(|key| self.newest_over(key.bytes)).max();
                let mut removed = 0;
                for key in keys {
                    if Self::live(&self.full, key.bytes, now).is_some() {
                        self.remove(key.bytes);
                        removed += 1;
                    }
                }
                (format!("OK {removed}"), read)
            }
            Command::Flush { prefix } => {
                let touch = Touch::Prefix(prefix.map(<[u8]>::to_vec));
                let (flushed, rest): (Rows, Rows) =
                    std::mem::take(&mut self.full).into_iter().partition(|(key, _)| touch.covers(key));
                self.full = rest;
                let removes: BTreeSet<u64> = flushed.into_values().map(|row| row.version).collect();
                let answer = format!("OK {}", removes.len());
                self.flushes.insert(self.next_version, (self.forming, removes));
                self.next_version += 1;
                self.touches.push((self.forming, touch));
                (answer, None)
            }
            Command::GetDelete { key }
            | Command::Increment { key, .. }
            | Command::Extend { key, .. }
            | Command::Touch { key, .. }
            | Command::GetTouch { key, .. } => {
                let read = self.newest_over(key.bytes);
                let row = Self::live(&self.full, key.bytes, now);
                if row.is_some() && matches!(command, Command::Touch { .. } | Command::GetTouch { .. }) {
                    self.extended.push((self.forming, now));
                }
                (self.change(command, key.bytes, row, now), read)
            }
            other => panic!("not in the model: {other:?}"),
        }
    }

    /// The commands that make a key's new state from its old one.
    fn change(&mut self, command: &Command<'_>, key: &[u8], row: Option<Row>, now: u64) -> String {
        match (command, row) {
            (Command::Increment { absent: Absent::Miss, .. }, None) => "MISS".into(),
            (Command::Increment { delta, absent, .. }, row) => {
                let made = || match absent {
                    Absent::Miss => unreachable!(),
                    Absent::Make(NewCounter { initial, expiry, flags }) => Row {
                        value: initial.to_string().into_bytes(),
                        flags: *flags,
                        deadline: deadline(*expiry, now),
                        version: 0,
                    },
                };
                let row = row.unwrap_or_else(made);
                if row.flags & PICKLED != 0 {
                    return "ERR WRONGTYPE".into();
                }
                let text = String::from_utf8_lossy(&row.value).into_owned();
                let Some(number) = text.parse::<i64>().ok().filter(|number| number.to_string() == text) else {
                    return "ERR NOTINT".into();
                };
                let Some(sum) = number.checked_add(*delta) else { return "ERR OVERFLOW".into() };
                self.put(key, sum.to_string().as_bytes(), row.flags, row.deadline);
                format!("OK {sum}")
            }
            (_, None) => "MISS".into(),
            (Command::GetDelete { .. }, Some(row)) => {
                self.remove(key);
                told(&row)
            }
            (Command::Touch { expiry, .. }, Some(row)) => {
                self.put(key, &row.value, row.flags, deadline(*expiry, now));
                "OK".into()
            }
            (Command::GetTouch { expiry, .. }, Some(row)) => {
                let deadline = deadline(*expiry, now);
                let version = self.put(key, &row.value, row.flags, deadline);
                told(&Row { deadline, version, ..row })
            }
            (Command::Extend { bytes, end, .. }, Some(row)) => {
                let value = match end {
                    End::Front => [bytes, &row.value[..]].concat(),
                    End::Back => [&row.value[..], bytes].concat(),
                };
                if row.flags & PICKLED != 0 {
                    return "ERR WRONGTYPE".into();
                }
                if value.len() > LIMITS.max_value {
                    return "ERR TOOBIG".into();
                }
                self.put(key, &value, row.flags, row.deadline);
                format!("OK {}", value.len())
            }
            other => panic!("not a change: {other:?}"),
        }
    }
}

fn number(reply: &str) -> u64 {
    reply.strip_prefix("OK ").unwrap().parse().unwrap()
}

fn told(row: &Row) -> String {
    format!("OK {} {} {}", row.value.escape_ascii(), row.version, row.flags)
}

fn deadline(expiry: Expiry, now: u64) -> u64 {
    match expiry {
        Expiry::Never => 0,
        Expiry::In(milliseconds) => now + milliseconds,
        Expiry::At(at) => at,
    }
}

/// A reply in words: errors as their code alone, the keys of a page in order.
fn words(reply: &Reply<'_>) -> String {
    if let Reply::Error(code, _) = reply {
        return format!("ERR {}", code.name());
    }
    let mut reply = reply.clone();
    if let Reply::Page { keys, .. } = &mut reply {
        keys.sort_unstable();
    }
    let mut into = ReplyFrames::default();
    frames::encode(&reply, &mut into);
    let words: Vec<String> = into
        .parcel()
        .map(|frame| match frame {
            Frame::Small(bytes) => bytes.escape_ascii().to_string(),
            Frame::Large(bytes) => bytes.escape_ascii().to_string(),
        })
        .collect();
    words.join(" ")
}

/// A mutation that owns its bytes.
#[derive(Clone, Debug)]
enum Recorded {
    Put(Vec<u8>, Row),
    Remove(Vec<u8>),
    Flush(Option<Vec<u8>>),
}

impl Recorded {
    fn of(version: u64, mutation: &Mutation<'_>) -> Self {
        match *mutation {
            Mutation::Put { key, value: Value { bytes, flags, deadline } } => {
                Recorded::Put(key.bytes.to_vec(), Row { value: bytes.to_vec(), flags, deadline, version })
            }
            Mutation::Remove { key } | Mutation::Evict { key } => Recorded::Remove(key.bytes.to_vec()),
            Mutation::Flush { prefix } => Recorded::Flush(prefix.map(<[u8]>::to_vec)),
        }
    }

    fn mutation(&self) -> Mutation<'_> {
        match self {
            Recorded::Put(key, row) => Mutation::Put {
                key: Key::bytes(key),
                value: Value { bytes: &row.value, flags: row.flags, deadline: row.deadline },
            },
            Recorded::Remove(key) => Mutation::Remove { key: Key::bytes(key) },
            Recorded::Flush(prefix) => Mutation::Flush { prefix: prefix.as_deref() },
        }
    }
}

/// Everything that a table holds, save what was flushed and not swept yet.
fn rows(table: &Table) -> Rows {
    let rows: Rows = table
        .iter()
        .map(|entry| {
            let (flags, deadline, version) = (entry.flags(), entry.deadline(), entry.version());
            (entry.key().bytes.to_vec(), Row { value: entry.value().to_vec(), flags, deadline, version })
        })
        .collect();
    if table.sweeping_a_prefix() {
        assert!(rows.len() <= table.len());
    } else {
        assert_eq!(rows.len(), table.len());
    }
    rows
}

/// What of it has not expired.
fn live(rows: &Rows, now: u64) -> Rows {
    let live = rows.iter().filter(|(_, row)| row.deadline == 0 || row.deadline > now);
    live.map(|(key, row)| (key.clone(), row.clone())).collect()
}

/// What a replay makes of mutations met in an order of chance, half of them by each of two threads.
fn replayed(mutations: &[(u64, Recorded)], chance: u64, now: u64) -> Rows {
    let mut mutations = mutations.to_vec();
    let mut state = chance | 1;
    for end in (1..mutations.len()).rev() {
        // Marsaglia's xorshift64: https://doi.org/10.18637/jss.v008.i14
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        mutations.swap(end, (state % (end as u64 + 1)) as usize);
    }
    let replay = Replay::new(SEED);
    let (left, right) = mutations.split_at(mutations.len() / 2);
    std::thread::scope(|scope| {
        for half in [left, right] {
            let replay = &replay;
            scope.spawn(move || {
                for chunk in half.chunks(1 + chance as usize % 7) {
                    let chunk: Vec<_> =
                        chunk.iter().map(|(version, mutation)| (*version, mutation.mutation())).collect();
                    replay.apply(&chunk);
                }
            });
        }
    });
    rows(&replay.finish(now, 2))
}

fn line() -> impl Strategy<Value = String> {
    let key = || prop::sample::select(vec!["a", "ab", "b", "abc"]);
    let value = || prop::sample::select(vec!["1", "-7", "x", "01", "9223372036854775807", "", "twelve-bytes"]);
    let option = prop::sample::select(vec!["", " TTL 5", " AT 1003", " AT 990", " FLAGS 9", " PICKLED"]);
    let condition = prop_oneof![
        Just(String::new()),
        Just(" NX".into()),
        Just(" XX".into()),
        (1..40_u64).prop_map(|v| format!(" IF {v}"))
    ];
    prop_oneof![
        4 => (key(), value(), option, condition).prop_map(|(k, v, o, c)| format!("SET {k} {v}{o}{c}")),
        2 => key().prop_map(|k| format!("GET {k}")),
        1 => key().prop_map(|k| format!("TTL {k}")),
        1 => key().prop_map(|k| format!("GETDEL {k}")),
        1 => (key(), key()).prop_map(|(k, l)| format!("DEL {k} {l}")),
        1 => (key(), key()).prop_map(|(k, l)| format!("EXISTS {k} {l}")),
        1 => (key(), key()).prop_map(|(k, l)| format!("MGET {k} {l}")),
        1 => (key(), value(), key(), value()).prop_map(|(k, v, l, w)| format!("MSET {k} {v} {l} {w}")),
        2 => (key(), -9..9_i64).prop_map(|(k, d)| format!("INCR {k} {d}")),
        1 => (key(), -9..9_i64, prop::sample::select(vec!["XX", "INIT -3", "FLAGS 9 TTL 5", "INIT 9223372036854775807"]))
            .prop_map(|(k, d, o)| format!("INCR {k} {d} {o}")),
        1 => (key(), key()).prop_map(|(k, l)| format!("MGETS {k} {l}")),
        1 => (prop::sample::select(vec!["", "TTL 5 ", "AT 1003 "]), key(), value(), key(), value())
            .prop_map(|(o, k, v, l, w)| format!("MSETS {o}KEYS {k} {v} 3 {l} {w} 0")),
        1 => (key(), 1..40_u64).prop_map(|(k, v)| format!("DELIF {k} {v}")),
        1 => (key(), prop::sample::select(vec!["TTL 4", "AT 1003", "AT 990", "PERSIST"]))
            .prop_map(|(k, o)| format!("GETEX {k} {o}")),
        1 => (key(), value()).prop_map(|(k, v)| format!("APPEND {k} {v}")),
        1 => (key(), value()).prop_map(|(k, v)| format!("PREPEND {k} {v}")),
        1 => (key(), 0..6_u64).prop_map(|(k, t)| format!("TOUCH {k} {t}")),
        1 => Just("COUNT".to_owned()),
        1 => prop::sample::select(vec!["SCAN 0 COUNT 10000", "SCAN 0 PREFIX ab COUNT 10000"]).prop_map(Into::into),
        1 => prop::sample::select(vec!["FLUSH", "FLUSH PREFIX ab", "FLUSH PREFIX b", "FLUSH PREFIX "]).prop_map(Into::into),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let view = prop_oneof![Just(View::Durable), Just(View::Pending)];
    prop_oneof![
        20 => (view, line()).prop_map(|(view, line)| Step::Ask(view, line)),
        3 => Just(Step::Close),
        2 => (1..4_usize).prop_map(Step::Commit),
        1 => Just(Step::Refuse),
        1 => (1..4_u64).prop_map(Step::Wait),
        1 => prop::sample::select(vec![1, 100, 700, 5_000]).prop_map(Step::Sweep),
        1 => Just(Step::Expire),
        1 => (1..3_usize).prop_map(Step::Evict),
    ]
}

fn run(steps: &[Step], chance: u64) {
    // Less than an empty table takes, so that whatever is asked to be evicted is.
    let limit = MemoryLimit { bytes: 1_000, evicts: true };
    let mut engine = Engine::new(Table::new(SEED), 1, LIMITS).with_memory_limit(limit, 2);
    let mut model = Model::new();
    let mut now = 1_000;
    let mut pending: Vec<(BatchId, u64, Recorded)> = Vec::new();
    let mut committed: Vec<(u64, Recorded)> = Vec::new();
    for step in steps {
        match step {
            Step::Ask(view, line) => {
                let frames: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
                let command = frames::decode(&frames, &LIMITS).unwrap();
                let forming = model.forming;
                let mut record = |version, mutation: &Mutation<'_>| {
                    pending.push((forming, version, Recorded::of(version, mutation)));
                };
                let evaluation = engine.evaluate(&command, now, *view, &mut record);
                let (sweep, answer) = (evaluation.sweep, (words(&evaluation.reply), evaluation.after));
                let expected = model.answer(&command, *view, now);
                match command {
                    // The number comes from the sweep.
                    Command::Flush { .. } if sweep.is_some() => {
                        assert_eq!(sweep, Some(model.next_version - 1));
                        assert_eq!(answer.1, expected.1);
                    }
                    // What a flush of a prefix hides counts until it is swept.
                    Command::Count if model.flushing_a_prefix(&engine, *view) => {
                        assert_eq!(answer.1, expected.1);
                        assert!(number(&answer.0) >= number(&expected.0), "{} {}", answer.0, expected.0);
                    }
                    _ => assert_eq!(answer, expected, "{line} under {view:?}"),
                }
                assert_eq!(engine.next_version(), model.next_version, "{line}");
            }
            Step::Close => {
                assert_eq!(engine.close_batch(), model.forming);
                model.closed.push((model.forming, model.full.clone()));
                model.forming += 1;
            }
            Step::Commit(most) => {
                let count = model.closed.len().min(*most);
                let Some((batch, rows_then)) = model.closed.drain(..count).next_back() else { continue };
                engine.commit(batch, &mut |_, _| ());
                model.durable = rows_then;
                model.committed = batch;
                model.touches.retain(|&(of, _)| of > batch);
                model.extended.retain(|&(of, _)| of > batch);
                let (done, rest) = pending.into_iter().partition::<Vec<_>, _>(|&(of, ..)| of <= batch);
                pending = rest;
                committed.extend(done.into_iter().map(|(_, version, mutation)| (version, mutation)));
                assert!(committed.windows(2).all(|pair| pair[0].0 < pair[1].0), "versions rise");
                assert_eq!(rows(engine.table()), model.durable);
                let replayed = replayed(&committed, chance, now);
                assert_eq!(replayed, live(&model.durable, now), "a replay of the log is the table");
            }
            Step::Refuse => {
                engine.refuse();
                model.full = model.durable.clone();
                model.closed.clear();
                model.touches.clear();
                model.extended.clear();
                model.flushes.retain(|_, &mut (batch, _)| batch <= model.committed);
                model.forming += 1;
                pending.clear();
            }
            Step::Wait(milliseconds) => now += milliseconds,
            Step::Sweep(effort) => model.sweep(&mut engine, *effort),
            Step::Evict(most) => {
                let evicted = engine.evict(*most, &mut |version, mutation| {
                    let Recorded::Remove(key) = Recorded::of(version, mutation) else { panic!("{mutation:?}") };
                    assert!(model.full.contains_key(&key), "nothing is evicted that is not there");
                    assert_eq!(version, model.next_version);
                    pending.push((model.forming, version, Recorded::Remove(key.clone())));
                    model.remove(&key);
                });
                assert!(evicted <= *most);
                let left = model.durable.keys().filter(|key| model.newest_over(key).is_none()).count();
                assert!(evicted > 0 || left == 0 || engine.table().sweeping().is_some(), "{left} could have gone");
                assert_eq!(engine.next_version(), model.next_version);
            }
            Step::Expire => {
                now += 5_000;
                while engine.expire(now, 300, &mut |_, _| ()) {}
                model.expire(now, &rows(engine.table()));
                assert_eq!(rows(engine.table()), model.durable);
            }
        }
    }
    while engine.table().sweeping().is_some() {
        model.sweep(&mut engine, 10_000);
    }
    assert_eq!(rows(engine.table()), model.durable);
    model.flushes.retain(|_, &mut (batch, _)| batch <= model.committed);
    assert!(model.flushes.is_empty(), "every flush comes to its end");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_as_the_model(steps in prop::collection::vec(step(), 1..120), chance: u64) {
        run(&steps, chance);
    }
}
