//! A packed message to [`Command`]s: looked over as a whole, then taken apart one by one.
//!
//! Knows the limits of a message and of what its commands hold, and which of the two a fault belongs to: bytes that are no
//! list of commands are refused as a whole, a command that may not be as it is costs nobody but itself.

use super::request::{self, KINDS, LookedOver, Request, Whole};
use super::{CONFIG, MARK};
use crate::command::{
    Absent, COUNT_WEIGHT, Command, Condition, DEFAULT_SCAN_COUNT, End, ErrorCode, Expiry, Limits, MAX_PACKED_COMMANDS,
    MAX_PACKED_WEIGHT, MAX_SCAN_COUNT, NewCounter, NewEntry, SCAN_WEIGHT, SetOptions,
};
use crate::mutation::{Key, PICKLED};
use crate::wire::WireError;
use crate::wire::bounds::{LAST_MILLISECOND, bad, key, prefix, value};
use bincode::error::DecodeError;
use serde::Deserialize;
use serde_bytes::Bytes;

/// Takes a message apart, whose first byte is [`MARK`]. Nothing is kept of it, and nothing allocated, whatever it announces.
///
/// ```
/// use kvd::command::{Command, Limits};
/// use kvd::mutation::Key;
/// // Two commands: Get (1) of a key of 2 bytes, Ping (0).
/// let message = b"\x01\x02\x01\x02ab\x00";
/// let commands = kvd::wire::packed::decode(message, &Limits::default()).unwrap();
/// let commands: Vec<_> = commands.map(Result::unwrap).collect();
/// assert_eq!(commands, [Command::Get { key: Key::bytes(b"ab") }, Command::Ping]);
/// ```
///
/// # Errors
/// For bytes that are no list of commands: `BADCMD` for a command that there is not, `TOOBIG` for more commands, or more
/// to do for them, than a message may have, `BADARG` for all else. The text tells which command, and at which byte it
/// begins.
pub fn decode<'a>(message: &'a [u8], limits: &Limits) -> Result<Commands<'a>, WireError> {
    let list = message.strip_prefix(&[MARK]).unwrap_or_default();
    let (count, first) = take::<u64>(list).map_err(|_| bad("the number of commands is cut short, or is no number"))?;
    if count > MAX_PACKED_COMMANDS as u64 {
        let text = format!("a list of {count} commands; the limit is {MAX_PACKED_COMMANDS}");
        return Err(WireError::new(ErrorCode::TooBig, text));
    }
    let (mut rest, mut weight) = (first, 0_u64);
    for number in 1..=count {
        let fault = |code, what: &str| {
            let at = message.len() - rest.len();
            WireError::new(code, format!("command {number} of {count}, at byte {at}, {what}"))
        };
        let (request, after) = take::<LookedOver<'_>>(rest).map_err(|error| {
            let (code, what) = explain(&error, rest);
            fault(code, &what)
        })?;
        weight = weight.saturating_add(request.weight());
        if weight > MAX_PACKED_WEIGHT as u64 {
            let what = format!(
                "makes it {weight} keys in lists, where a SCAN counts for {SCAN_WEIGHT}, and COUNT, FLUSH and STATS for \
                 {COUNT_WEIGHT}; the limit of a message is {MAX_PACKED_WEIGHT}"
            );
            return Err(fault(ErrorCode::TooBig, &what));
        }
        rest = after;
    }
    if !rest.is_empty() {
        return Err(bad(format!("{} bytes follow the last command, of {count}", rest.len())));
    }
    Ok(Commands { rest: first, left: count as usize, weight: (count + weight) as usize, limits: *limits })
}

/// What is wrong with the command at the start of these bytes.
fn explain(error: &DecodeError, bytes: &[u8]) -> (ErrorCode, String) {
    match (take::<u32>(bytes), error) {
        (Ok((index, _)), _) if index >= KINDS => {
            (ErrorCode::BadCommand, format!("has the index {index}, and there is no such command"))
        }
        (_, DecodeError::UnexpectedEnd { .. }) => (ErrorCode::BadArgument, "is cut short".into()),
        _ => (ErrorCode::BadArgument, "holds a number or a choice that may not stand where it stands".into()),
    }
}

/// Reads one thing, and gives what follows it.
#[inline]
fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), DecodeError> {
    let (thing, read) = bincode::serde::borrow_decode_from_slice(bytes, CONFIG)?;
    Ok((thing, bytes.get(read..).unwrap_or_default()))
}

/// The commands of a message, in order. Each is a command, or why it is refused: that costs the others nothing.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    rest: &'a [u8],
    left: usize,
    weight: usize,
    limits: Limits,
}

impl Commands<'_> {
    /// How much there is to do for all of them: see [`crate::command::Class::weight`].
    pub fn weight(&self) -> usize {
        self.weight
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, WireError>;

    // Here and below: a command is a hundred bytes, and moving it costs more than reading it.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(match take::<Whole<'a>>(self.rest) {
            Ok((request, rest)) => {
                self.rest = rest;
                command(request, self.limits)
            }
            // It was looked over before; were that wrong, no command would be taken for another.
            Err(_) => Err(WireError::new(ErrorCode::Internal, "a command that was right at first reads wrong")),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Commands<'_> {}

#[inline]
fn command(request: Whole<'_>, limits: Limits) -> Result<Command<'_>, WireError> {
    Ok(match request {
        Request::Ping => Command::Ping,
        Request::Get { key: name } => Command::Get { key: key(name)? },
        Request::Set { key: name, value: bytes, expiry, condition, flags } => {
            let options = SetOptions { expiry: expires(expiry)?, condition: holds(condition), flags };
            Command::Set { key: key(name)?, value: value(bytes, limits)?.into(), options }
        }
        Request::Delete { keys } => Command::Delete { keys: key_list(&keys)? },
        Request::Exists { keys } => Command::Exists { keys: key_list(&keys)? },
        Request::GetMany { keys } => Command::GetMany { keys: key_list(&keys)? },
        Request::SetMany { pairs } => Command::SetMany { pairs: pair_list(&pairs, limits)? },
        Request::Increment { key: name, delta } => {
            Command::Increment { key: key(name)?, delta, absent: Absent::default() }
        }
        Request::Append { key: name, bytes } => {
            Command::Extend { key: key(name)?, bytes: value(bytes, limits)?, end: End::Back }
        }
        Request::Prepend { key: name, bytes } => {
            Command::Extend { key: key(name)?, bytes: value(bytes, limits)?, end: End::Front }
        }
        Request::Touch { key: name, milliseconds } => {
            Command::Touch { key: key(name)?, expiry: expires(request::Expiry::In(milliseconds))? }
        }
        Request::TimeToLive { key: name } => Command::TimeToLive { key: key(name)? },
        Request::GetDelete { key: name } => Command::GetDelete { key: key(name)? },
        Request::Scan { cursor, prefix: starts, count } => {
            Command::Scan { cursor, prefix: prefix(starts)?, count: scan_count(count) }
        }
        Request::Count => Command::Count,
        Request::Flush { prefix: starts } => {
            Command::Flush { prefix: starts.map(|starts| prefix(starts)).transpose()? }
        }
        Request::Sync => Command::Sync,
        Request::Compact => Command::Compact,
        Request::Stats => Command::Stats,
        Request::Version => Command::Version,
        Request::GetEntries { keys } => Command::GetEntries { keys: key_list(&keys)? },
        Request::SetEntries { expiry, entries } => {
            Command::SetEntries { expiry: expires(expiry)?, entries: entry_list(&entries, limits)? }
        }
        Request::DeleteIf { key: name, version } => Command::DeleteIf { key: key(name)?, version },
        Request::IncrementOr { key: name, delta, absent: otherwise } => {
            Command::Increment { key: key(name)?, delta, absent: absent(otherwise)? }
        }
        Request::GetTouch { key: name, expiry } => Command::GetTouch { key: key(name)?, expiry: expires(expiry)? },
    })
}

fn key_list<'a>(keys: &[&'a Bytes]) -> Result<Vec<Key<'a>>, WireError> {
    if keys.is_empty() {
        return Err(bad("a list of keys has at least 1 key"));
    }
    keys.iter().map(|bytes| key(bytes)).collect()
}

fn pair_list<'a>(pairs: &[request::Pair<'a>], limits: Limits) -> Result<Vec<(Key<'a>, &'a [u8])>, WireError> {
    if pairs.is_empty() {
        return Err(bad("a list of keys and values has at least 1 pair"));
    }
    pairs.iter().map(|(name, bytes)| Ok((key(name)?, value(bytes, limits)?))).collect()
}

fn entry_list<'a>(entries: &[request::Entry<'a>], limits: Limits) -> Result<Vec<NewEntry<'a>>, WireError> {
    if entries.is_empty() {
        return Err(bad("a list of entries has at least 1 entry"));
    }
    let entry = |&(name, bytes, flags): &request::Entry<'a>| {
        Ok(NewEntry { key: key(name)?, value: value(bytes, limits)?, flags })
    };
    entries.iter().map(entry).collect()
}

/// A counter is no pickle, whatever its flags say.
fn absent(absent: request::Absent) -> Result<Absent, WireError> {
    match absent {
        request::Absent::Miss => Ok(Absent::Miss),
        request::Absent::Make { flags, .. } if flags & PICKLED != 0 => {
            Err(bad("the flags of a counter have 31 bits: it can't be made PICKLED"))
        }
        request::Absent::Make { initial, expiry, flags } => {
            Ok(Absent::Make(NewCounter { initial, expiry: expires(expiry)?, flags }))
        }
    }
}

fn expires(expiry: request::Expiry) -> Result<Expiry, WireError> {
    match expiry {
        request::Expiry::Never | request::Expiry::In(0) => Ok(Expiry::Never),
        request::Expiry::In(milliseconds) if milliseconds <= LAST_MILLISECOND => Ok(Expiry::In(milliseconds)),
        request::Expiry::At(at) if at <= LAST_MILLISECOND => Ok(Expiry::At(at)),
        request::Expiry::In(number) | request::Expiry::At(number) => {
            Err(bad(format!("a time is 0 to {LAST_MILLISECOND} milliseconds, not {number}")))
        }
    }
}

fn holds(condition: request::Condition) -> Condition {
    match condition {
        request::Condition::Always => Condition::Always,
        request::Condition::Absent => Condition::Absent,
        request::Condition::Present => Condition::Present,
        request::Condition::Version(version) => Condition::Version(version),
    }
}

/// 0 is the default; more than a page may hold is taken for as much as it may.
fn scan_count(count: u32) -> usize {
    match count {
        0 => DEFAULT_SCAN_COUNT,
        count => (count as usize).min(MAX_SCAN_COUNT),
    }
}
