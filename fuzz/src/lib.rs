//! What targets of more than one dialect assert: that a message means the same however often it is decoded, that what was
//! decoded lies within the limits, and that an error is short.

use kvd::command::{Absent, Command, ErrorCode, Expiry, Limits, MAX_KEY, MAX_SCAN_COUNT, NewCounter};
use kvd::mutation::{Key, PICKLED};
use kvd::wire::{Asked, Dialect, WireError};

/// Small, so that a fuzzer often comes near them.
pub const LIMITS: Limits = Limits { max_value: 64 };

/// Most bytes of an error's message: the longest form, or a quotation of 32 bytes escaped.
const LONGEST_MESSAGE: usize = 256;

/// Asserts that a message means the same when it is decoded again, whatever was decoded in between. kvd may do so: what a
/// pass has no time for is decoded once more in the next one.
pub fn assert_same_when_decoded_again(body: &[&[u8]]) {
    let dialect = Dialect::of(body);
    let (mut clean, mut dirty) = (Vec::new(), b"left over from another request".to_vec());
    let first = dialect.decode(body, &LIMITS, &mut clean);
    let again = dialect.decode(body, &LIMITS, &mut dirty);
    match (first, again) {
        (Ok(Asked::One(first)), Ok(Asked::One(again))) => assert_eq!(first, again),
        (Ok(Asked::List(first)), Ok(Asked::List(again))) => assert!(first.eq(again), "another list"),
        (Err(first), Err(again)) => assert_eq!(first, again),
        (first, again) => panic!("{first:?}, and then {again:?}"),
    }
}

/// Asserts that a command is one that the engine may be given.
pub fn assert_within_limits(command: &Command<'_>) {
    for key in keys(command) {
        assert!((1..=MAX_KEY).contains(&key.bytes.len()));
    }
    let fits = |value: &[u8]| value.len() <= LIMITS.max_value;
    match command {
        Command::Set { value, options, .. } => assert!(value.len() <= LIMITS.max_value && is_stored(options.expiry)),
        Command::SetMany { pairs } => assert!(!pairs.is_empty() && pairs.iter().all(|(_, value)| fits(value))),
        Command::Extend { bytes, .. } => assert!(fits(bytes)),
        Command::SetEntries { entries, expiry } => {
            assert!(!entries.is_empty() && entries.iter().all(|entry| fits(entry.value)) && is_stored(*expiry));
        }
        Command::Increment { absent: Absent::Make(NewCounter { expiry, flags, .. }), .. } => {
            assert!(is_stored(*expiry) && flags & PICKLED == 0);
        }
        Command::Touch { expiry, .. } | Command::GetTouch { expiry, .. } => assert!(is_stored(*expiry)),
        Command::Scan { prefix, count, .. } => {
            assert!(prefix.len() <= MAX_KEY && (1..=MAX_SCAN_COUNT).contains(count));
        }
        Command::Flush { prefix: Some(prefix) } => assert!(prefix.len() <= MAX_KEY),
        Command::Delete { keys }
        | Command::Exists { keys }
        | Command::GetMany { keys }
        | Command::GetEntries { keys } => assert!(!keys.is_empty()),
        _ => {}
    }
}

/// Asserts that an error blames the input, and does not grow with it.
pub fn assert_short(error: &WireError) {
    assert!(matches!(error.code, ErrorCode::BadCommand | ErrorCode::BadArgument | ErrorCode::TooBig));
    assert!(error.message.is_ascii() && error.message.len() <= LONGEST_MESSAGE, "{error}");
}

/// The keys of a command that takes a list of them; none of any other.
pub fn listed<'a>(command: &Command<'a>) -> Vec<Key<'a>> {
    match command {
        Command::Delete { keys }
        | Command::Exists { keys }
        | Command::GetMany { keys }
        | Command::GetEntries { keys } => keys.clone(),
        Command::SetEntries { entries, .. } => entries.iter().map(|entry| entry.key).collect(),
        Command::SetMany { pairs } => pairs.iter().map(|(key, _)| *key).collect(),
        _ => Vec::new(),
    }
}

/// The keys of any command.
pub fn keys<'a>(command: &Command<'a>) -> Vec<Key<'a>> {
    match command {
        Command::Get { key }
        | Command::Set { key, .. }
        | Command::Increment { key, .. }
        | Command::Extend { key, .. }
        | Command::Touch { key, .. }
        | Command::GetTouch { key, .. }
        | Command::DeleteIf { key, .. }
        | Command::TimeToLive { key }
        | Command::GetDelete { key } => vec![*key],
        _ => listed(command),
    }
}

fn is_stored(expiry: Expiry) -> bool {
    match expiry {
        Expiry::Never => true,
        Expiry::In(milliseconds) => milliseconds != 0 && i64::try_from(milliseconds).is_ok(),
        Expiry::At(at) => i64::try_from(at).is_ok(),
    }
}
