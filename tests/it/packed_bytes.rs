//! The packed dialect, byte by byte: each command and each reply as typed by hand from the page that describes them, what
//! is refused as a whole and what only by itself, and that no bytes do any harm.

use crate::packed_codec::{Told, message, replies};
use kvd::command::{
    Absent, COUNT_WEIGHT, Command, Condition, DEFAULT_SCAN_COUNT, End, ErrorCode, Expiry, Limits, MAX_BODY_FRAMES,
    MAX_KEY, MAX_PACKED_COMMANDS, MAX_SCAN_COUNT, NewCounter, NewEntry, Reply, SCAN_WEIGHT, SetOptions, StoredValue,
};
use kvd::mutation::{Key, PICKLED};
use kvd::wire::{WireError, packed};
use proptest::prelude::*;
use std::iter::repeat_n;

const LIMITS: Limits = Limits { max_value: 100 };
const K: Key<'_> = Key::bytes(b"k");
const L: Key<'_> = Key::bytes(b"l");

/// Decodes a message of one command, given without the mark and the count.
fn decode_one(command: &[u8]) -> Result<Result<Command<'static>, WireError>, WireError> {
    let message = [&[0x01, 1], command].concat().leak();
    packed::decode(message, &LIMITS).map(|mut commands| {
        assert_eq!(commands.len(), 1);
        commands.next().expect("one command")
    })
}

/// Asserts that these bytes are this command, and that a client writes it so.
fn golden(bytes: &[u8], command: &Command<'_>) {
    assert_eq!(decode_one(bytes), Ok(Ok(command.clone())), "{bytes:?}");
    assert_eq!(message(std::slice::from_ref(command))[2..], *bytes, "{command:?}");
}

#[test]
fn every_command() {
    golden(&[0], &Command::Ping);
    golden(&[1, 1, b'k'], &Command::Get { key: K });
    let set = |expiry, condition, flags| {
        let options = SetOptions { expiry, condition, flags };
        Command::Set { key: K, value: b"val".into(), options }
    };
    let start = [2, 1, b'k', 3, b'v', b'a', b'l'];
    let rest: [(&[u8], Command<'_>); 6] = [
        (&[0, 0, 0], set(Expiry::Never, Condition::Always, 0)),
        (&[1, 250, 1, 250], set(Expiry::In(250), Condition::Absent, 250)),
        (&[1, 251, 251, 0, 2, 251, 0xff, 0xff], set(Expiry::In(251), Condition::Present, 0xffff)),
        (&[2, 252, 0, 0, 1, 0, 3, 7, 0], set(Expiry::At(0x1_0000), Condition::Version(7), 0)),
        (
            &[2, 253, 0, 0, 0, 0, 1, 0, 0, 0, 0, 252, 0, 0, 0, 0x80],
            set(Expiry::At(1 << 32), Condition::Always, PICKLED),
        ),
        (
            &[0, 3, 253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
            set(Expiry::Never, Condition::Version(u64::MAX), 0),
        ),
    ];
    for (bytes, command) in rest {
        golden(&[&start, bytes].concat(), &command);
    }
    golden(&[2, 1, b'k', 0, 0, 0, 0], &Command::Set { key: K, value: b"".into(), options: SetOptions::default() });
    golden(&[3, 2, 1, b'k', 1, b'l'], &Command::Delete { keys: vec![K, L] });
    golden(&[4, 1, 1, b'k'], &Command::Exists { keys: vec![K] });
    golden(&[5, 2, 1, b'k', 1, b'k'], &Command::GetMany { keys: vec![K, K] });
    golden(&[6, 2, 1, b'k', 1, b'v', 1, b'l', 0], &Command::SetMany { pairs: vec![(K, b"v"), (L, b"")] });
    golden(&[7, 1, b'k', 0], &Command::Increment { key: K, delta: 0, absent: Absent::default() });
    golden(&[7, 1, b'k', 1], &Command::Increment { key: K, delta: -1, absent: Absent::default() });
    golden(&[7, 1, b'k', 2], &Command::Increment { key: K, delta: 1, absent: Absent::default() });
    golden(
        &[7, 1, b'k', 253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &Command::Increment { key: K, delta: i64::MIN, absent: Absent::default() },
    );
    golden(&[8, 1, b'k', 2, b'x', b'y'], &Command::Extend { key: K, bytes: b"xy", end: End::Back });
    golden(&[9, 1, b'k', 0], &Command::Extend { key: K, bytes: b"", end: End::Front });
    golden(&[10, 1, b'k', 0], &Command::Touch { key: K, expiry: Expiry::Never });
    golden(&[10, 1, b'k', 251, 0xe8, 3], &Command::Touch { key: K, expiry: Expiry::In(1000) });
    golden(&[11, 1, b'k'], &Command::TimeToLive { key: K });
    golden(&[12, 1, b'k'], &Command::GetDelete { key: K });
    golden(&[13, 0, 0, 7], &Command::Scan { cursor: 0, prefix: b"", count: 7 });
    golden(&[13, 251, 0, 1, 2, b'u', b':', 1], &Command::Scan { cursor: 256, prefix: b"u:", count: 1 });
    golden(&[14], &Command::Count);
    golden(&[15, 0], &Command::Flush { prefix: None });
    golden(&[15, 1, 0], &Command::Flush { prefix: Some(b"") });
    golden(&[15, 1, 1, b'k'], &Command::Flush { prefix: Some(b"k") });
    golden(&[16], &Command::Sync);
    golden(&[17], &Command::Compact);
    golden(&[18], &Command::Stats);
    golden(&[19], &Command::Version);
    golden(&[20, 2, 1, b'k', 1, b'l'], &Command::GetEntries { keys: vec![K, L] });
    let entries = vec![NewEntry { key: K, value: b"v", flags: 0 }, NewEntry { key: L, value: b"", flags: PICKLED | 7 }];
    golden(
        &[21, 0, 2, 1, b'k', 1, b'v', 0, 1, b'l', 0, 252, 7, 0, 0, 0x80],
        &Command::SetEntries { entries: entries.clone(), expiry: Expiry::Never },
    );
    golden(
        &[21, 1, 250, 1, 1, b'k', 1, b'v', 0],
        &Command::SetEntries { entries: entries[..1].to_vec(), expiry: Expiry::In(250) },
    );
    golden(
        &[21, 2, 251, 0, 1, 1, 1, b'k', 1, b'v', 0],
        &Command::SetEntries { entries: entries[..1].to_vec(), expiry: Expiry::At(256) },
    );
    golden(&[22, 1, b'k', 251, 0, 1], &Command::DeleteIf { key: K, version: 256 });
    golden(&[23, 1, b'k', 1, 0], &Command::Increment { key: K, delta: -1, absent: Absent::Miss });
    let counter = |initial, expiry, flags| Command::Increment {
        key: K,
        delta: 2,
        absent: Absent::Make(NewCounter { initial, expiry, flags }),
    };
    golden(&[23, 1, b'k', 4, 1, 3, 0, 0], &counter(-2, Expiry::Never, 0));
    golden(&[23, 1, b'k', 4, 1, 0, 1, 60, 9], &counter(0, Expiry::In(60), 9));
    golden(&[23, 1, b'k', 4, 1, 0, 2, 7, 252, 0xff, 0xff, 0xff, 0x7f], &counter(0, Expiry::At(7), PICKLED - 1));
    golden(&[24, 1, b'k', 0], &Command::GetTouch { key: K, expiry: Expiry::Never });
    golden(&[24, 1, b'k', 1, 9], &Command::GetTouch { key: K, expiry: Expiry::In(9) });
    golden(&[24, 1, b'k', 2, 9], &Command::GetTouch { key: K, expiry: Expiry::At(9) });
}

#[test]
fn what_has_two_spellings() {
    let set = Command::Set { key: K, value: b"".into(), options: SetOptions::default() };
    assert_eq!(decode_one(&[2, 1, b'k', 0, 1, 0, 0, 0]), Ok(Ok(set)), "in 0 ms is never");
    let scan = |count| Ok(Ok(Command::Scan { cursor: 0, prefix: b"", count }));
    assert_eq!(decode_one(&[13, 0, 0, 0]), scan(DEFAULT_SCAN_COUNT));
    assert_eq!(decode_one(&[13, 0, 0, 252, 0xff, 0xff, 0xff, 0xff]), scan(MAX_SCAN_COUNT));
    let get = Ok(Ok(Command::Get { key: K }));
    assert_eq!(decode_one(&[251, 1, 0, 252, 1, 0, 0, 0, b'k']), get, "numbers may be longer than they need be");
}

#[test]
fn an_empty_list_is_a_list() {
    assert_eq!(packed::decode(&[0x01, 0], &LIMITS).map(Iterator::count), Ok(0));
    let mut reply = Vec::new();
    packed::begin(0, &mut reply);
    assert_eq!(reply, [0x01, 0]);
}

/// Asserts that a whole message is refused, with this code and a text that holds all of these.
#[track_caller]
fn refused(message: &[u8], code: ErrorCode, texts: &[&str]) {
    let error = packed::decode(message, &LIMITS).expect_err("no list of commands");
    assert_eq!(error.code, code, "{error}");
    for text in texts {
        assert!(error.message.contains(text), "{text} is not in: {error}");
    }
}

#[test]
fn bytes_that_are_no_list_are_refused_as_a_whole() {
    use ErrorCode::{BadArgument, BadCommand, TooBig};
    refused(&[0x01], BadArgument, &["number of commands"]);
    refused(&[0x01, 251, 1], BadArgument, &["number of commands"]);
    refused(&[0x01, 255], BadArgument, &["number of commands"]);
    refused(&[0x01, 1], BadArgument, &["command 1 of 1", "byte 2", "cut short"]);
    refused(&[0x01, 2, 0], BadArgument, &["command 2 of 2", "byte 3", "cut short"]);
    refused(&[0x01, 2, 0, 25], BadCommand, &["command 2 of 2", "byte 3", "index 25"]);
    refused(&[0x01, 1, 252, 0, 0, 0, 1], BadCommand, &["index 16777216"]);
    refused(&[0x01, 1, 1, 9, b'k'], BadArgument, &["command 1 of 1", "cut short"]);
    refused(&[0x01, 1, 1, 253, 255, 255, 255, 255, 255, 255, 255, 255], BadArgument, &["cut short"]);
    refused(&[0x01, 1, 0, 0, 0], BadArgument, &["2 bytes follow"]);
    let choice = "choice";
    refused(&[0x01, 1, 15, 2], BadArgument, &[choice]);
    refused(&[0x01, 1, 2, 1, b'k', 0, 3, 0, 0], BadArgument, &[choice]);
    refused(&[0x01, 1, 2, 1, b'k', 0, 0, 4, 0], BadArgument, &[choice]);
    refused(&[0x01, 1, 2, 1, b'k', 0, 0, 0, 253, 0, 0, 0, 0, 0, 0, 0, 0], BadArgument, &[choice]);
    refused(&[0x01, 251, 0x01, 0x10], TooBig, &["4097", "4096"]);
    refused(&[0x01, 253, 255, 255, 255, 255, 255, 255, 255, 255], TooBig, &["4096"]);
}

#[test]
fn a_message_weighs_what_its_commands_do() {
    let weight = |commands: &[Command<'_>]| {
        packed::decode(&message(commands), &LIMITS).map(|commands| commands.weight()).expect("a list")
    };
    let three = vec![K; 3];
    for (command, of_one) in [
        (Command::Get { key: K }, 1),
        (Command::GetMany { keys: three.clone() }, 4),
        (Command::Exists { keys: three.clone() }, 4),
        (Command::Delete { keys: three }, 4),
        (Command::SetMany { pairs: vec![(K, b""); 2] }, 3),
        (Command::Scan { cursor: 0, prefix: b"", count: 1 }, 1 + SCAN_WEIGHT),
        (Command::Count, 1 + COUNT_WEIGHT),
        (Command::Flush { prefix: None }, 1 + COUNT_WEIGHT),
        (Command::Stats, 1 + COUNT_WEIGHT),
    ] {
        assert_eq!(weight(&[Command::Ping, command.clone(), command.clone()]), 1 + 2 * of_one, "{command:?}");
    }
}

#[test]
fn as_many_commands_and_keys_as_may_be() {
    let pings = vec![Command::Ping; MAX_PACKED_COMMANDS];
    assert_eq!(packed::decode(&message(&pings), &LIMITS).map(Iterator::count), Ok(MAX_PACKED_COMMANDS));

    let half = Command::Delete { keys: vec![K; MAX_BODY_FRAMES / 2] };
    let other = Command::SetMany { pairs: vec![(K, b""); MAX_BODY_FRAMES / 2] };
    let most = [half, Command::Get { key: K }, other];
    assert!(packed::decode(&message(&most), &LIMITS).is_ok());
    let more = [&most[..], &[Command::Exists { keys: vec![K] }]].concat();
    refused(&message(&more), ErrorCode::TooBig, &["command 4 of 4", "131073", "131072"]);
    // A list that announces too much is not looked at any further.
    refused(&[0x01, 1, 5, 252, 0, 0, 0, 1], ErrorCode::TooBig, &["16777216"]);
    refused(&[0x01, 2, 5, 1, 1, b'k', 5, 253, 255, 255, 255, 255, 255, 255, 255, 255], ErrorCode::TooBig, &["131072"]);
}

#[test]
fn a_command_that_may_not_be_costs_only_itself() {
    let long = vec![b'k'; MAX_KEY + 1];
    let large = vec![0; LIMITS.max_value + 1];
    let key = Key::bytes(&long);
    let empty = Key::bytes(b"");
    let options = SetOptions::default();
    let late = SetOptions { expiry: Expiry::At(1 << 63), ..options };
    let entry = |value| NewEntry { key: K, value, flags: 0 };
    let pickled = Absent::Make(NewCounter { flags: PICKLED, ..NewCounter::default() });
    let wrong = [
        (Command::Get { key: empty }, ErrorCode::BadArgument),
        (Command::Get { key }, ErrorCode::TooBig),
        (Command::Set { key: K, value: (&large[..]).into(), options }, ErrorCode::TooBig),
        (Command::Set { key: K, value: b"".into(), options: late }, ErrorCode::BadArgument),
        (Command::Touch { key: K, expiry: Expiry::In(u64::MAX) }, ErrorCode::BadArgument),
        (Command::Extend { key: K, bytes: &large, end: End::Back }, ErrorCode::TooBig),
        (Command::GetMany { keys: Vec::new() }, ErrorCode::BadArgument),
        (Command::SetMany { pairs: Vec::new() }, ErrorCode::BadArgument),
        (Command::Delete { keys: vec![K, empty] }, ErrorCode::BadArgument),
        (Command::SetMany { pairs: vec![(K, b""), (L, &large)] }, ErrorCode::TooBig),
        (Command::GetEntries { keys: Vec::new() }, ErrorCode::BadArgument),
        (Command::SetEntries { entries: Vec::new(), expiry: Expiry::Never }, ErrorCode::BadArgument),
        (Command::SetEntries { entries: vec![entry(&large)], expiry: Expiry::Never }, ErrorCode::TooBig),
        (Command::SetEntries { entries: vec![entry(b"")], expiry: Expiry::At(u64::MAX) }, ErrorCode::BadArgument),
        (Command::DeleteIf { key: empty, version: 1 }, ErrorCode::BadArgument),
        (Command::Increment { key: K, delta: 1, absent: pickled }, ErrorCode::BadArgument),
        (Command::GetTouch { key: K, expiry: Expiry::In(u64::MAX) }, ErrorCode::BadArgument),
        (Command::Scan { cursor: 0, prefix: &long, count: 1 }, ErrorCode::TooBig),
        (Command::Flush { prefix: Some(&long) }, ErrorCode::TooBig),
    ];
    let list: Vec<_> = wrong.iter().flat_map(|(command, _)| [command.clone(), Command::Get { key: K }]).collect();
    let bytes = message(&list);
    let decoded: Vec<_> = packed::decode(&bytes, &LIMITS).expect("a list").collect();
    assert_eq!(decoded.len(), list.len());
    for (pair, (command, code)) in decoded.chunks(2).zip(&wrong) {
        assert_eq!(pair[0].as_ref().map_err(|error| error.code), Err(*code), "{command:?}");
        assert_eq!(pair[1], Ok(Command::Get { key: K }));
    }
    let longest = vec![b'k'; MAX_KEY];
    let allowed = [
        Command::Get { key: Key::bytes(&longest) },
        Command::Set { key: K, value: (&large[1..]).into(), options: SetOptions { flags: u32::MAX, ..options } },
    ];
    let bytes = message(&allowed);
    let decoded: Result<Vec<_>, _> = packed::decode(&bytes, &LIMITS).expect("a list").collect();
    assert_eq!(decoded.as_deref(), Ok(&allowed[..]));
}

#[test]
fn every_reply() {
    let text = |text: &str| text.to_owned();
    let kvd = env!("CARGO_PKG_VERSION");
    let version = [&[11, kvd.len() as u8], kvd.as_bytes(), &[2]].concat();
    let figures = vec![("keys", text("7")), ("up", text(""))];
    let told_figures = vec![(text("keys"), text("7")), (text("up"), text(""))];
    let cases: Vec<(Reply<'_>, &[u8], Told)> = vec![
        (Reply::Pong, &[0], Told::Pong),
        (Reply::Done, &[1], Told::Done),
        (Reply::Stored(250), &[2, 250], Told::Stored(250)),
        (Reply::Stored(70_000), &[2, 252, 0x70, 0x11, 1, 0], Told::Stored(70_000)),
        (Reply::Number(-1), &[3, 1], Told::Number(-1)),
        (Reply::Number(200), &[3, 251, 0x90, 1], Told::Number(200)),
        (Reply::Number(i64::MAX), &[3, 253, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Told::Number(i64::MAX)),
        (Reply::Miss, &[4], Told::Miss),
        (Reply::Exists, &[5], Told::Exists),
        (Reply::Conflict(251), &[6, 251, 251, 0], Told::Conflict(251)),
        (
            Reply::Value(StoredValue { bytes: b"val", version: 9, flags: PICKLED }),
            &[7, 3, b'v', b'a', b'l', 9, 252, 0, 0, 0, 0x80],
            Told::Value { bytes: b"val".to_vec(), version: 9, flags: PICKLED },
        ),
        (
            Reply::Values(vec![Some(b"v"), None, Some(b"")]),
            &[8, 3, 1, 1, b'v', 0, 1, 0],
            Told::Values(vec![Some(b"v".to_vec()), None, Some(Vec::new())]),
        ),
        (
            Reply::Page { cursor: 3, keys: vec![b"k", b"lm"] },
            &[9, 3, 2, 1, b'k', 2, b'l', b'm'],
            Told::Page { cursor: 3, keys: vec![b"k".to_vec(), b"lm".to_vec()] },
        ),
        (Reply::Page { cursor: 0, keys: Vec::new() }, &[9, 0, 0], Told::Page { cursor: 0, keys: Vec::new() }),
        (Reply::Stats(figures), b"\x0a\x02\x04keys\x017\x02up\x00", Told::Stats(told_figures)),
        (Reply::Version, &version, Told::Version { kvd: text(kvd), protocol: 2 }),
        (
            Reply::Error(ErrorCode::NoSpace, "full".into()),
            b"\x0c\x07NOSPACE\x04full",
            Told::Error { code: text("NOSPACE"), message: text("full") },
        ),
        (
            Reply::Entries(vec![None, Some(StoredValue { bytes: b"v", version: 300, flags: PICKLED | 1 })]),
            &[13, 2, 0, 1, 1, b'v', 251, 0x2c, 1, 252, 1, 0, 0, 0x80],
            Told::Entries(vec![None, Some((b"v".to_vec(), 300, PICKLED | 1))]),
        ),
    ];
    let mut list = Vec::new();
    packed::begin(cases.len(), &mut list);
    for (reply, bytes, told) in &cases {
        let mut alone = Vec::new();
        packed::encode(reply, &mut alone);
        assert_eq!(alone, *bytes, "{reply:?}");
        let frame = [&[0x01, 1], *bytes].concat();
        assert_eq!(replies(&frame).as_deref(), Some(std::slice::from_ref(told)));
        packed::encode(reply, &mut list);
    }
    let told: Vec<_> = cases.into_iter().map(|(_, _, told)| told).collect();
    assert_eq!(replies(&list), Some(told), "replies stand one behind the other");
}

/// A message with every command in it.
fn everything() -> Vec<u8> {
    let options = SetOptions { expiry: Expiry::In(300), condition: Condition::Version(70_000), flags: PICKLED };
    message(&[
        Command::Ping,
        Command::Get { key: K },
        Command::Set { key: K, value: (&[7; 60]).into(), options },
        Command::Set { key: K, value: b"".into(), options: SetOptions::default() },
        Command::Delete { keys: vec![K, L] },
        Command::Exists { keys: vec![K] },
        Command::GetMany { keys: vec![K, L, K] },
        Command::SetMany { pairs: vec![(K, b"v"), (L, b"")] },
        Command::Increment { key: K, delta: i64::MIN, absent: Absent::default() },
        Command::Extend { key: K, bytes: b"xy", end: End::Back },
        Command::Extend { key: K, bytes: b"xy", end: End::Front },
        Command::Touch { key: K, expiry: Expiry::In(1) },
        Command::TimeToLive { key: K },
        Command::GetDelete { key: K },
        Command::Scan { cursor: u64::MAX, prefix: b"u:", count: 300 },
        Command::Count,
        Command::Flush { prefix: Some(b"u:") },
        Command::Flush { prefix: None },
        Command::Sync,
        Command::Compact,
        Command::Stats,
        Command::Version,
        Command::GetEntries { keys: vec![K, L] },
        Command::SetEntries { entries: vec![NewEntry { key: K, value: b"v", flags: 300 }], expiry: Expiry::At(300) },
        Command::DeleteIf { key: K, version: 70_000 },
        Command::Increment { key: K, delta: 1, absent: Absent::Miss },
        Command::Increment {
            key: K,
            delta: 1,
            absent: Absent::Make(NewCounter { initial: i64::MIN, expiry: Expiry::In(300), flags: 300 }),
        },
        Command::GetTouch { key: K, expiry: Expiry::In(300) },
    ])
}

/// Decodes all of a message, if it can be.
fn decodes(message: &[u8]) -> bool {
    let Ok(commands) = packed::decode(message, &LIMITS) else { return false };
    let announced = commands.len();
    assert_eq!(commands.count(), announced);
    true
}

#[test]
fn every_cut_is_refused_as_a_whole() {
    let message = everything();
    assert!(decodes(&message));
    for end in 0..message.len() {
        assert!(!decodes(&message[..end]), "cut at {end} of {}", message.len());
    }
}

#[test]
fn no_changed_byte_does_any_harm() {
    let original = everything();
    let mut message = original.clone();
    for at in 1..message.len() {
        for byte in 0..=255 {
            message[at] = byte;
            decodes(&message);
        }
        message[at] = original[at];
    }
    assert_eq!(message, original);
}

/// A command made of these parts, by number.
fn command<'a>(kind: u8, key: &'a [u8], value: &'a [u8], numbers: (u64, u64, u32)) -> Command<'a> {
    let (first, second, flags) = numbers;
    let name = Key::bytes(key);
    let times = first >> 1;
    let keys = || repeat_n(name, 1 + second as usize % 5).collect();
    let expiry = [Expiry::Never, Expiry::In(times.max(1)), Expiry::At(times)][second as usize % 3];
    match kind {
        0 => Command::Ping,
        1 => Command::Get { key: name },
        2 => {
            let condition = [Condition::Always, Condition::Absent, Condition::Present, Condition::Version(second)];
            let options = SetOptions { expiry, condition: condition[first as usize % 4], flags };
            Command::Set { key: name, value: value.into(), options }
        }
        3 => Command::Delete { keys: keys() },
        4 => Command::Exists { keys: keys() },
        5 => Command::GetMany { keys: keys() },
        6 => Command::SetMany { pairs: repeat_n((name, value), 1 + second as usize % 5).collect() },
        7 => Command::Increment { key: name, delta: first.cast_signed(), absent: Absent::default() },
        8 => Command::Extend { key: name, bytes: value, end: End::Back },
        9 => Command::Extend { key: name, bytes: value, end: End::Front },
        10 => Command::Touch { key: name, expiry: if times == 0 { Expiry::Never } else { Expiry::In(times) } },
        11 => Command::TimeToLive { key: name },
        12 => Command::GetDelete { key: name },
        13 => Command::Scan { cursor: first, prefix: value, count: 1 + second as usize % MAX_SCAN_COUNT },
        14 => Command::Count,
        15 => Command::Flush { prefix: (second % 2 == 0).then_some(value) },
        16 => Command::Sync,
        17 => Command::Compact,
        18 => Command::Stats,
        19 => Command::Version,
        20 => Command::GetEntries { keys: keys() },
        21 => Command::SetEntries {
            entries: repeat_n(NewEntry { key: name, value, flags }, 1 + second as usize % 5).collect(),
            expiry,
        },
        22 => Command::DeleteIf { key: name, version: first },
        23 if second % 3 == 0 => Command::Increment { key: name, delta: first.cast_signed(), absent: Absent::Miss },
        23 => {
            let absent = NewCounter { initial: second.cast_signed(), expiry, flags: flags & !PICKLED };
            Command::Increment { key: name, delta: first.cast_signed(), absent: Absent::Make(absent) }
        }
        _ => Command::GetTouch { key: name, expiry },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_list_comes_back_as_it_was_spelled(
        parts in prop::collection::vec((
            0..25_u8,
            prop::collection::vec(any::<u8>(), 1..300),
            prop::collection::vec(any::<u8>(), 0..100),
            (any::<u64>(), prop_oneof![any::<u64>(), 0..300_u64], any::<u32>()),
        ), 0..40),
    ) {
        let commands: Vec<_> =
            parts.iter().map(|(kind, key, value, numbers)| command(*kind, key, value, *numbers)).collect();
        let bytes = message(&commands);
        let decoded: Result<Vec<_>, _> = packed::decode(&bytes, &LIMITS).expect("a list").collect();
        prop_assert_eq!(decoded, Ok(commands));
    }

    #[test]
    fn no_bytes_panic_and_errors_stay_short(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let message = [&[0x01][..], &bytes].concat();
        if let Err(error) = packed::decode(&message, &LIMITS) {
            prop_assert!(error.message.len() <= 256 && error.message.is_ascii(), "{}", error);
        }
    }
}
