//! What a recovered store may hold, given everything that clients sent, were told and saw before the crash.
//!
//! The oracle stands outside of the daemon and checks what it promises: acknowledged means durable (promise 1), only
//! durable state is observable (promise 2), one peer, one order, and recovery is a prefix. It judges two kinds of keys.
//!
//! **Keys of one writer** ([`Writer`]). Only this peer writes them, and a peer's commands take effect in the
//! order sent, so the mutation order of these keys *is* the list of what was sent. That makes every reply
//! predictable to the byte, and turns "recovery is a prefix" into something exact: the recovered keys of the
//! writer, all of them together, must equal the state after its first p operations for one p with
//!
//! - p ≥ the number of acknowledged operations (promise 1),
//! - p ≥ the earliest point that explains each thing another peer was shown, absences included (promise 2). A
//!   read that was sent when `floor` operations were acknowledged saw the state after q ≥ `floor` operations;
//!   the least q that fits what it saw is a bound that holds whatever q really was,
//! - p ≤ the number of operations sent.
//!
//! Since one p must fit all keys, a hole (a later operation recovered, an earlier one lost) and half of an MSET
//! show up as a state that no prefix has. An operation that was never acknowledged, and that nobody saw, may or
//! may not have happened; what can't happen is that it did and an earlier one of its peer did not.
//!
//! **Keys that all write** ([`Shared`]). Here the order is the daemon's choice, and versions tell it: one
//! counter for the whole store, in commit order. For a key, let *known* be the highest version that a reply
//! proved. The recovered version is at least that; its value is one that was sent, and the one that had this
//! version if that is known; and the key may only be missing if a removal can have come after *known*. Replies
//! carry no version for removals, but those of the same peer before and after it bound it from both sides.
//! Increments by one, of a key that nobody removes, give each acknowledged increment a number of its own.
//!
//! **Across all kills** ([`Versions`]): no version ever stands for two different writes, and every write of a
//! new life has a higher version than anything known of the lives before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A reply, or what is wrong with it in a sentence.
pub type Verdict<T = ()> = Result<T, String>;

#[derive(Clone, Copy, Debug)]
pub enum Condition {
    Always,
    Absent,
    Present,
}

/// A command on the keys of one writer.
#[derive(Clone, Debug)]
pub enum Operation {
    Set(String, Vec<u8>, Condition),
    SetMany(Vec<(String, Vec<u8>)>),
    Delete(Vec<String>),
    GetDelete(String),
    Increment(String, i64),
    Append(String, Vec<u8>),
    Touch(String),
    /// GETEX with PERSIST.
    GetTouch(String),
    Get(String),
    Flush(String),
}

impl Operation {
    /// The frames of the request.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let frames: Vec<&[u8]> = match self {
            Operation::Set(key, value, Condition::Always) => vec![b"SET", key.as_bytes(), value],
            Operation::Set(key, value, Condition::Absent) => vec![b"SET", key.as_bytes(), value, b"NX"],
            Operation::Set(key, value, Condition::Present) => vec![b"SET", key.as_bytes(), value, b"XX"],
            // Both are one group: those of an odd number of keys are sent as MSETS.
            Operation::SetMany(pairs) if pairs.len() % 2 == 1 => {
                let entries = pairs.iter().flat_map(|(key, value)| [key.as_bytes(), value, b"0"]);
                [&b"MSETS"[..], b"KEYS"].into_iter().chain(entries).collect()
            }
            Operation::SetMany(pairs) => {
                let pairs = pairs.iter().flat_map(|(key, value)| [key.as_bytes(), value]);
                std::iter::once(&b"MSET"[..]).chain(pairs).collect()
            }
            Operation::Delete(keys) => std::iter::once(&b"DEL"[..]).chain(keys.iter().map(String::as_bytes)).collect(),
            Operation::GetDelete(key) => vec![b"GETDEL", key.as_bytes()],
            Operation::Increment(key, delta) => {
                return vec![b"INCR".to_vec(), key.as_bytes().to_vec(), delta.to_string().into_bytes()];
            }
            Operation::Append(key, bytes) => vec![b"APPEND", key.as_bytes(), bytes],
            Operation::Touch(key) => vec![b"TOUCH", key.as_bytes(), b"0"],
            Operation::GetTouch(key) => vec![b"GETEX", key.as_bytes(), b"PERSIST"],
            Operation::Get(key) => vec![b"GET", key.as_bytes()],
            Operation::Flush(prefix) => vec![b"FLUSH", b"PREFIX", prefix.as_bytes()],
        };
        frames.into_iter().map(<[u8]>::to_vec).collect()
    }
}

/// A value, and its version where a reply has told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub value: Vec<u8>,
    pub version: Option<u64>,
}

pub type State = BTreeMap<String, Entry>;

/// What a command must answer.
enum Answer {
    /// `OK version`, the new version of this key.
    Version(String),
    /// `OK value version flags`, of this key unless it is gone by now.
    Value(Entry, Option<String>),
    Exactly(String),
}

fn put(state: &mut State, key: &str, value: Vec<u8>) {
    state.insert(key.to_owned(), Entry { value, version: None });
}

/// Carries an operation out, and tells its answer.
fn apply(state: &mut State, operation: &Operation) -> Answer {
    let count = |n: usize| Answer::Exactly(format!("OK {n}"));
    let miss = || Answer::Exactly("MISS".to_owned());
    match operation {
        Operation::Set(key, value, condition) => match condition {
            Condition::Absent if state.contains_key(key) => Answer::Exactly("EXISTS".to_owned()),
            Condition::Present if !state.contains_key(key) => miss(),
            _ => {
                put(state, key, value.clone());
                Answer::Version(key.clone())
            }
        },
        Operation::SetMany(pairs) => {
            for (key, value) in pairs {
                put(state, key, value.clone());
            }
            Answer::Version(pairs.last().expect("at least one pair").0.clone())
        }
        Operation::Delete(keys) => count(keys.iter().filter(|key| state.remove(*key).is_some()).count()),
        Operation::GetDelete(key) => state.remove(key).map_or_else(miss, |entry| Answer::Value(entry, None)),
        Operation::Increment(key, delta) => {
            let text = state.get(key).map_or("0".into(), |entry| String::from_utf8_lossy(&entry.value));
            let sum: i64 = text.parse::<i64>().expect("a counter") + delta;
            put(state, key, sum.to_string().into_bytes());
            Answer::Exactly(format!("OK {sum}"))
        }
        Operation::Append(key, bytes) => match state.get(key).map(|entry| [&entry.value[..], bytes].concat()) {
            None => miss(),
            Some(value) => {
                let length = value.len();
                put(state, key, value);
                count(length)
            }
        },
        Operation::Touch(key) => match state.get_mut(key) {
            None => miss(),
            Some(entry) => {
                entry.version = None;
                Answer::Exactly("OK".to_owned())
            }
        },
        Operation::GetTouch(key) => match state.get_mut(key) {
            None => miss(),
            Some(entry) => {
                entry.version = None;
                Answer::Value(entry.clone(), Some(key.clone()))
            }
        },
        Operation::Get(key) => {
            state.get(key).cloned().map_or_else(miss, |entry| Answer::Value(entry, Some(key.clone())))
        }
        Operation::Flush(prefix) => {
            let before = state.len();
            state.retain(|key, _| !key.starts_with(prefix));
            count(before - state.len())
        }
    }
}

fn number(frame: Option<&Vec<u8>>) -> Verdict<u64> {
    let text = frame.and_then(|frame| std::str::from_utf8(frame).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("no number: {text:?}"))
}

/// Value and version of a GET reply; nothing for a miss.
pub fn parse_get(reply: &[Vec<u8>]) -> Verdict<Option<(Vec<u8>, u64)>> {
    match reply {
        [miss] if miss == b"MISS" => Ok(None),
        [ok, value, version, _flags] if ok == b"OK" => Ok(Some((value.clone(), number(Some(version))?))),
        other => Err(format!("no reply to GET: {}", show(other))),
    }
}

/// Version of a SET or MSET reply.
pub fn parse_version(reply: &[Vec<u8>]) -> Verdict<u64> {
    match reply {
        [ok, version] if ok == b"OK" => number(Some(version)),
        other => Err(format!("no version: {}", show(other))),
    }
}

/// A reply as text, long frames cut.
pub fn show(reply: &[Vec<u8>]) -> String {
    let frames = reply.iter().map(|frame| String::from_utf8_lossy(&frame[..frame.len().min(60)]).into_owned());
    frames.collect::<Vec<_>>().join(" ")
}

/// What another peer was shown of a writer's key.
#[derive(Debug)]
pub struct Sighting {
    pub key: String,
    pub seen: Option<(Vec<u8>, u64)>,
    /// The writer's acknowledged operations when the read was sent.
    pub floor: usize,
}

/// One writer and the keys that only it writes.
#[derive(Default)]
pub struct Writer {
    /// The keys as they were recovered last.
    base: State,
    /// Everything sent since.
    sent: Vec<Operation>,
    /// How much of that is acknowledged, and the state after it.
    acknowledged: usize,
    state: State,
    sightings: Vec<Sighting>,
}

impl Writer {
    /// Notes an operation before it is sent.
    pub fn send(&mut self, operation: Operation) {
        self.sent.push(operation);
    }

    /// Judges the reply to the oldest operation that had none. Returns what it tells of a version.
    pub fn receive(&mut self, reply: &[Vec<u8>]) -> Verdict<Option<(String, Vec<u8>, u64)>> {
        let operation = &self.sent[self.acknowledged];
        self.acknowledged += 1;
        let wrong = |expected: &str| Err(format!("{operation:.200?} must answer {expected}, not {}", show(reply)));
        let (key, version, is_new) = match apply(&mut self.state, operation) {
            Answer::Exactly(text) if show(reply) == text => return Ok(None),
            Answer::Exactly(text) => return wrong(&text),
            Answer::Version(key) => match parse_version(reply) {
                Ok(version) => (key, version, true),
                Err(_) => return wrong("OK version"),
            },
            Answer::Value(entry, key) => match parse_get(reply) {
                Ok(Some((value, version)))
                    if value == entry.value && entry.version.is_none_or(|known| known == version) =>
                {
                    let Some(key) = key else { return Ok(None) };
                    (key, version, false)
                }
                _ => return wrong(&format!("OK {} {:?}", show(&[entry.value]), entry.version)),
            },
        };
        let entry = self.state.get_mut(&key).expect("the key that was answered");
        entry.version = Some(version);
        let value = entry.value.clone();
        Ok(is_new.then_some((key, value, version)))
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    pub fn saw(&mut self, sighting: Sighting) {
        self.sightings.push(sighting);
    }

    /// Judges what was recovered, and goes on from there.
    pub fn recover(&mut self, recovered: State) -> Verdict {
        let least = self.least_prefix()?;
        // From what is acknowledged on, with the versions that replies told of it.
        let mut state = self.state.clone();
        let mut explained = false;
        for count in self.acknowledged..=self.sent.len() {
            if count > self.acknowledged {
                apply(&mut state, &self.sent[count - 1]);
            }
            explained |= count >= least && fits(&state, &recovered);
        }
        if !explained {
            return Err(format!(
                "no prefix explains the recovered keys: {} operations sent, {} acknowledged, at least {least} needed\n\
                 recovered:    {}\nacknowledged: {}\nnot acknowledged: {:.2000?}",
                self.sent.len(),
                self.acknowledged,
                show_state(&recovered),
                show_state(&self.state),
                &self.sent[self.acknowledged..],
            ));
        }
        *self = Writer { state: recovered.clone(), base: recovered, ..Writer::default() };
        Ok(())
    }

    /// The fewest operations that explain all that was acknowledged and seen.
    fn least_prefix(&self) -> Verdict<usize> {
        let mut open: HashMap<&str, Vec<&Sighting>> = HashMap::new();
        for sighting in &self.sightings {
            open.entry(&sighting.key).or_default().push(sighting);
        }
        let mut least = self.acknowledged;
        let mut state = self.base.clone();
        for count in 0..=self.sent.len() {
            if count > 0 {
                apply(&mut state, &self.sent[count - 1]);
            }
            for (key, sightings) in &mut open {
                let value = state.get(*key).map(|entry| &entry.value);
                sightings.retain(|sighting| {
                    let explained = sighting.floor <= count && sighting.seen.as_ref().map(|(seen, _)| seen) == value;
                    if explained {
                        least = least.max(count);
                    }
                    !explained
                });
            }
        }
        match open.into_values().flatten().next() {
            None => Ok(least),
            Some(sighting) => {
                let seen = sighting.seen.as_ref().map(|(value, version)| (show(std::slice::from_ref(value)), version));
                Err(format!("a read of {} saw {seen:?}, which no prefix has (floor {})", sighting.key, sighting.floor))
            }
        }
    }
}

/// Whether these are the same keys and values, and the versions are those that are known.
fn fits(expected: &State, recovered: &State) -> bool {
    let same = |expected: &Entry, found: &Entry| {
        expected.value == found.value && expected.version.is_none_or(|known| Some(known) == found.version)
    };
    expected.len() == recovered.len()
        && expected.iter().zip(recovered).all(|((key, entry), (other, found))| key == other && same(entry, found))
}

fn show_state(state: &State) -> String {
    let entry = |(key, entry): (&String, &Entry)| {
        format!("{key}={}@{:?}", show(std::slice::from_ref(&entry.value)), entry.version)
    };
    state.iter().map(entry).collect::<Vec<_>>().join(", ")
}

/// A removal of a shared key: its version lies between what its peer was told before it and after it.
#[derive(Debug)]
struct Removal {
    after: u64,
    before: u64,
    acknowledged: bool,
}

#[derive(Default)]
struct Register {
    /// Values sent since the last recovery, and their versions where known.
    puts: HashMap<Vec<u8>, Option<u64>>,
    removals: Vec<Removal>,
    /// Successful SET … IF: the version that was asked for and the one that was given.
    swaps: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Counter {
    recovered: u64,
    sent: u64,
    acknowledged: HashSet<u64>,
    seen: u64,
}

/// The keys that everybody writes.
#[derive(Default)]
pub struct Shared {
    registers: BTreeMap<String, Register>,
    counters: BTreeMap<String, Counter>,
}

/// A removal that was sent: names it when its reply comes.
#[derive(Clone, Debug)]
pub struct RemovalId {
    key: String,
    index: usize,
}

impl Shared {
    pub fn put_sent(&mut self, key: &str, value: &[u8]) {
        self.registers.entry(key.to_owned()).or_default().puts.insert(value.to_vec(), None);
    }

    /// A write was acknowledged, or a read saw it, with this version.
    pub fn put_known(&mut self, key: &str, value: &[u8], version: u64) -> Verdict {
        let register = self.registers.entry(key.to_owned()).or_default();
        match register.puts.get_mut(value) {
            None => Err(format!("{key} has a value that was never sent: {}", show(&[value.to_vec()]))),
            Some(Some(known)) if *known != version => {
                Err(format!("{key}: one write has versions {known} and {version}"))
            }
            Some(known) => {
                *known = Some(version);
                Ok(())
            }
        }
    }

    pub fn swapped(&mut self, key: &str, from: u64, to: u64) {
        self.registers.entry(key.to_owned()).or_default().swaps.push((from, to));
    }

    /// `after` is the newest version that this peer knows of its own earlier commands.
    pub fn removal_sent(&mut self, key: &str, after: u64) -> RemovalId {
        let removals = &mut self.registers.entry(key.to_owned()).or_default().removals;
        removals.push(Removal { after, before: u64::MAX, acknowledged: false });
        RemovalId { key: key.to_owned(), index: removals.len() - 1 }
    }

    pub fn removal_acknowledged(&mut self, id: &RemovalId, removed: bool, after: u64) {
        let removal = &mut self.registers.get_mut(&id.key).expect("a key that was sent").removals[id.index];
        if removed {
            *removal = Removal { after, before: u64::MAX, acknowledged: true };
        } else {
            // It removed nothing, so there is no mutation: none that could explain an absence.
            *removal = Removal { after: 0, before: 0, acknowledged: false };
        }
    }

    /// A later command of the same peer has this version.
    pub fn removal_before(&mut self, id: &RemovalId, before: u64) {
        let removal = &mut self.registers.get_mut(&id.key).expect("a key that was sent").removals[id.index];
        removal.before = removal.before.min(before);
    }

    pub fn increment_sent(&mut self, key: &str) {
        self.counters.entry(key.to_owned()).or_default().sent += 1;
    }

    pub fn increment_acknowledged(&mut self, key: &str, sum: u64) -> Verdict {
        let counter = self.counters.entry(key.to_owned()).or_default();
        if !counter.acknowledged.insert(sum) || sum <= counter.recovered {
            return Err(format!("{key}: two increments both gave {sum} (it was {} at the start)", counter.recovered));
        }
        Ok(())
    }

    pub fn counter_seen(&mut self, key: &str, sum: u64) {
        let counter = self.counters.entry(key.to_owned()).or_default();
        counter.seen = counter.seen.max(sum);
    }

    pub fn recover_register(&mut self, key: &str, recovered: Option<(Vec<u8>, u64)>) -> Verdict {
        let register = self.registers.entry(key.to_owned()).or_default();
        let known = register.puts.values().flatten().copied().max().unwrap_or(0);
        match &recovered {
            None => {
                let explained = known == 0 || register.removals.iter().any(|removal| removal.before > known);
                if !explained {
                    return Err(format!(
                        "{key} is lost: version {known} was acknowledged or seen, and nothing removed it"
                    ));
                }
            }
            Some((value, version)) => {
                let lost = format!("{key} came back as {} with version {version}", show(std::slice::from_ref(value)));
                match register.puts.get(value) {
                    None => return Err(format!("{lost}, which was never sent")),
                    Some(Some(told)) if told != version => return Err(format!("{lost}, and had {told}")),
                    Some(_) => {}
                }
                if *version < known {
                    return Err(format!("{lost}, and version {known} was acknowledged or seen"));
                }
                if let Some(removal) =
                    register.removals.iter().find(|removal| removal.acknowledged && removal.after >= *version)
                {
                    return Err(format!("{lost}, and a later removal was acknowledged: {removal:?}"));
                }
            }
        }
        for (from, to) in &register.swaps {
            if let Some(between) = register.puts.values().flatten().find(|version| (from + 1..*to).contains(version)) {
                return Err(format!("{key}: SET IF {from} gave {to}, yet version {between} lies between"));
            }
        }
        let puts = recovered.into_iter().map(|(value, version)| (value, Some(version))).collect();
        *register = Register { puts, ..Register::default() };
        Ok(())
    }

    pub fn recover_counter(&mut self, key: &str, recovered: u64) -> Verdict {
        let counter = self.counters.entry(key.to_owned()).or_default();
        let least = counter.acknowledged.iter().copied().max().unwrap_or(0).max(counter.seen).max(counter.recovered);
        let most = counter.recovered + counter.sent;
        if !(least..=most).contains(&recovered) {
            return Err(format!("{key} came back as {recovered}; {least} was promised and {most} is the most sent"));
        }
        *counter = Counter { recovered, ..Counter::default() };
        Ok(())
    }
}

/// Every version that any reply ever told, over all lives of the store.
#[derive(Default)]
pub struct Versions {
    writes: HashMap<u64, u64>,
    /// The highest version known before this life.
    earlier: u64,
    newest: u64,
}

impl Versions {
    /// A reply said that this version of the key has this value.
    pub fn told(&mut self, key: &str, value: &[u8], version: u64) -> Verdict {
        let mut hasher = DefaultHasher::new();
        (key, value).hash(&mut hasher);
        let write = hasher.finish();
        self.newest = self.newest.max(version);
        if *self.writes.entry(version).or_insert(write) == write {
            Ok(())
        } else {
            Err(format!("version {version} was handed out twice, the second time for {key}"))
        }
    }

    /// The same, of a write made in this life.
    pub fn written(&mut self, key: &str, value: &[u8], version: u64) -> Verdict {
        if version <= self.earlier {
            return Err(format!("{key} was written with version {version}; an earlier life had {}", self.earlier));
        }
        self.told(key, value, version)
    }

    pub fn next_life(&mut self) {
        self.earlier = self.newest;
    }
}

/// An oracle that accepts everything would make every test pass: here it is lied to.
mod lies {
    use super::*;

    fn frames(words: &str) -> Vec<Vec<u8>> {
        words.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn set(key: &str, value: &str) -> Operation {
        Operation::Set(key.to_owned(), value.as_bytes().to_vec(), Condition::Always)
    }

    fn state(pairs: &[(&str, &str, u64)]) -> State {
        let entry = |value: &str, version| Entry { value: value.as_bytes().to_vec(), version: Some(version) };
        pairs.iter().map(|(key, value, version)| ((*key).to_owned(), entry(value, *version))).collect()
    }

    /// Three writes, of which the first was acknowledged.
    fn writer() -> Writer {
        let mut writer = Writer::default();
        writer.send(set("a", "1"));
        writer.send(Operation::SetMany(vec![("a".into(), b"2".to_vec()), ("b".into(), b"2".to_vec())]));
        writer.send(set("c", "3"));
        writer.receive(&frames("OK 7")).expect("a good reply");
        writer
    }

    #[test]
    fn prefixes_are_accepted() {
        let prefixes: [&[_]; 3] =
            [&[("a", "1", 7)], &[("a", "2", 8), ("b", "2", 9)], &[("a", "2", 8), ("b", "2", 9), ("c", "3", 10)]];
        for prefix in prefixes {
            writer().recover(state(prefix)).expect("a prefix");
        }
    }

    #[test]
    fn losses_holes_and_halves_are_found() {
        let lies: [&[_]; 6] = [
            &[],
            &[("a", "1", 6)],
            &[("a", "2", 8)],
            &[("a", "1", 7), ("b", "2", 9)],
            &[("a", "1", 7), ("c", "3", 10)],
            &[("a", "1", 7), ("b", "x", 9)],
        ];
        for lie in lies {
            writer().recover(state(lie)).expect_err("no prefix has this state");
        }
    }

    #[test]
    fn what_was_seen_must_be_there() {
        let sighting = |key: &str, seen: Option<&str>, floor| Sighting {
            key: key.to_owned(),
            seen: seen.map(|value| (value.as_bytes().to_vec(), 9)),
            floor,
        };
        let mut seen = writer();
        seen.saw(sighting("b", Some("2"), 1));
        seen.recover(state(&[("a", "1", 7)])).expect_err("b was seen");
        let mut absent = writer();
        absent.saw(sighting("a", None, 1));
        absent.recover(state(&[("a", "1", 7)])).expect_err("a was there from its acknowledgement on");
        let mut removed = writer();
        removed.send(Operation::Delete(vec!["a".into()]));
        removed.saw(sighting("a", None, 1));
        removed.recover(state(&[("a", "2", 8), ("b", "2", 9), ("c", "3", 10)])).expect_err("its absence was seen");
    }

    #[test]
    fn wrong_replies_are_found() {
        for (operation, reply) in [
            (set("a", "1"), "MISS"),
            (Operation::Get("a".into()), "OK 1 7 0"),
            (Operation::Increment("n".into(), 2), "OK 1"),
            (Operation::Delete(vec!["a".into()]), "OK 1"),
        ] {
            let mut writer = Writer::default();
            writer.send(operation);
            writer.receive(&frames(reply)).expect_err("a wrong reply");
        }
    }

    /// Values v1 to v3 sent, v2 acknowledged with version 20.
    fn shared() -> Shared {
        let mut shared = Shared::default();
        for value in [b"v1", b"v2", b"v3"] {
            shared.put_sent("k", value);
        }
        shared.put_known("k", b"v2", 20).expect("a value that was sent");
        shared
    }

    #[test]
    fn shared_keys_may_be_newer_but_not_older() {
        shared().recover_register("k", Some((b"v2".to_vec(), 20))).expect("what was acknowledged");
        shared().recover_register("k", Some((b"v3".to_vec(), 21))).expect("something newer");
        shared().recover_register("k", Some((b"v1".to_vec(), 19))).expect_err("something older");
        shared().recover_register("k", Some((b"v2".to_vec(), 21))).expect_err("another version");
        shared().recover_register("k", Some((b"v4".to_vec(), 21))).expect_err("never sent");
        shared().recover_register("k", None).expect_err("lost");
    }

    #[test]
    fn removals_of_shared_keys_are_bounded_by_their_peers_versions() {
        let mut removed = shared();
        let id = removed.removal_sent("k", 5);
        removed.recover_register("k", None).expect("a removal that may have come last");
        let mut too_early = shared();
        let id_early = too_early.removal_sent("k", 5);
        too_early.removal_before(&id_early, 18);
        too_early.recover_register("k", None).expect_err("the removal came before");
        let mut back = shared();
        back.removal_sent("k", 5);
        back.removal_acknowledged(&id, true, 22);
        back.recover_register("k", Some((b"v2".to_vec(), 20))).expect_err("removed for good");
    }

    #[test]
    fn swaps_exclude_each_other() {
        let mut swapped = shared();
        swapped.put_known("k", b"v3", 21).expect("a value that was sent");
        swapped.swapped("k", 19, 21);
        swapped.recover_register("k", Some((b"v3".to_vec(), 21))).expect_err("version 20 lies between 19 and 21");
    }

    #[test]
    fn counters_lose_nothing() {
        let counter = || {
            let mut shared = Shared::default();
            (0..3).for_each(|_| shared.increment_sent("n"));
            shared.increment_acknowledged("n", 1).expect("the first");
            shared
        };
        counter().recover_counter("n", 1).expect("what was acknowledged");
        counter().recover_counter("n", 3).expect("everything sent");
        counter().recover_counter("n", 0).expect_err("lost");
        counter().recover_counter("n", 4).expect_err("more than was sent");
        counter().increment_acknowledged("n", 1).expect_err("the same number twice");
    }

    #[test]
    fn versions_are_never_reused() {
        let mut versions = Versions::default();
        versions.written("k", b"1", 5).expect("a new version");
        versions.told("k", b"1", 5).expect("the same write");
        versions.told("k", b"2", 5).expect_err("another write");
        versions.next_life();
        versions.written("k", b"3", 4).expect_err("below the last life");
    }
}
