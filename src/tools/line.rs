//! One line of a dump: a key with its value as a JSON object, which `kvd dump` writes and `kvd load` reads.
//!
//! Knows the names of the fields and how bytes that are no text are told, and nothing of logs and servers.

use crate::mutation::{Key, Mutation, PICKLED, Space, Value};
use crate::timeline::Time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use std::borrow::Cow;

/// The fields as they stand in the line. Bytes that are UTF-8 stand as they are, others in base64 (RFC 4648, with padding).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key_base64: Option<Cow<'a, str>>,
    /// `python` where the key is one that frames can't name; `key_base64` is then its canonical encoding.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    space: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    value_base64: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pickled: Option<bool>,
    /// Unix milliseconds; none is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// In a history: this version removed the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    /// In a history: it was removed to make room in memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    evicted: bool,
    /// In a history: this version removed every key, or every one that starts with the prefix.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    flushed: bool,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    prefix: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    prefix_base64: Option<Cow<'a, str>>,
}

/// The last deadline that a line may have, as that of a command.
const LAST_DEADLINE: u64 = i64::MAX as u64;

/// What spells a key that frames can't name.
const PYTHON: &str = "python";

/// A key with its value, as a line told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which space the key is of.
    pub space: Space,
    /// The key.
    pub key: Cow<'a, [u8]>,
    /// The value.
    pub value: Cow<'a, [u8]>,
    /// As in [`Value`].
    pub flags: u32,
    /// As in [`Value`].
    pub deadline: u64,
}

/// Why a line is none. Displays as the rest of a sentence that names the line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No text.
    #[error("is not UTF-8, from byte {0} on: in a dump, bytes that are no text stand in base64")]
    NotUtf8(usize),
    /// JSON of another kind, or none.
    #[error("is no JSON object: a line of a dump is one, such as {{\"key\":\"k\",\"value\":\"v\"}}")]
    NotObject,
    /// The end of the object is missing.
    #[error("is cut short: it ends, after byte {0}, within its JSON object")]
    CutShort(usize),
    /// A field that holds something else than such a field does.
    #[error("has a field {field} that is not {kind}")]
    Kind {
        /// Which field.
        field: &'static str,
        /// What it holds in a dump.
        kind: &'static str,
    },
    /// A character that takes two escapes, and one of them.
    #[error(
        "has half of a surrogate pair, before byte {0}, which is no text: in a dump, bytes that are no text stand in base64"
    )]
    Surrogate(usize),
    /// Not JSON, or a field that is not known.
    #[error("is no object of a dump: {0}")]
    Json(String),
    /// No base64.
    #[error("has a field {0}_base64 that is no base64")]
    Base64(&'static str),
    /// Neither of both, or both.
    #[error("must have either {0} or {0}_base64")]
    Either(&'static str),
    /// A key space that there is not.
    #[error("names a space other than python")]
    Space,
    /// Flags with the top bit set.
    #[error("has flags over 2147483647: a pickle is told by \"pickled\": true")]
    Flags,
    /// A deadline that can't be.
    #[error("has a deadline_ms of 0 or beyond 9223372036854775807: leave it out for a key that never expires")]
    Deadline,
    /// A prefix without the flush that it would be of.
    #[error("has a prefix, which tells only what a flush in a history removed")]
    Prefix,
    /// A line of a history.
    #[error("is of a history, which tells what was: load a dump without --history")]
    History,
}

/// The fields that hold text.
const TEXTS: [&str; 7] = ["key", "key_base64", "space", "value", "value_base64", "prefix", "prefix_base64"];
/// Those that hold a number.
const NUMBERS: [&str; 3] = ["flags", "deadline_ms", "version"];
/// Those that hold neither.
const SWITCHES: [&str; 4] = ["pickled", "removed", "evicted", "flushed"];

impl LineError {
    /// Why this text is no line, in words that are not the parser's where those say little.
    fn of(error: &serde_json::Error, text: &str) -> LineError {
        // The text is one line, so the parser's count of lines is left out.
        let (told, column) = (error.to_string(), error.column());
        let told = match told.strip_suffix(&format!(" at line {} column {column}", error.line())) {
            Some(what) => format!("{what}, at byte {column}"),
            None => told,
        };
        match error.classify() {
            Category::Eof => LineError::CutShort(text.len()),
            // What the parser calls each half of a pair that lacks the other one.
            Category::Syntax if told.contains("surrogate") || told.contains("end of hex escape") => {
                LineError::Surrogate(column)
            }
            Category::Data => LineError::of_kind(text).unwrap_or(LineError::Json(told)),
            Category::Syntax | Category::Io => LineError::Json(told),
        }
    }

    /// The first field that holds something of another kind. The parser does not tell which one it is.
    fn of_kind(text: &str) -> Option<LineError> {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
        let first = |names: &[&'static str], kind, is_right: fn(&serde_json::Value) -> bool| {
            let wrong = |name: &&str| fields.get(*name).is_some_and(|value| !is_right(value));
            names.iter().copied().find(wrong).map(|field| LineError::Kind { field, kind })
        };
        first(&TEXTS, "text in quotes", |value| value.is_string() || value.is_null())
            .or_else(|| first(&NUMBERS, "a whole number of its size", |value| value.is_u64() || value.is_null()))
            .or_else(|| first(&SWITCHES, "true or false", serde_json::Value::is_boolean))
    }
}

impl<'a> Line<'a> {
    /// Reads a line.
    ///
    /// ```
    /// use kvd::tools::line::Line;
    /// let line = Line::read(r#"{"key": "k", "value_base64": "/w==", "flags": 7}"#).unwrap();
    /// assert_eq!((&*line.key, &*line.value, line.flags, line.deadline), (&b"k"[..], &b"\xff"[..], 7, 0));
    /// assert!(Line::read(r#"{"key": "k"}"#).is_err());
    /// ```
    ///
    /// # Errors
    /// A [`LineError`] that says what is wrong with it.
    pub fn read(text: &'a str) -> Result<Line<'a>, LineError> {
        // The parser would take a list of the fields, in their order, for an object.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(LineError::NotObject);
        }
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| LineError::of(&error, text))?;
        if fields.removed || fields.evicted || fields.flushed {
            return Err(LineError::History);
        }
        if fields.prefix.is_some() || fields.prefix_base64.is_some() {
            return Err(LineError::Prefix);
        }
        let space = match fields.space.as_deref() {
            None => Space::Bytes,
            Some(PYTHON) => Space::Python,
            Some(_) => return Err(LineError::Space),
        };
        let flags = match fields.flags.unwrap_or(0) {
            flags if flags & PICKLED != 0 => return Err(LineError::Flags),
            flags if fields.pickled == Some(true) => flags | PICKLED,
            flags => flags,
        };
        let deadline = match fields.deadline_ms {
            None => 0,
            Some(deadline @ 1..=LAST_DEADLINE) => deadline,
            Some(_) => return Err(LineError::Deadline),
        };
        let key = bytes("key", fields.key, fields.key_base64)?;
        let value = bytes("value", fields.value, fields.value_base64)?;
        Ok(Line { space, key, value, flags, deadline })
    }

    /// The mutation that stores it.
    pub fn mutation(&self) -> Mutation<'_> {
        let value = Value { bytes: &self.value, flags: self.flags, deadline: self.deadline };
        Mutation::Put { key: Key { space: self.space, bytes: &self.key }, value }
    }
}

/// Appends a mutation as a line, its end included. A deadline is told by the wall clock as it is at `time`.
pub fn write(version: u64, mutation: &Mutation<'_>, time: Time, into: &mut Vec<u8>) {
    let mut fields = Fields { version: Some(version), ..Fields::default() };
    match *mutation {
        Mutation::Put { key, value } => {
            tell_key(&mut fields, key);
            (fields.value, fields.value_base64) = told(value.bytes);
            fields.flags = Some(value.flags & !PICKLED);
            fields.pickled = Some(value.flags & PICKLED != 0);
            fields.deadline_ms = Some(value.deadline)
                .filter(|deadline| *deadline != 0)
                .map(|at| time.to_wall(at).clamp(1, LAST_DEADLINE));
        }
        Mutation::Remove { key } | Mutation::Evict { key } => {
            tell_key(&mut fields, key);
            fields.removed = true;
            fields.evicted = matches!(mutation, Mutation::Evict { .. });
        }
        Mutation::Flush { prefix } => {
            fields.flushed = true;
            if let Some(prefix) = prefix {
                (fields.prefix, fields.prefix_base64) = told(prefix);
            }
        }
    }
    // Nothing in it can fail to be JSON, and a vector takes everything.
    let _ = serde_json::to_writer(&mut *into, &fields);
    into.push(b'\n');
}

fn tell_key<'a>(fields: &mut Fields<'a>, key: Key<'a>) {
    match key.space {
        Space::Bytes => (fields.key, fields.key_base64) = told(key.bytes),
        // An encoding, and no text, also where it happens to be one.
        Space::Python => {
            (fields.space, fields.key_base64) = (Some(PYTHON.into()), Some(STANDARD.encode(key.bytes).into()));
        }
    }
}

/// Bytes as text, or in base64.
fn told(bytes: &[u8]) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    match str::from_utf8(bytes) {
        Ok(text) => (Some(text.into()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes).into())),
    }
}

/// The bytes that one of two fields tells.
fn bytes<'a>(
    name: &'static str,
    text: Option<Cow<'a, str>>,
    base64: Option<Cow<'a, str>>,
) -> Result<Cow<'a, [u8]>, LineError> {
    match (text, base64) {
        (Some(Cow::Borrowed(text)), None) => Ok(text.as_bytes().into()),
        (Some(Cow::Owned(text)), None) => Ok(text.into_bytes().into()),
        (None, Some(base64)) => match STANDARD.decode(&*base64) {
            Ok(bytes) => Ok(bytes.into()),
            Err(_) => Err(LineError::Base64(name)),
        },
        _ => Err(LineError::Either(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spelled(version: u64, mutation: &Mutation<'_>) -> String {
        let mut line = Vec::new();
        write(version, mutation, Time::default(), &mut line);
        String::from_utf8(line).expect("JSON is text")
    }

    #[test]
    fn the_names_of_the_fields_stay_what_they_are() {
        let value = Value { bytes: b"v\n", flags: 7 | PICKLED, deadline: 1_700_000_000_000 };
        assert_eq!(
            spelled(3, &Mutation::Put { key: Key::bytes("ключ".as_bytes()), value }),
            "{\"key\":\"ключ\",\"value\":\"v\\n\",\"flags\":7,\"pickled\":true,\"deadline_ms\":1700000000000,\"version\":3}\n"
        );
        let value = Value { bytes: &[0xff], flags: 0, deadline: 0 };
        let key = Key { space: Space::Python, bytes: b"+\0" };
        assert_eq!(
            spelled(4, &Mutation::Put { key, value }),
            "{\"key_base64\":\"KwA=\",\"space\":\"python\",\"value_base64\":\"/w==\",\"flags\":0,\"pickled\":false,\"version\":4}\n"
        );
        assert_eq!(
            spelled(5, &Mutation::Remove { key: Key::bytes(&[0xfe]) }),
            "{\"key_base64\":\"/g==\",\"version\":5,\"removed\":true}\n"
        );
        assert_eq!(
            spelled(6, &Mutation::Flush { prefix: Some(b"a:") }),
            "{\"version\":6,\"flushed\":true,\"prefix\":\"a:\"}\n"
        );
        assert_eq!(spelled(7, &Mutation::Flush { prefix: None }), "{\"version\":7,\"flushed\":true}\n");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("", "is no JSON object"),
            ("[]", "is no JSON object"),
            ("[1]", "is no JSON object"),
            ("\"key\"", "is no JSON object"),
            (
                "[\"k\",null,null,\"v\",null,1,false,null,null,false,false,false,null,null]",
                "is no JSON object: a line of a dump is one, such as {\"key\":\"k\",\"value\":\"v\"}",
            ),
            ("{\"key\":\"k\",\"value\":\"v\",\"ttl\":1}", "unknown field `ttl`"),
            ("{\"key\":\"k\",\"value\":1}", "has a field value that is not text in quotes"),
            ("{\"key\":\"k\",\"value\":\"v\",\"flags\":\"1\"}", "has a field flags that is not a whole number"),
            ("{\"key\":\"k\",\"value\":\"v\",\"flags\":-1}", "has a field flags that is not a whole number"),
            ("{\"key\":\"k\",\"value\":\"v\",\"pickled\":1}", "has a field pickled that is not true or false"),
            ("{\"key\":\"k\",\"value\":\"v\",\"removed\":null}", "has a field removed that is not true or false"),
            ("{\"key\":\"\\ud800\",\"value\":\"v\"}", "half of a surrogate pair"),
            ("{\"key\":\"\\ud800\\u0041\",\"value\":\"v\"}", "half of a surrogate pair"),
            ("{\"key\":\"k\" \"value\"", "expected `,` or `}`, at byte 12"),
            ("{\"value\":\"v\"}", "either key or key_base64"),
            ("{\"key\":\"k\",\"key_base64\":\"aw==\",\"value\":\"v\"}", "either key or key_base64"),
            ("{\"key\":\"k\"}", "either value or value_base64"),
            ("{\"key\":\"k\",\"value_base64\":\"!\"}", "value_base64 that is no base64"),
            ("{\"key\":\"k\",\"value\":\"v\",\"flags\":2147483648}", "flags over"),
            ("{\"key\":\"k\",\"value\":\"v\",\"deadline_ms\":0}", "deadline_ms"),
            ("{\"key\":\"k\",\"value\":\"v\",\"space\":\"ruby\"}", "space"),
            ("{\"key\":\"k\",\"removed\":true}", "history"),
            ("{\"flushed\":true}", "history"),
            ("{\"key\":\"k\",\"value\":\"v\",\"evicted\":true}", "history"),
            ("{\"key\":\"k\",\"value\":\"v\",\"prefix\":\"k\"}", "has a prefix"),
            ("{\"key\":\"k\",\"value\":\"v\",\"value\":\"w\"}", "duplicate field `value`, at byte 30"),
            ("{\"key\":1}", "has a field key that is not text in quotes"),
            ("{\"key\":\"k\"", "is cut short: it ends, after byte 10,"),
            ("{\"key\":\"k\",\"va", "is cut short"),
        ] {
            let error = Line::read(text).expect_err(text).to_string();
            assert!(error.contains(said) && !error.contains("line 1"), "{text}: {error}");
        }
    }

    #[test]
    fn a_deadline_that_is_told_can_be_read_wherever_the_clock_stands() {
        for (deadline, time, told) in [
            (i64::MAX as u64, Time::new(1_000, 1_005), i64::MAX as u64),
            (i64::MAX as u64, Time::new(1_005, 1_000), i64::MAX as u64 - 5),
            (3, Time::new(1_005, 1_000), 1),
        ] {
            let value = Value { bytes: b"v", flags: 0, deadline };
            let mut line = Vec::new();
            write(1, &Mutation::Put { key: Key::bytes(b"k"), value }, time, &mut line);
            let line = String::from_utf8(line).expect("JSON is text");
            assert_eq!(Line::read(line.trim_end()).expect("a line").deadline, told);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            python: bool,
            key in prop::collection::vec(any::<u8>(), 1..9),
            value in prop_oneof![prop::collection::vec(any::<u8>(), 0..20), "\\PC*".prop_map(String::into_bytes)],
            flags: u32,
            deadline in prop_oneof![Just(0), 1..=i64::MAX as u64],
        ) {
            let space = if python { Space::Python } else { Space::Bytes };
            let line = Line { space, key: key.into(), value: value.into(), flags, deadline };
            let spelled = spelled(9, &line.mutation());
            prop_assert_eq!(Line::read(spelled.trim_end()).expect("a line"), line);
        }
    }
}
