//! The canonical encoding of Python keys: two keys have the same bytes exactly when they are equal in Python.
//!
//! Knows parts of keys and no pickle. A key that is a `str` is not encoded at all: its UTF-8 bytes are the
//! key, in the space that frames use. Every other key is the bytes below, in [`Space::Python`].
//!
//! | Python | bytes |
//! |---|---|
//! | `None` | `N` |
//! | `0`, `False`, `0.0`, `-0.0`, and any number above that is an integer: `1 == 1.0 == True` | `+`, length, the absolute value, little-endian, without zero bytes at its end |
//! | any number below 0 that is an integer | `-`, length, the absolute value likewise |
//! | any other `float`, infinities included | `F`, the 8 bytes of the IEEE 754 double, big-endian |
//! | `bytes` | `B`, length, the bytes |
//! | `str`, inside of a tuple | `S`, length, UTF-8, a lone surrogate as three bytes |
//! | `tuple` | its items one after the other, then `T`, their number |
//!
//! Lengths and numbers of items are two bytes, big-endian: a key ends at 65,536 bytes, which its own tag and
//! length are part of.
//!
//! The tag of a tuple follows its items, so that an encoding is written once, front to back, however deep it
//! is. It stays unambiguous as postfix notation does: every tag but `T` begins an item whose end is known,
//! and `T` takes a known number of them.
//!
//! `nan` has no encoding. It is not equal to itself, so no key would be equal to it.
//!
//! [`Space::Python`]: crate::mutation::Space::Python

use super::number::Number;
use super::text::check_utf8;
use super::tree::{Part, Tree, no_key};
use super::{room, too_big};
use crate::command::MAX_KEY;
use crate::wire::WireError;

/// Appends the encoding of a part of a tree. It stops as soon as it is longer than a key may be, which a small
/// tree can be whose parts are in many places.
pub(super) fn encode<'t>(tree: &'t Tree<'_>, root: u32, into: &mut Vec<u8>) -> Result<(), WireError> {
    /// Items still to be written of a tuple, and the number of all.
    type Open<'t> = (std::slice::Iter<'t, u32>, usize);
    let mut open: Vec<Open<'t>> = Vec::new();
    let mut next = Some(root);
    loop {
        #[cfg(test)]
        super::meter::step();
        if let Some(id) = next {
            match tree.part(id).ok_or_else(no_key)? {
                Part::Tuple(items) => {
                    let items = tree.items(items);
                    open.push((items.iter(), items.len()));
                }
                leaf => encode_leaf(leaf, into)?,
            }
        } else {
            let Some((_, items)) = open.pop() else { return Ok(()) };
            room(into, 3)?;
            into.push(b'T');
            into.extend_from_slice(&length(items)?);
        }
        next = match open.last_mut() {
            Some((items, _)) => items.next().copied(),
            None => return Ok(()),
        };
    }
}

/// Whether bytes are the encoding of a key: what [`encode`] writes of one, and nothing else.
pub(super) fn is_encoding(bytes: &[u8]) -> bool {
    let (mut rest, mut items, mut root) = (bytes, 0_usize, 0);
    while let Some((&tag, after)) = rest.split_first() {
        let Some((taken, after)) = item(tag, after) else { return false };
        let Some(below) = items.checked_sub(taken) else { return false };
        (items, rest, root) = (below + 1, after, tag);
    }
    // A `str` by itself is a key of the space that frames use.
    items == 1 && root != b'S' && bytes.len() <= MAX_KEY
}

/// Reads what follows a tag. Returns how many of the items before it are its own, and what comes after it.
fn item(tag: u8, bytes: &[u8]) -> Option<(usize, &[u8])> {
    if tag == b'N' {
        return Some((0, bytes));
    }
    if tag == b'F' {
        let (float, rest) = bytes.split_first_chunk()?;
        let float = f64::from_be_bytes(*float);
        return (float.is_infinite() || float.fract().abs() > 0.0).then_some((0, rest));
    }
    let (number, rest) = bytes.split_first_chunk()?;
    let number = usize::from(u16::from_be_bytes(*number));
    if tag == b'T' {
        return Some((number, rest));
    }
    let (content, rest) = rest.split_at_checked(number)?;
    let is_right = match tag {
        b'B' => true,
        b'S' => check_utf8(content).is_ok(),
        b'+' => content.last() != Some(&0),
        b'-' => content.last().is_some_and(|&last| last != 0),
        _ => false,
    };
    is_right.then_some((0, rest))
}

fn encode_leaf(leaf: &Part<'_>, into: &mut Vec<u8>) -> Result<(), WireError> {
    match leaf {
        Part::None => {
            room(into, 1)?;
            into.push(b'N');
            Ok(())
        }
        Part::Str(text) => counted(b'S', into, |into| text.append_utf8(into)),
        Part::Latin1(text) => counted(b'B', into, |into| text.append_latin1(into)),
        Part::Bytes(bytes) => counted(b'B', into, |into| append(bytes, into)),
        Part::Number(Number::Integer { negative, magnitude }) => {
            counted(if *negative { b'-' } else { b'+' }, into, |into| append(magnitude, into))
        }
        Part::Number(Number::Float(float)) => {
            room(into, 9)?;
            into.push(b'F');
            into.extend_from_slice(&float.to_be_bytes());
            Ok(())
        }
        Part::Tuple(_) | Part::Encode | Part::BytesClass | Part::ClassByName => Err(no_key()),
    }
}

/// Appends a tag, a length, and that many bytes.
fn counted(
    tag: u8,
    into: &mut Vec<u8>,
    append: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    room(into, 3)?;
    into.extend_from_slice(&[tag, 0, 0]);
    let start = into.len();
    append(into)?;
    let length = length(into.len() - start)?;
    if let Some(place) = into.get_mut(start - 2..start) {
        place.copy_from_slice(&length);
    }
    Ok(())
}

fn append(bytes: &[u8], into: &mut Vec<u8>) -> Result<(), WireError> {
    room(into, bytes.len())?;
    into.extend_from_slice(bytes);
    Ok(())
}

fn length(length: usize) -> Result<[u8; 2], WireError> {
    u16::try_from(length).map(u16::to_be_bytes).map_err(|_| too_big())
}

#[cfg(test)]
mod tests {
    use super::is_encoding;
    use crate::command::{Command, ErrorCode, Limits};
    use crate::wire::pickle::{decode, meter};

    /// The encoding of the key that these instructions make.
    fn encoding(instructions: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let message = [b"\x80\x04\x8c\x03get\x94", instructions, b"N\x87."].concat();
        let mut scratch = Vec::new();
        match decode(&message, &Limits::default(), &mut scratch) {
            Ok(Command::Get { key }) => Ok(key.bytes.to_vec()),
            Ok(other) => panic!("{other:?} of a get"),
            Err(refusal) => Err(refusal.code),
        }
    }

    #[test]
    fn byte_by_byte() {
        for (instructions, bytes) in [
            (&b"N"[..], &b"N"[..]),
            (b"K\x00", b"+\0\0"),
            (b"\x89", b"+\0\0"),
            (b"I00\n", b"+\0\0"),
            (b"G\x80\0\0\0\0\0\0\0", b"+\0\0"),
            (b"\x88", b"+\0\x01\x01"),
            (b"I01\n", b"+\0\x01\x01"),
            (b"F1.0\n", b"+\0\x01\x01"),
            (b"\x8a\x01\x01", b"+\0\x01\x01"),
            (b"J\xff\xff\xff\xff", b"-\0\x01\x01"),
            (b"M\x00\x01", b"+\0\x02\0\x01"),
            (b"L-256L\n", b"-\0\x02\0\x01"),
            (b"F1.5\n", b"F\x3f\xf8\0\0\0\0\0\0"),
            (b"F-inf\n", b"F\xff\xf0\0\0\0\0\0\0"),
            (b"C\x02\x00a", b"B\0\x02\0a"),
            (b"C\x01a\x8c\x01a\x86", b"B\0\x01aS\0\x01aT\0\x02"),
            (b")", b"T\0\0"),
            (b"))\x85\x86", b"T\0\0T\0\0T\0\x01T\0\x02"),
        ] {
            assert_eq!(encoding(instructions).as_deref(), Ok(bytes), "{instructions:?}");
            assert!(is_encoding(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn what_no_key_is_encoded_as() {
        for bytes in [
            &b""[..],
            b"x",
            b"NN",
            b"+\0",
            b"+\0\x01",
            b"+\0\x01\0",
            b"-\0\0",
            b"-\0\x02\x01\0",
            b"F\x3f\xf0\0\0\0\0\0\0",
            b"F\x7f\xf8\0\0\0\0\0\0",
            b"F\x3f\xf8\0",
            b"S\0\x01a",
            b"S\0\x01\xffT\0\x01",
            b"NT\0\x02",
            b"NNT\0\x01",
            b"T\0",
            b"B\0\x02a",
        ] {
            assert!(!is_encoding(bytes), "{bytes:?}");
        }
        let long = |items: u16| [b"N".repeat(items.into()), b"T".to_vec(), items.to_be_bytes().to_vec()].concat();
        assert!(is_encoding(&long(65_533)) && !is_encoding(&long(65_534)));
    }

    #[test]
    fn a_small_tree_that_unfolds_without_end() {
        // Forty tuples, each holding the one before twice.
        let mut instructions = b")\x94".to_vec();
        for number in 1..=40 {
            instructions.extend_from_slice(&[b'h', number, 0x86, 0x94]);
        }
        let (steps, encoding) = meter::of(|| encoding(&instructions));
        assert_eq!(encoding, Err(ErrorCode::TooBig));
        assert!(steps < 65_536, "{steps} steps");
    }
}
