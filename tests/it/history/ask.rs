//! What a peer asks, in frames and packed, and what a reply to it tells of each key.

use super::super::random::Random;
use super::Frames;
use super::events::{Deed, Seen};
use bincode::config::standard;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};
use std::rc::Rc;

/// What packed requests and replies begin with.
const PACKED: u8 = 0x01;

/// Keys of any value, of numbers, and those whose values expire.
const PLAIN: [&str; 4] = ["a0", "a1", "ab", "b0"];
const NUMBERS: [&str; 2] = ["n0", "n1"];
const FLEETING: [&str; 2] = ["t0", "t1"];
/// Keys that only MSET and MSETS write, together.
pub const PAIR: [&str; 2] = ["p0", "p1"];

#[derive(Clone, Debug)]
pub enum Ask {
    Set {
        key: String,
        value: Rc<str>,
        lifetime: u64,
    },
    Add {
        key: String,
        value: Rc<str>,
    },
    Replace {
        key: String,
        of: u64,
        value: Rc<str>,
    },
    Get(String),
    Delete(String),
    GetDelete(String),
    /// And what an absent one counts as; without that it is a miss.
    Increment(String, i64, Option<i64>),
    DeleteIf {
        key: String,
        of: u64,
    },
    GetTouch(String, u64),
    Append(String, Rc<str>),
    Touch(String, u64),
    SetPair {
        value: Rc<str>,
        /// By MSETS.
        has_flags: bool,
    },
    /// Of which one alone may be gone where anything may be evicted.
    GetPair {
        may_be_parted: bool,
        /// By MGETS.
        has_versions: bool,
    },
    /// All keys with this prefix, which these are.
    Flush(String, Vec<String>),
    Count,
    Sync,
    Compact,
}

/// A command of the packed dialect, by its index.
#[derive(Serialize)]
#[expect(dead_code, reason = "what is not asked keeps its index")]
enum Packed<'a> {
    Ping,
    Get { key: &'a Bytes },
    Set { key: &'a Bytes, value: &'a Bytes, expiry: Expiry, condition: Condition, flags: u32 },
    Delete { keys: Vec<&'a Bytes> },
    Exists { keys: Vec<&'a Bytes> },
    GetMany { keys: Vec<&'a Bytes> },
    SetMany { pairs: Vec<(&'a Bytes, &'a Bytes)> },
    Increment { key: &'a Bytes, delta: i64 },
    Append { key: &'a Bytes, bytes: &'a Bytes },
    Prepend { key: &'a Bytes, bytes: &'a Bytes },
    Touch { key: &'a Bytes, milliseconds: u64 },
    TimeToLive { key: &'a Bytes },
    GetDelete { key: &'a Bytes },
    Scan { cursor: u64, prefix: &'a Bytes, count: u32 },
    Count,
    Flush { prefix: Option<&'a Bytes> },
    Sync,
    Compact,
    Stats,
    Version,
    GetEntries { keys: Vec<&'a Bytes> },
    SetEntries { expiry: Expiry, entries: Vec<(&'a Bytes, &'a Bytes, u32)> },
    DeleteIf { key: &'a Bytes, version: u64 },
    IncrementOr { key: &'a Bytes, delta: i64, absent: Absent },
    GetTouch { key: &'a Bytes, expiry: Expiry },
}

#[derive(Serialize)]
enum Absent {
    Miss,
    Make { initial: i64, expiry: Expiry, flags: u32 },
}

#[derive(Serialize)]
enum Expiry {
    Never,
    In(u64),
}

#[derive(Serialize)]
#[expect(dead_code, reason = "what is not asked keeps its index")]
enum Condition {
    Always,
    Absent,
    Present,
    Version(u64),
}

/// A reply of the packed dialect.
#[derive(Deserialize)]
#[expect(dead_code, reason = "what is not asked keeps its index")]
enum Told {
    Pong,
    Done,
    Stored(u64),
    Number(i64),
    Miss,
    Exists,
    Conflict(u64),
    Value { bytes: ByteBuf, version: u64, flags: u32 },
    Values(Vec<Option<ByteBuf>>),
    Page { cursor: u64, keys: Vec<ByteBuf> },
    Stats(Vec<(String, String)>),
    Version { kvd: String, protocol: u32 },
    Error { code: String, message: String },
    Entries(Vec<Option<(ByteBuf, u64, u32)>>),
}

impl Ask {
    /// The body that asks it in frames.
    pub fn frames(&self) -> Frames {
        let text = |words: &str| words.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Frames>();
        let with = |words: &str, value: &str, rest: &str| {
            let mut frames = text(words);
            frames.push(value.as_bytes().to_vec());
            frames.extend(rest.split_whitespace().map(|word| word.as_bytes().to_vec()));
            frames
        };
        match self {
            Ask::Set { key, value, lifetime: 0 } => with(&format!("SET {key}"), value, ""),
            Ask::Set { key, value, lifetime } => with(&format!("SET {key}"), value, &format!("TTL {lifetime}")),
            Ask::Add { key, value } => with(&format!("SET {key}"), value, "NX"),
            Ask::Replace { key, of, value } => with(&format!("SET {key}"), value, &format!("IF {of}")),
            Ask::Get(key) => text(&format!("GET {key}")),
            Ask::Delete(key) => text(&format!("DEL {key}")),
            Ask::GetDelete(key) => text(&format!("GETDEL {key}")),
            Ask::Increment(key, by, Some(0)) => text(&format!("INCR {key} {by}")),
            Ask::Increment(key, by, Some(initial)) => text(&format!("INCR {key} {by} INIT {initial}")),
            Ask::Increment(key, by, None) => text(&format!("INCR {key} {by} XX")),
            Ask::DeleteIf { key, of } => text(&format!("DELIF {key} {of}")),
            Ask::GetTouch(key, 0) => text(&format!("GETEX {key} PERSIST")),
            Ask::GetTouch(key, lifetime) => text(&format!("GETEX {key} TTL {lifetime}")),
            Ask::Append(key, bytes) => with(&format!("APPEND {key}"), bytes, ""),
            Ask::Touch(key, lifetime) => text(&format!("TOUCH {key} {lifetime}")),
            Ask::SetPair { value, has_flags: true } => {
                let mut frames = with(&format!("MSETS KEYS {}", PAIR[0]), value, &format!("0 {}", PAIR[1]));
                frames.extend([value.as_bytes().to_vec(), b"0".to_vec()]);
                frames
            }
            Ask::SetPair { value, has_flags: false } => {
                let mut frames = with(&format!("MSET {}", PAIR[0]), value, PAIR[1]);
                frames.push(value.as_bytes().to_vec());
                frames
            }
            Ask::GetPair { has_versions, .. } => {
                text(&format!("{} {} {}", if *has_versions { "MGETS" } else { "MGET" }, PAIR[0], PAIR[1]))
            }
            Ask::Flush(prefix, _) if prefix.is_empty() => text("FLUSH"),
            Ask::Flush(prefix, _) => text(&format!("FLUSH PREFIX {prefix}")),
            Ask::Count => text("COUNT"),
            Ask::Sync => text("SYNC"),
            Ask::Compact => text("COMPACT"),
        }
    }

    /// The body that asks all of these in the packed dialect.
    pub fn packed(asks: &[Ask]) -> Frames {
        let mut bytes = vec![PACKED];
        let list: Vec<Packed<'_>> = asks.iter().map(Ask::spelled).collect();
        bytes.extend(bincode::serde::encode_to_vec(list, standard()).expect("a list of commands"));
        vec![bytes]
    }

    fn spelled(&self) -> Packed<'_> {
        let set = |of, value, expiry, condition| Packed::Set { key: of, value, expiry, condition, flags: 0 };
        match self {
            Ask::Set { key: of, value, lifetime } => {
                set(bytes_of(of), bytes_of(value), expires(*lifetime), Condition::Always)
            }
            Ask::Add { key: of, value } => set(bytes_of(of), bytes_of(value), Expiry::Never, Condition::Absent),
            Ask::Replace { key: name, of, value } => {
                set(bytes_of(name), bytes_of(value), Expiry::Never, Condition::Version(*of))
            }
            Ask::Get(of) => Packed::Get { key: bytes_of(of) },
            Ask::Delete(of) => Packed::Delete { keys: vec![bytes_of(of)] },
            Ask::GetDelete(of) => Packed::GetDelete { key: bytes_of(of) },
            Ask::Increment(of, delta, Some(0)) => Packed::Increment { key: bytes_of(of), delta: *delta },
            Ask::Increment(of, delta, absent) => {
                let made = |initial| Absent::Make { initial, expiry: Expiry::Never, flags: 0 };
                Packed::IncrementOr { key: bytes_of(of), delta: *delta, absent: absent.map_or(Absent::Miss, made) }
            }
            Ask::DeleteIf { key: name, of } => Packed::DeleteIf { key: bytes_of(name), version: *of },
            Ask::GetTouch(of, lifetime) => Packed::GetTouch { key: bytes_of(of), expiry: expires(*lifetime) },
            Ask::Append(of, bytes) => Packed::Append { key: bytes_of(of), bytes: bytes_of(bytes) },
            Ask::Touch(of, milliseconds) => Packed::Touch { key: bytes_of(of), milliseconds: *milliseconds },
            Ask::SetPair { value, has_flags: false } => {
                Packed::SetMany { pairs: PAIR.map(|of| (bytes_of(of), bytes_of(value))).to_vec() }
            }
            Ask::SetPair { value, has_flags: true } => Packed::SetEntries {
                expiry: Expiry::Never,
                entries: PAIR.map(|of| (bytes_of(of), bytes_of(value), 0)).to_vec(),
            },
            Ask::GetPair { has_versions: true, .. } => Packed::GetEntries { keys: PAIR.map(bytes_of).to_vec() },
            Ask::GetPair { has_versions: false, .. } => Packed::GetMany { keys: PAIR.map(bytes_of).to_vec() },
            Ask::Flush(prefix, _) => Packed::Flush { prefix: (!prefix.is_empty()).then(|| bytes_of(prefix)) },
            Ask::Count => Packed::Count,
            Ask::Sync => Packed::Sync,
            Ask::Compact => Packed::Compact,
        }
    }
    /// What it does to which key.
    pub fn deeds(&self) -> Vec<(&str, Deed)> {
        let one = |key, deed| vec![(key, deed)];
        match self {
            Ask::Set { key, value, .. } => one(key.as_str(), Deed::Set(Rc::clone(value))),
            Ask::Add { key, value } => one(key, Deed::Add(Rc::clone(value))),
            Ask::Replace { key, of, value } => one(key, Deed::Replace(*of, Rc::clone(value))),
            Ask::Get(key) => one(key, Deed::Get),
            Ask::Delete(key) => one(key, Deed::Remove),
            Ask::GetDelete(key) => one(key, Deed::GetRemove),
            Ask::Increment(key, by, initial) => one(key, Deed::Increment(*by, *initial)),
            Ask::DeleteIf { key, of } => one(key, Deed::RemoveIf(*of)),
            Ask::GetTouch(key, _) => one(key, Deed::GetTouch),
            Ask::Append(key, bytes) => one(key, Deed::Append(Rc::clone(bytes))),
            Ask::Touch(key, _) => one(key, Deed::Touch),
            Ask::SetPair { value, .. } => PAIR.map(|key| (key, Deed::Set(Rc::clone(value)))).to_vec(),
            Ask::GetPair { .. } => PAIR.map(|key| (key, Deed::Get)).to_vec(),
            Ask::Flush(_, keys) => keys.iter().map(|key| (key.as_str(), Deed::Remove)).collect(),
            Ask::Count | Ask::Sync | Ask::Compact => Vec::new(),
        }
    }

    /// Whether nothing is waited for, where the peer has nothing else in flight.
    pub fn is_read(&self) -> bool {
        matches!(self, Ask::Get(_) | Ask::GetPair { .. } | Ask::Count)
    }

    /// What the reply tells of each of those keys.
    pub fn seen(&self, reply: &Reply) -> Vec<Seen> {
        let keys = self.deeds().len();
        let all = |seen| vec![seen; keys];
        match (self, reply) {
            (_, Reply::Error(code)) => {
                assert!(["NOSPACE", "NOMEM"].contains(&code.as_str()), "{self:?}: {code}");
                all(Seen::Refused)
            }
            (Ask::Set { .. } | Ask::Add { .. } | Ask::Replace { .. }, Reply::Stored(version)) => {
                all(Seen::Stored(*version))
            }
            (Ask::Add { .. }, Reply::Exists) => all(Seen::Exists),
            (Ask::Replace { .. } | Ask::DeleteIf { .. }, Reply::Conflict(version)) => all(Seen::Conflict(*version)),
            (Ask::Get(_) | Ask::GetDelete(_) | Ask::GetTouch(..), Reply::Value(value, version)) => {
                all(Seen::Value(Rc::clone(value), Some(*version)))
            }
            (
                Ask::Replace { .. }
                | Ask::Get(_)
                | Ask::GetDelete(_)
                | Ask::Append(..)
                | Ask::Touch(..)
                | Ask::Increment(_, _, None)
                | Ask::DeleteIf { .. }
                | Ask::GetTouch(..),
                Reply::Missing,
            ) => all(Seen::Missing),
            (Ask::Delete(_), Reply::Number(removed)) => all(Seen::Removed(*removed == 1)),
            (Ask::Increment(..), Reply::Number(sum)) => all(Seen::Number(*sum)),
            (Ask::Append(..), Reply::Number(length)) => all(Seen::Length(usize::try_from(*length).expect("a length"))),
            (Ask::Touch(..) | Ask::DeleteIf { .. }, Reply::Done) | (Ask::Flush(..), Reply::Number(_)) => {
                all(Seen::Done)
            }
            // Both have a version of their own, and this is the last one.
            (Ask::SetPair { .. }, Reply::Stored(version)) => vec![Seen::Stored(version - 1), Seen::Stored(*version)],
            (Ask::GetPair { may_be_parted, has_versions }, Reply::Values(values)) => {
                assert_eq!(values.len(), keys);
                let is_parted = values.iter().any(Option::is_none) && *may_be_parted;
                let text = |value: &Option<(Rc<str>, Option<u64>)>| value.as_ref().map(|(text, _)| Rc::clone(text));
                let is_one = values.first().map(text) == values.last().map(text);
                assert!(is_parted || is_one, "written together, and seen apart: {values:?}");
                let seen = |value: &Option<(Rc<str>, Option<u64>)>| {
                    value.as_ref().map_or(Seen::Missing, |(text, version)| {
                        assert_eq!(version.is_some(), *has_versions);
                        Seen::Value(Rc::clone(text), *version)
                    })
                };
                values.iter().map(seen).collect()
            }
            (Ask::Count | Ask::Sync, Reply::Number(_)) | (Ask::Compact, Reply::Done) => Vec::new(),
            _ => panic!("{self:?} is answered by {reply:?}"),
        }
    }
}

/// What a peer is told.
#[derive(Clone, Debug)]
pub enum Reply {
    Done,
    Stored(u64),
    Number(i64),
    Missing,
    Exists,
    Conflict(u64),
    Value(Rc<str>, u64),
    /// With their versions, where they were asked for.
    Values(Vec<Option<(Rc<str>, Option<u64>)>>),
    Error(String),
}

impl Reply {
    /// Reads a body in frames; what an OK means depends on what was asked.
    pub fn of_frames(body: &[Vec<u8>], ask: &Ask) -> Reply {
        let text = |index: usize| std::str::from_utf8(&body[index]).expect("text");
        let number = |index: usize| text(index).parse::<u64>().expect("a number");
        match (text(0), ask) {
            ("OK", Ask::Set { .. } | Ask::Add { .. } | Ask::Replace { .. } | Ask::SetPair { .. }) => {
                Reply::Stored(number(1))
            }
            ("OK", Ask::Get(_) | Ask::GetDelete(_) | Ask::GetTouch(..)) => Reply::Value(text(1).into(), number(2)),
            ("OK", Ask::GetPair { has_versions: false, .. }) => {
                let value = |pair: &[Vec<u8>]| (pair[0] == b"1").then(|| (text_of(&pair[1]), None));
                Reply::Values(body[1..].chunks(2).map(value).collect())
            }
            ("OK", Ask::GetPair { has_versions: true, .. }) => {
                let version = |frame: &[u8]| text_of(frame).parse::<u64>().expect("a version");
                let value = |four: &[Vec<u8>]| (four[0] == b"1").then(|| (text_of(&four[1]), Some(version(&four[2]))));
                Reply::Values(body[1..].chunks(4).map(value).collect())
            }
            ("OK", _) if body.len() == 1 => Reply::Done,
            ("OK", _) => Reply::Number(text(1).parse().expect("a number")),
            ("MISS", _) => Reply::Missing,
            ("EXISTS", _) => Reply::Exists,
            ("CONFLICT", _) => Reply::Conflict(number(1)),
            ("ERR", _) => Reply::Error(text(1).to_owned()),
            (status, _) => panic!("{status}"),
        }
    }

    /// Reads a packed body.
    pub fn of_packed(body: &[Vec<u8>]) -> Vec<Reply> {
        let list = body[0].strip_prefix(&[PACKED]).expect("a packed reply");
        let (told, read): (Vec<Told>, _) = bincode::serde::decode_from_slice(list, standard()).expect("a list");
        assert_eq!(read, list.len());
        told.into_iter().map(Reply::from).collect()
    }
}

impl From<Told> for Reply {
    fn from(told: Told) -> Reply {
        match told {
            Told::Done => Reply::Done,
            Told::Stored(version) => Reply::Stored(version),
            Told::Number(number) => Reply::Number(number),
            Told::Miss => Reply::Missing,
            Told::Exists => Reply::Exists,
            Told::Conflict(version) => Reply::Conflict(version),
            Told::Value { bytes, version, flags: 0 } => Reply::Value(text_of(&bytes), version),
            Told::Values(values) => {
                Reply::Values(values.into_iter().map(|value| value.map(|bytes| (text_of(&bytes), None))).collect())
            }
            Told::Entries(entries) => {
                let entry = |(bytes, version, flags): (ByteBuf, u64, u32)| {
                    assert_eq!(flags, 0);
                    (text_of(&bytes), Some(version))
                };
                Reply::Values(entries.into_iter().map(|found| found.map(entry)).collect())
            }
            Told::Error { code, .. } => Reply::Error(code),
            _ => panic!("nobody asked for that"),
        }
    }
}

fn text_of(bytes: &[u8]) -> Rc<str> {
    std::str::from_utf8(bytes).expect("text").into()
}

fn expires(lifetime: u64) -> Expiry {
    if lifetime == 0 { Expiry::Never } else { Expiry::In(lifetime) }
}

fn bytes_of(text: &str) -> &Bytes {
    Bytes::new(text.as_bytes())
}

/// All keys that anybody asks for.
pub fn keys() -> impl Iterator<Item = String> {
    PLAIN.iter().chain(&NUMBERS).chain(&FLEETING).chain(&PAIR).map(|key| (*key).to_owned())
}

/// What is to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Whether some values expire.
    pub expires: bool,
    /// Whether any may be evicted.
    pub evicts: bool,
    /// So many were chosen so far.
    pub count: usize,
}

impl Choice {
    /// Whether the value of this key may go at any time.
    pub fn is_fleeting(&self, key: &str) -> bool {
        self.evicts || FLEETING.contains(&key)
    }

    /// What reads the two keys that are written together.
    pub fn pair(&self) -> Ask {
        Ask::GetPair { may_be_parted: self.evicts, has_versions: self.count % 2 == 1 }
    }

    /// Chooses the next one. `version_of` is what the peer knows of a key's version.
    pub fn next(&mut self, random: &mut Random, version_of: impl Fn(&str) -> Option<u64>) -> Ask {
        self.count += 1;
        let fleeting = self.expires && random.one_in(5);
        let key = if fleeting { FLEETING[random.below(2)] } else { PLAIN[random.below(4)] }.to_owned();
        let number = NUMBERS[random.below(2)].to_owned();
        let lifetime = if fleeting { [3, 40, 700, 6_000][random.below(4)] } else { 0 };
        match random.below(36) {
            0..=8 => Ask::Set { key, value: self.value(random), lifetime },
            9 => Ask::Add { key, value: self.value(random) },
            10 => Ask::Replace { of: version_of(&key).unwrap_or(1), key, value: self.value(random) },
            11..=15 => Ask::Get(key),
            16 | 17 => Ask::Delete(key),
            18 => Ask::GetDelete(key),
            // What came of one whose reply was lost depends on whether the number was evicted before.
            19 | 20 if self.evicts => Ask::Get(number),
            19 | 20 => {
                let initial = [Some(0), Some(0), Some(-100), None][random.below(4)];
                Ask::Increment(number, [-4, -1, 1, 7][random.below(4)], initial)
            }
            21 => Ask::Get(number),
            22 => Ask::Append(key, format!("+{}", self.count).into()),
            23 => Ask::Touch(key, lifetime),
            24 | 25 => Ask::SetPair { value: self.value(random), has_flags: random.one_in(2) },
            26 => self.pair(),
            27 => {
                let prefix = ["", "a", "ab", "p", "n"][random.below(5)];
                Ask::Flush(prefix.to_owned(), keys().filter(|key| key.starts_with(prefix)).collect())
            }
            28 => Ask::Count,
            29 => Ask::Sync,
            30 | 31 => Ask::DeleteIf { of: version_of(&key).unwrap_or(1), key },
            32 | 33 => Ask::GetTouch(key, lifetime),
            _ => Ask::Compact,
        }
    }

    /// A value that no other command writes.
    fn value(&self, random: &mut Random) -> Rc<str> {
        let most = if random.one_in(3) { 1400 } else { 60 };
        format!("{};{}", self.count, "x".repeat(random.below(most))).into()
    }
}
