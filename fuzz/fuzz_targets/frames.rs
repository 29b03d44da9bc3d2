//! The frames dialect under any input: a line is a frame.
//!
//! Decoding never panics. What it accepts lies within the limits, means the same with its verb in another case, and
//! comes back equal when it is spelled out anew. What it refuses it refuses shortly.
#![no_main]

use kvd::command::{
    Command, Condition, DEFAULT_SCAN_COUNT, End, ErrorCode, Expiry, Limits, MAX_KEY, MAX_SCAN_COUNT, SetOptions,
};
use kvd::mutation::{Key, PICKLED};
use kvd::wire::{ReplyFrames, frames};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_value: 64 };

/// Most bytes of an error's message: the longest form, or a quotation of 32 bytes escaped.
const LONGEST_MESSAGE: usize = 256;

fuzz_target!(|data: &[u8]| {
    let body: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    match frames::decode(&body, &LIMITS) {
        Ok(command) => {
            within_limits(&command);
            let mut other_case = body.clone();
            let verb: Vec<u8> = body[0].iter().map(|byte| byte ^ 0x20).collect();
            other_case[0] = &verb;
            assert_eq!(frames::decode(&other_case, &LIMITS).as_ref(), Ok(&command));
            let spelled = spell(&command);
            let spelled: Vec<&[u8]> = spelled.iter().map(Vec::as_slice).collect();
            assert_eq!(frames::decode(&spelled, &LIMITS).as_ref(), Ok(&command));
        }
        Err(error) => {
            assert!(matches!(error.code, ErrorCode::BadCommand | ErrorCode::BadArgument | ErrorCode::TooBig));
            assert!(error.message.is_ascii() && error.message.len() <= LONGEST_MESSAGE, "{error}");
            let mut reply = ReplyFrames::default();
            frames::encode(&error.reply(), &mut reply);
            assert_eq!(reply.len(), 3);
        }
    }
});

fn within_limits(command: &Command<'_>) {
    for key in keys(command) {
        assert!((1..=MAX_KEY).contains(&key.bytes.len()));
    }
    let fits = |value: &[u8]| value.len() <= LIMITS.max_value;
    match command {
        Command::Set { value, options, .. } => assert!(fits(value) && is_stored(options.expiry)),
        Command::SetMany { pairs } => assert!(!pairs.is_empty() && pairs.iter().all(|(_, value)| fits(value))),
        Command::Extend { bytes, .. } => assert!(fits(bytes)),
        Command::Touch { expiry, .. } => assert!(is_stored(*expiry)),
        Command::Scan { prefix, count, .. } => {
            assert!(prefix.len() <= MAX_KEY && (1..=MAX_SCAN_COUNT).contains(count));
        }
        Command::Flush { prefix: Some(prefix) } => assert!(prefix.len() <= MAX_KEY),
        Command::Delete { keys } | Command::Exists { keys } | Command::GetMany { keys } => assert!(!keys.is_empty()),
        _ => {}
    }
}

fn is_stored(expiry: Expiry) -> bool {
    match expiry {
        Expiry::Never => true,
        Expiry::In(milliseconds) => milliseconds != 0 && i64::try_from(milliseconds).is_ok(),
        Expiry::At(at) => i64::try_from(at).is_ok(),
    }
}

fn keys<'a>(command: &Command<'a>) -> Vec<Key<'a>> {
    match command {
        Command::Get { key }
        | Command::Set { key, .. }
        | Command::Increment { key, .. }
        | Command::Extend { key, .. }
        | Command::Touch { key, .. }
        | Command::TimeToLive { key }
        | Command::GetDelete { key } => vec![*key],
        Command::Delete { keys } | Command::Exists { keys } | Command::GetMany { keys } => keys.clone(),
        Command::SetMany { pairs } => pairs.iter().map(|(key, _)| *key).collect(),
        _ => Vec::new(),
    }
}

/// The frames of a command, as a client would write them.
fn spell(command: &Command<'_>) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut add = |frame: &[u8]| frames.push(frame.to_vec());
    let verb: &[u8] = match command {
        Command::Ping => b"PING",
        Command::Set { .. } => b"SET",
        Command::Get { .. } => b"GET",
        Command::Delete { .. } => b"DEL",
        Command::Exists { .. } => b"EXISTS",
        Command::GetMany { .. } => b"MGET",
        Command::SetMany { .. } => b"MSET",
        Command::Increment { .. } => b"INCR",
        Command::Extend { end: End::Back, .. } => b"APPEND",
        Command::Extend { end: End::Front, .. } => b"PREPEND",
        Command::Touch { .. } => b"TOUCH",
        Command::TimeToLive { .. } => b"TTL",
        Command::GetDelete { .. } => b"GETDEL",
        Command::Scan { .. } => b"SCAN",
        Command::Count => b"COUNT",
        Command::Flush { .. } => b"FLUSH",
        Command::Sync => b"SYNC",
        Command::Compact => b"COMPACT",
        Command::Stats => b"STATS",
        Command::Version => b"VERSION",
    };
    add(verb);
    match command {
        Command::SetMany { pairs } => {
            for (key, value) in pairs {
                add(key.bytes);
                add(value);
            }
        }
        Command::Scan { cursor, prefix, count } => {
            add(cursor.to_string().as_bytes());
            if !prefix.is_empty() {
                add(b"PREFIX");
                add(prefix);
            }
            if *count != DEFAULT_SCAN_COUNT {
                add(b"COUNT");
                add(count.to_string().as_bytes());
            }
        }
        Command::Flush { prefix: Some(prefix) } => {
            add(b"PREFIX");
            add(prefix);
        }
        _ => {
            for key in keys(command) {
                add(key.bytes);
            }
        }
    }
    match command {
        Command::Set { value, options, .. } => {
            add(value);
            spell_options(*options, &mut add);
        }
        Command::Increment { delta, .. } => add(delta.to_string().as_bytes()),
        Command::Extend { bytes, .. } => add(bytes),
        Command::Touch { expiry: Expiry::In(milliseconds), .. } => add(milliseconds.to_string().as_bytes()),
        Command::Touch { .. } => add(b"0"),
        _ => {}
    }
    frames
}

fn spell_options(options: SetOptions, add: &mut impl FnMut(&[u8])) {
    let mut number = |name: &[u8], number: u64| {
        add(name);
        add(number.to_string().as_bytes());
    };
    match options.expiry {
        Expiry::Never => {}
        Expiry::In(milliseconds) => number(b"TTL", milliseconds),
        Expiry::At(at) => number(b"AT", at),
    }
    if options.flags & !PICKLED != 0 {
        number(b"FLAGS", u64::from(options.flags & !PICKLED));
    }
    match options.condition {
        Condition::Always => {}
        Condition::Absent => add(b"NX"),
        Condition::Present => add(b"XX"),
        Condition::Version(version) => number(b"IF", version),
    }
    if options.flags & PICKLED != 0 {
        add(b"PICKLED");
    }
}
