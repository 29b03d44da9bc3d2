//! Frames to a [`Command`]: which verbs there are, and the form of each.
//!
//! Knows how many frames a verb takes and in which order; what a single frame may be is for `arguments` to say. Keys and
//! values are borrowed, never copied.

use super::arguments::{flags, number, quote, signed, time_to_live};
use super::options::{self, Options, once};
use crate::command::{
    Absent, Command, DEFAULT_SCAN_COUNT, End, ErrorCode, Limits, MAX_BODY_FRAMES, MAX_SCAN_COUNT, NewEntry,
};
use crate::mutation::Key;
use crate::wire::WireError;
use crate::wire::bounds::{bad, key, prefix, value};
use std::ops::Deref;

const SET: &str = "SET key value [TTL milliseconds | AT unix-milliseconds] [NX | XX | IF version] [FLAGS n] [PICKLED]";
const MSET: &str = "MSET key value [key value ...]";
const MSETS: &str = "MSETS [TTL milliseconds | AT unix-milliseconds] KEYS key value flags [key value flags ...]";
const INCR: &str = "INCR key [delta] [XX | [INIT n] [FLAGS n] [TTL milliseconds | AT unix-milliseconds]]";
const GETEX: &str = "GETEX key TTL milliseconds | AT unix-milliseconds | PERSIST";
/// Longest verb, in bytes.
const LONGEST_VERB: usize = 7;

/// Decodes the body of a message: a verb in any case and its arguments.
///
/// ```
/// use kvd::command::{Command, Limits};
/// use kvd::mutation::Key;
/// let body: [&[u8]; 2] = [b"get", b"user:1"];
/// let command = kvd::wire::frames::decode(&body, &Limits::default()).unwrap();
/// assert_eq!(command, Command::Get { key: Key::bytes(b"user:1") });
/// ```
///
/// # Errors
/// `BADCMD` for a verb that there is not; `TOOBIG` for a key, a value or a number of frames over its limit; `BADARG`
/// for everything else, with a message that names the right form.
pub fn decode<'a>(body: &'a [impl Deref<Target = [u8]>], limits: &Limits) -> Result<Command<'a>, WireError> {
    let Some((verb, arguments)) = body.split_first() else {
        return Err(bad("the message has no body: a verb and its arguments go there, a frame each"));
    };
    if body.len() > MAX_BODY_FRAMES {
        let message = format!("a message of {} frames; the limit is {MAX_BODY_FRAMES}", body.len());
        return Err(WireError::new(ErrorCode::TooBig, message));
    }
    let mut name = [0; LONGEST_VERB];
    let Some(name) = name.get_mut(..verb.len()) else { return Err(unknown(verb)) };
    name.copy_from_slice(verb);
    name.make_ascii_uppercase();
    match &*name {
        b"GET" => Ok(Command::Get { key: only_key(arguments, "GET key")? }),
        b"SET" => set(arguments, *limits),
        b"DEL" => Ok(Command::Delete { keys: keys(arguments, "DEL key [key ...]")? }),
        b"EXISTS" => Ok(Command::Exists { keys: keys(arguments, "EXISTS key [key ...]")? }),
        b"MGET" => Ok(Command::GetMany { keys: keys(arguments, "MGET key [key ...]")? }),
        b"MGETS" => Ok(Command::GetEntries { keys: keys(arguments, "MGETS key [key ...]")? }),
        b"MSETS" => set_entries(arguments, *limits),
        b"MSET" => set_many(arguments, *limits),
        b"INCR" => increment(arguments),
        b"APPEND" => extend(arguments, End::Back, "APPEND key bytes", *limits),
        b"PREPEND" => extend(arguments, End::Front, "PREPEND key bytes", *limits),
        b"TOUCH" => touch(arguments),
        b"TTL" => Ok(Command::TimeToLive { key: only_key(arguments, "TTL key")? }),
        b"GETDEL" => Ok(Command::GetDelete { key: only_key(arguments, "GETDEL key")? }),
        b"GETEX" => get_touch(arguments),
        b"DELIF" => delete_if(arguments),
        b"SCAN" => scan(arguments),
        b"FLUSH" => flush(arguments),
        b"COUNT" => alone(arguments, Command::Count, "COUNT"),
        b"SYNC" => alone(arguments, Command::Sync, "SYNC"),
        b"COMPACT" => alone(arguments, Command::Compact, "COMPACT"),
        b"STATS" => alone(arguments, Command::Stats, "STATS"),
        b"PING" => alone(arguments, Command::Ping, "PING"),
        b"VERSION" => alone(arguments, Command::Version, "VERSION"),
        _ => Err(unknown(verb)),
    }
}

fn unknown(verb: &[u8]) -> WireError {
    WireError::new(ErrorCode::BadCommand, format!("there is no command {}", quote(verb)))
}

/// The refusal of a wrong number of arguments.
fn form(form: &'static str) -> WireError {
    bad(format!("the form is {form}, a frame each"))
}

fn alone<'a, F>(arguments: &[F], command: Command<'a>, of: &'static str) -> Result<Command<'a>, WireError> {
    if arguments.is_empty() { Ok(command) } else { Err(form(of)) }
}

fn only_key<'a>(arguments: &'a [impl Deref<Target = [u8]>], of: &'static str) -> Result<Key<'a>, WireError> {
    match arguments {
        [only] => key(only),
        _ => Err(form(of)),
    }
}

fn keys<'a>(arguments: &'a [impl Deref<Target = [u8]>], of: &'static str) -> Result<Vec<Key<'a>>, WireError> {
    if arguments.is_empty() {
        return Err(form(of));
    }
    arguments.iter().map(|frame| key(frame)).collect()
}

fn set(arguments: &[impl Deref<Target = [u8]>], limits: Limits) -> Result<Command<'_>, WireError> {
    match arguments {
        [name, bytes, options @ ..] => Ok(Command::Set {
            key: key(name)?,
            value: value(bytes, limits)?.into(),
            options: options::of_set(options)?,
        }),
        _ => Err(form(SET)),
    }
}

fn set_many(arguments: &[impl Deref<Target = [u8]>], limits: Limits) -> Result<Command<'_>, WireError> {
    let mut pairs = Vec::with_capacity(arguments.len() / 2);
    for pair in arguments.chunks(2) {
        let [name, bytes] = pair else { return Err(form(MSET)) };
        pairs.push((key(name)?, value(bytes, limits)?));
    }
    if pairs.is_empty() { Err(form(MSET)) } else { Ok(Command::SetMany { pairs }) }
}

fn set_entries(arguments: &[impl Deref<Target = [u8]>], limits: Limits) -> Result<Command<'_>, WireError> {
    let Some((expiry, listed)) = options::of_set_entries(arguments)? else { return Err(form(MSETS)) };
    let mut entries = Vec::with_capacity(listed.len() / 3);
    for entry in listed.chunks(3) {
        let [name, bytes, bits] = entry else { return Err(form(MSETS)) };
        entries.push(NewEntry {
            key: key(name)?,
            value: value(bytes, limits)?,
            flags: flags("a flag of MSETS", bits)?,
        });
    }
    if entries.is_empty() { Err(form(MSETS)) } else { Ok(Command::SetEntries { entries, expiry }) }
}

/// The delta is told from an option by its first byte: no option begins like a number.
fn increment(arguments: &[impl Deref<Target = [u8]>]) -> Result<Command<'_>, WireError> {
    let Some((name, rest)) = arguments.split_first() else { return Err(form(INCR)) };
    let key = key(name)?;
    let (delta, options) = match rest {
        [first, options @ ..] if !first.first().is_some_and(u8::is_ascii_alphabetic) => {
            (signed("the delta of INCR", first)?, options)
        }
        options => (1, options),
    };
    let absent = if options.is_empty() { Absent::default() } else { options::of_increment(options)? };
    Ok(Command::Increment { key, delta, absent })
}

fn get_touch(arguments: &[impl Deref<Target = [u8]>]) -> Result<Command<'_>, WireError> {
    let Some((name, options)) = arguments.split_first() else { return Err(form(GETEX)) };
    let key = key(name)?;
    match options::of_get_touch(options)? {
        Some(expiry) => Ok(Command::GetTouch { key, expiry }),
        None => Err(form(GETEX)),
    }
}

fn delete_if(arguments: &[impl Deref<Target = [u8]>]) -> Result<Command<'_>, WireError> {
    match arguments {
        [name, version] => {
            Ok(Command::DeleteIf { key: key(name)?, version: number("the version of DELIF", version, u64::MAX)? })
        }
        _ => Err(form("DELIF key version")),
    }
}

fn extend<'a>(
    arguments: &'a [impl Deref<Target = [u8]>],
    end: End,
    of: &'static str,
    limits: Limits,
) -> Result<Command<'a>, WireError> {
    match arguments {
        [name, bytes] => Ok(Command::Extend { key: key(name)?, bytes: value(bytes, limits)?, end }),
        _ => Err(form(of)),
    }
}

fn touch(arguments: &[impl Deref<Target = [u8]>]) -> Result<Command<'_>, WireError> {
    match arguments {
        [name, milliseconds] => {
            let expiry = time_to_live("the time of TOUCH", milliseconds)?;
            Ok(Command::Touch { key: key(name)?, expiry })
        }
        _ => Err(form("TOUCH key milliseconds")),
    }
}

/// A COUNT over [`MAX_SCAN_COUNT`] is taken for that: it is an aim, and the cursor tells where to go on.
fn scan(arguments: &[impl Deref<Target = [u8]>]) -> Result<Command<'_>, WireError> {
    let Some((cursor, options)) = arguments.split_first() else {
        return Err(form("SCAN cursor [PREFIX p] [COUNT n]"));
    };
    let cursor = number("the cursor of SCAN", cursor, u64::MAX)?;
    let (mut starts, mut count) = (None, None);
    let mut options = Options::new("SCAN", options);
    while let Some(name) = options.next_name() {
        if name.eq_ignore_ascii_case(b"PREFIX") {
            once(&mut starts, prefix(options.argument("PREFIX")?)?, "PREFIX")?;
        } else if name.eq_ignore_ascii_case(b"COUNT") {
            let aim = number("COUNT", options.argument("COUNT")?, u64::MAX)?;
            if aim == 0 {
                return Err(bad("COUNT is at least 1"));
            }
            once(&mut count, usize::try_from(aim).unwrap_or(usize::MAX).min(MAX_SCAN_COUNT), "COUNT")?;
        } else {
            return Err(options.unknown(name));
        }
    }
    Ok(Command::Scan { cursor, prefix: starts.unwrap_or_default(), count: count.unwrap_or(DEFAULT_SCAN_COUNT) })
}

fn flush(arguments: &[impl Deref<Target = [u8]>]) -> Result<Command<'_>, WireError> {
    match arguments {
        [] => Ok(Command::Flush { prefix: None }),
        [option, starts] if option.eq_ignore_ascii_case(b"PREFIX") => {
            Ok(Command::Flush { prefix: Some(prefix(starts)?) })
        }
        _ => Err(form("FLUSH [PREFIX p]")),
    }
}
