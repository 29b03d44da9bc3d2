//! The packed dialect under any input, given without the mark that begins a message.
//!
//! Decoding never panics. What it accepts lies within the limits, and comes back equal when it is spelled out anew by the
//! tests' client. What it refuses, as a whole or command by command, it refuses shortly, in a reply that a client can read.
#![no_main]

use kvd::command::{Command, ErrorCode, Expiry, Limits, MAX_BODY_FRAMES, MAX_KEY, MAX_PACKED_COMMANDS, MAX_SCAN_COUNT};
use kvd::mutation::Key;
use kvd::wire::{WireError, packed};
use libfuzzer_sys::fuzz_target;
use packed_codec::{Told, message, replies};

#[path = "../../tests/it/packed_codec.rs"]
mod packed_codec;

const LIMITS: Limits = Limits { max_value: 64 };

/// Most bytes of an error's message.
const LONGEST_MESSAGE: usize = 256;

fuzz_target!(|data: &[u8]| {
    let bytes = [&[packed::MARK], data].concat();
    let commands = match packed::decode(&bytes, &LIMITS) {
        Ok(commands) => commands,
        Err(error) => return is_told(error),
    };
    let announced = commands.len();
    assert!(announced <= MAX_PACKED_COMMANDS);
    let mut accepted = Vec::new();
    let mut refused = 0;
    for command in commands {
        match command {
            Ok(command) => accepted.push(command),
            Err(error) => {
                refused += 1;
                is_told(error);
            }
        }
    }
    assert_eq!(accepted.len() + refused, announced);
    assert!(accepted.iter().map(|command| lists(command).len()).sum::<usize>() <= MAX_BODY_FRAMES);
    accepted.iter().for_each(within_limits);
    let spelled = message(&accepted);
    let again: Result<Vec<_>, _> = packed::decode(&spelled, &LIMITS).expect("a list").collect();
    assert_eq!(again, Ok(accepted));
});

/// Asserts that an error is short, and that the reply that tells it is one.
fn is_told(error: WireError) {
    assert!(matches!(error.code, ErrorCode::BadCommand | ErrorCode::BadArgument | ErrorCode::TooBig));
    assert!(error.message.is_ascii() && error.message.len() <= LONGEST_MESSAGE, "{error}");
    let expected = Told::Error { code: error.code.name().into(), message: error.message.to_string() };
    let mut reply = Vec::new();
    packed::begin(1, &mut reply);
    packed::encode(&error.reply(), &mut reply);
    assert_eq!(replies(&reply), Some(vec![expected]));
}

fn within_limits(command: &Command<'_>) {
    for key in lists(command).into_iter().chain(key(command)) {
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

/// The keys of a command that takes a list of them.
fn lists<'a>(command: &Command<'a>) -> Vec<Key<'a>> {
    match command {
        Command::Delete { keys } | Command::Exists { keys } | Command::GetMany { keys } => keys.clone(),
        Command::SetMany { pairs } => pairs.iter().map(|(key, _)| *key).collect(),
        _ => Vec::new(),
    }
}

/// The key of a command that takes one.
fn key<'a>(command: &Command<'a>) -> Option<Key<'a>> {
    match command {
        Command::Get { key }
        | Command::Set { key, .. }
        | Command::Increment { key, .. }
        | Command::Extend { key, .. }
        | Command::Touch { key, .. }
        | Command::TimeToLive { key }
        | Command::GetDelete { key } => Some(*key),
        _ => None,
    }
}
