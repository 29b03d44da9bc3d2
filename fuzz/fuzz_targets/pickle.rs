//! Any bytes at all as a pickled request.
//!
//! Holds that decoding never panics, gives the same answer twice and whatever the scratch held before, keeps
//! to the limits, and that what a set stores is its message with one byte replaced: the opcode that closes the tuple, by
//! STOP. Knows nothing of what the data means; `tests/it/pickle.rs` asks CPython that. The seeds were
//! written by `tests/python/make_pickles.py seeds`.

#![no_main]

use kvd::command::{Command, Limits, MAX_KEY, SetOptions};
use kvd::mutation::{Key, PICKLED, Space};
use kvd::wire::pickle::{decode, is_key, restore};
use kvd_fuzz::assert_same_when_decoded_again;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_value: 1 << 20 };
const STOP: u8 = b'.';

fuzz_target!(|message: &[u8]| {
    assert_same_when_decoded_again(&[message]);
    match decode(message, &LIMITS, &mut Vec::new()) {
        Ok(Command::Get { key }) => check_key(key),
        Ok(Command::Set { key, value, options }) => {
            check_key(key);
            assert_eq!(options, SetOptions { flags: PICKLED, ..SetOptions::default() });
            check_value(message, key, &value.to_vec());
        }
        Ok(other) => panic!("{other:?} from a pickle"),
        Err(refusal) => assert!(refusal.message.len() < 200, "a refusal as long as what it refuses"),
    }
});

fn check_key(key: Key<'_>) {
    assert!((1..=MAX_KEY).contains(&key.bytes.len()));
    if key.space == Space::Python {
        assert_eq!(items(key.bytes), 1, "an encoding that is not one item: {key:?}");
        assert!(is_key(key.bytes), "an encoding that is not known as one: {key:?}");
    }
}

/// How many items an encoding holds, read back front to back.
fn items(mut encoding: &[u8]) -> usize {
    let mut items = 0;
    while let [tag, rest @ ..] = encoding {
        let counted = |rest: &[u8]| usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let (length, taken) = match tag {
            b'N' => (0, 0),
            b'F' => (8, 0),
            b'T' => (2, counted(rest)),
            b'B' | b'S' => (2 + counted(rest), 0),
            b'+' | b'-' => {
                let length = 2 + counted(rest);
                assert!(length == 2 || rest[length - 1] != 0, "an integer with zeros at its end");
                (length, 0)
            }
            _ => panic!("no tag: {tag}"),
        };
        encoding = &rest[length..];
        items = items + 1 - taken;
    }
    items
}

fn check_value(message: &[u8], key: Key<'_>, value: &[u8]) {
    assert_eq!(value.len(), message.len());
    let mut changed = (0..message.len()).filter(|&at| message[at] != value[at]);
    let at = changed.next().expect("one byte changes");
    assert_eq!(changed.next(), None, "one byte alone changes");
    assert!(matches!(message[at], b't' | 0x87) && value[at] == STOP);
    assert_eq!(message.last(), Some(&STOP));

    // The value is no request any more. What it came from can be told from it, and is the same one.
    assert!(decode(value, &LIMITS, &mut Vec::new()).is_err());
    assert_eq!(restore(value).as_deref(), Some(message));
    let mut scratch = Vec::new();
    let again = decode(message, &LIMITS, &mut scratch);
    assert!(matches!(again, Ok(Command::Set { key: same, .. }) if same == key));

    // Nothing after the end is overlooked, nothing before it is spare.
    for more in [&b"."[..], b"N", b"\x80"] {
        assert!(decode(&[message, more].concat(), &LIMITS, &mut Vec::new()).is_err());
    }
    assert!(decode(&message[..message.len() - 1], &LIMITS, &mut Vec::new()).is_err());
}
