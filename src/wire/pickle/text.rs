//! The Python strings of a pickle.
//!
//! Knows the two ways they are written: as UTF-8, or with the escapes of protocol 0. Knows nothing of where
//! they stand. A Python string may hold lone surrogates, which UTF-8 proper can't; pickles write them as the
//! three bytes UTF-8 would have for them, and kvd keeps those.

use super::opcode::{BINUNICODE, BINUNICODE8, SHORT_BINUNICODE, UNICODE};
use super::reader::Instruction;
use super::{refuse, room};
use crate::wire::WireError;

/// The argument of an instruction that pushes a Python `str`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'m> {
    raw: &'m [u8],
    /// Written as Python's codec `raw-unicode-escape` does, not as UTF-8.
    escaped: bool,
}

impl<'m> Text<'m> {
    /// The text that an instruction pushes, if it pushes one.
    pub(super) fn of(instruction: &Instruction<'m>) -> Option<Self> {
        let escaped = match instruction.opcode {
            UNICODE => true,
            BINUNICODE | SHORT_BINUNICODE | BINUNICODE8 => false,
            _ => return None,
        };
        Some(Text { raw: instruction.argument, escaped })
    }

    /// The bytes as they stand in the pickle.
    pub(super) fn raw(self) -> &'m [u8] {
        self.raw
    }

    /// The text as UTF-8, if that is what stands in the pickle.
    pub(super) fn utf8(self) -> Option<Result<&'m [u8], WireError>> {
        let as_it_is = !self.escaped || (self.raw.is_ascii() && !self.raw.contains(&b'\\'));
        as_it_is.then(|| check_utf8(self.raw).map(|()| self.raw))
    }

    /// Appends the text as UTF-8.
    pub(super) fn append_utf8(self, into: &mut Vec<u8>) -> Result<(), WireError> {
        if let Some(utf8) = self.utf8() {
            let utf8 = utf8?;
            room(into, utf8.len())?;
            into.extend_from_slice(utf8);
            return Ok(());
        }
        for code_point in self.escapes() {
            push_utf8(code_point?, into);
            room(into, 0)?;
        }
        Ok(())
    }

    /// Appends a byte a character, as Python's codec `latin1` does.
    pub(super) fn append_latin1(self, into: &mut Vec<u8>) -> Result<(), WireError> {
        let mut push = |code_point: u32| {
            room(into, 1)?;
            into.push(u8::try_from(code_point).map_err(|_| refuse("a bytes key holds a character beyond latin1"))?);
            Ok(())
        };
        if self.escaped {
            return self.escapes().try_for_each(|code_point| push(code_point?));
        }
        let utf8 = std::str::from_utf8(self.raw).map_err(|_| not_utf8())?;
        utf8.chars().try_for_each(|character| push(u32::from(character)))
    }

    fn escapes(self) -> Escaped<'m> {
        Escaped { rest: self.raw, literal: false }
    }
}

/// The code points of a line in `raw-unicode-escape`: each byte is the character of that number, but for
/// `\uXXXX` and `\UXXXXXXXX`. A backslash before anything else stands for itself, and what follows it too.
struct Escaped<'m> {
    rest: &'m [u8],
    /// The next byte follows a backslash that stands for itself.
    literal: bool,
}

impl Iterator for Escaped<'_> {
    type Item = Result<u32, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&first, rest) = self.rest.split_first()?;
        let digits = match rest.first() {
            Some(b'u') if first == b'\\' && !self.literal => 4,
            Some(b'U') if first == b'\\' && !self.literal => 8,
            _ => {
                self.literal = first == b'\\' && !self.literal;
                self.rest = rest;
                return Some(Ok(u32::from(first)));
            }
        };
        let hex = rest.get(1..=digits);
        self.rest = rest.get(1 + digits..).unwrap_or_default();
        Some(hex.and_then(code_point).ok_or_else(|| refuse("a str in the key holds a broken escape")))
    }
}

fn code_point(hex: &[u8]) -> Option<u32> {
    let number = hex.iter().try_fold(0, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)?))?;
    (number <= u32::from(char::MAX)).then_some(number)
}

fn push_utf8(code_point: u32, into: &mut Vec<u8>) {
    if let Some(character) = char::from_u32(code_point) {
        into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        // A surrogate: three bytes, by the pattern that UTF-8 has for the numbers around it.
        let six = |shift: u32| 0x80 | (code_point >> shift & 0x3f) as u8;
        into.extend_from_slice(&[0xe0 | (code_point >> 12) as u8, six(6), six(0)]);
    }
}

/// Accepts what Python's `bytes.decode('utf-8', 'surrogatepass')` accepts.
pub(super) fn check_utf8(mut bytes: &[u8]) -> Result<(), WireError> {
    while let Err(error) = std::str::from_utf8(bytes) {
        bytes = match bytes.get(error.valid_up_to()..) {
            Some([0xed, 0xa0..=0xbf, 0x80..=0xbf, rest @ ..]) => rest,
            _ => return Err(not_utf8()),
        };
    }
    Ok(())
}

fn not_utf8() -> WireError {
    refuse("a str in the key is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf8(raw: &[u8], escaped: bool) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        Text { raw, escaped }.append_utf8(&mut bytes).ok().map(|()| bytes)
    }

    #[test]
    fn escapes() {
        // What CPython 3.11 makes of `raw.decode('raw-unicode-escape')`, as UTF-8 with surrogates passed.
        for (raw, text) in [
            (&br"plain"[..], Some(&b"plain"[..])),
            (br"\u20ac", Some("€".as_bytes())),
            (br"\U0001f600", Some("😀".as_bytes())),
            (br"\ud83d\ude00", Some(b"\xed\xa0\xbd\xed\xb8\x80")),
            (b"\xe9", Some("é".as_bytes())),
            (br"\u005cn", Some(br"\n")),
            (br"\x41", Some(br"\x41")),
            (br"\u004", None),
            (br"\u00g1", None),
            (br"\u+041", None),
            (br"\U00110000", None),
            (br"a\", Some(br"a\")),
            (br"\\u0041", Some(br"\\u0041")),
            (br"\\\u0041", Some(br"\\A")),
            (br"\n\u0041", Some(br"\nA")),
        ] {
            assert_eq!(utf8(raw, true).as_deref(), text, "{raw:?}");
        }
    }

    #[test]
    fn utf8_with_surrogates() {
        for raw in [&b""[..], "Grüße 😀".as_bytes(), b"\xed\xa0\x80", b"a\xed\xbf\xbfb\xed\xa0\xbdc"] {
            assert_eq!(utf8(raw, false).as_deref(), Some(raw));
        }
        for raw in [&b"\xff"[..], b"\xed\xa0", b"\xed\xa0\x80\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"] {
            assert_eq!(utf8(raw, false), None, "{raw:?}");
        }
    }

    #[test]
    fn latin1() {
        let mut bytes = Vec::new();
        Text { raw: "aé\u{ff}".as_bytes(), escaped: false }.append_latin1(&mut bytes).unwrap();
        Text { raw: b"\\u0000\xe9", escaped: true }.append_latin1(&mut bytes).unwrap();
        assert_eq!(bytes, b"a\xe9\xff\0\xe9");
        assert!(Text { raw: "€".as_bytes(), escaped: false }.append_latin1(&mut bytes).is_err());
    }
}
