//! What single frames may be: numbers and times. Knows no verb.

use crate::command::Expiry;
use crate::decimal;
use crate::mutation::PICKLED;
use crate::wire::WireError;
use crate::wire::bounds::{LAST_MILLISECOND, bad};

/// Most bytes of a message that an error repeats.
const QUOTED: usize = 32;

/// Bytes from a message as an error may repeat them: quoted, escaped, cut after 32 bytes.
pub fn quote(bytes: &[u8]) -> String {
    let (shown, more) = match bytes.get(..QUOTED) {
        Some(shown) if bytes.len() > QUOTED => (shown, "..."),
        _ => (bytes, ""),
    };
    format!("\"{}{more}\"", shown.escape_ascii())
}

/// A number from 0 to `most`.
pub fn number(what: &str, bytes: &[u8], most: u64) -> Result<u64, WireError> {
    decimal::parse_u64(bytes)
        .filter(|&number| number <= most)
        .ok_or_else(|| bad(format!("{what} is a decimal integer from 0 to {most}, not {}", quote(bytes))))
}

/// A number that may be negative.
pub fn signed(what: &str, bytes: &[u8]) -> Result<i64, WireError> {
    decimal::parse_i64(bytes).ok_or_else(|| {
        bad(format!("{what} is a decimal integer from {} to {}, not {}", i64::MIN, i64::MAX, quote(bytes)))
    })
}

/// Milliseconds from now, 0 for no expiry.
pub fn time_to_live(what: &str, bytes: &[u8]) -> Result<Expiry, WireError> {
    Ok(match number(what, bytes, LAST_MILLISECOND)? {
        0 => Expiry::Never,
        milliseconds => Expiry::In(milliseconds),
    })
}

/// A point in time, in milliseconds of Unix time.
pub fn date(what: &str, bytes: &[u8]) -> Result<Expiry, WireError> {
    Ok(Expiry::At(number(what, bytes, LAST_MILLISECOND)?))
}

/// 31 bits of the client's.
pub fn flags(what: &str, bytes: &[u8]) -> Result<u32, WireError> {
    Ok(number(what, bytes, u64::from(PICKLED - 1))? as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_repeats_is_cut_after_32_bytes() {
        assert_eq!(quote(b"a\nb\xff"), r#""a\nb\xff""#);
        assert_eq!(quote(&[b'x'; 32]), format!("\"{}\"", "x".repeat(32)));
        assert_eq!(quote(&[b'x'; 33]), format!("\"{}...\"", "x".repeat(32)));
    }
}
