//! What single frames may be: numbers, the options of a SET.
//!
//! Knows no verb but SET, whose options are a small language of their own.

use crate::command::{Condition, Expiry, SetOptions};
use crate::decimal;
use crate::mutation::PICKLED;
use crate::wire::WireError;
use crate::wire::bounds::{LAST_MILLISECOND, bad};
use std::ops::Deref;

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

/// The options that a request may end with, one by one.
pub struct Options<'a, F> {
    verb: &'static str,
    rest: std::slice::Iter<'a, F>,
}

impl<'a, F: Deref<Target = [u8]>> Options<'a, F> {
    /// The frames after the fixed arguments of a verb.
    pub fn new(verb: &'static str, rest: &'a [F]) -> Self {
        Options { verb, rest: rest.iter() }
    }

    /// The name of the next option, as it was written.
    pub fn next_name(&mut self) -> Option<&'a [u8]> {
        self.rest.next().map(|frame| &**frame)
    }

    /// The frame that belongs to an option.
    pub fn argument(&mut self, option: &str) -> Result<&'a [u8], WireError> {
        let verb = self.verb;
        self.next_name().ok_or_else(|| bad(format!("{verb} ends after {option}, which needs an argument")))
    }

    /// The refusal of an option that the verb does not have.
    pub fn unknown(&self, name: &[u8]) -> WireError {
        bad(format!("{} has no option {}", self.verb, quote(name)))
    }
}

/// Stores an option's value, unless the option, or one that excludes it, came before. `group` names them.
pub fn once<T>(slot: &mut Option<T>, value: T, group: &str) -> Result<(), WireError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(format!("{group} may be given only once"))),
    }
}

/// The options of a SET, in any order.
pub fn set_options<F: Deref<Target = [u8]>>(frames: &[F]) -> Result<SetOptions, WireError> {
    const EXPIRY: &str = "one of TTL and AT";
    const CONDITION: &str = "one of NX, XX and IF";
    // The most common SET has none.
    if frames.is_empty() {
        return Ok(SetOptions::default());
    }
    let (mut expiry, mut condition, mut flags, mut pickled) = (None, None, None, None);
    let mut options = Options::new("SET", frames);
    while let Some(name) = options.next_name() {
        if name.eq_ignore_ascii_case(b"TTL") {
            once(&mut expiry, time_to_live("TTL", options.argument("TTL")?)?, EXPIRY)?;
        } else if name.eq_ignore_ascii_case(b"AT") {
            let at = number("AT", options.argument("AT")?, LAST_MILLISECOND)?;
            once(&mut expiry, Expiry::At(at), EXPIRY)?;
        } else if name.eq_ignore_ascii_case(b"NX") {
            once(&mut condition, Condition::Absent, CONDITION)?;
        } else if name.eq_ignore_ascii_case(b"XX") {
            once(&mut condition, Condition::Present, CONDITION)?;
        } else if name.eq_ignore_ascii_case(b"IF") {
            let version = number("IF", options.argument("IF")?, u64::MAX)?;
            once(&mut condition, Condition::Version(version), CONDITION)?;
        } else if name.eq_ignore_ascii_case(b"FLAGS") {
            let bits = number("FLAGS", options.argument("FLAGS")?, u64::from(PICKLED - 1))?;
            once(&mut flags, bits as u32, "FLAGS")?;
        } else if name.eq_ignore_ascii_case(b"PICKLED") {
            once(&mut pickled, PICKLED, "PICKLED")?;
        } else {
            return Err(options.unknown(name));
        }
    }
    Ok(SetOptions {
        expiry: expiry.unwrap_or_default(),
        condition: condition.unwrap_or_default(),
        flags: flags.unwrap_or(0) | pickled.unwrap_or(0),
    })
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
