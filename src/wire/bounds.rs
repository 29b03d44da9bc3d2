//! What a key, a prefix, a value and a time may be, where a request gives them as they are.
//!
//! Knows no dialect: frames and packed requests share these bounds and the words of their refusals.

use crate::command::{ErrorCode, Limits, MAX_KEY};
use crate::mutation::Key;
use crate::wire::WireError;
use std::borrow::Cow;

/// Unix times and spans in milliseconds end here, so that they fit a signed integer everywhere.
pub const LAST_MILLISECOND: u64 = i64::MAX as u64;

/// A refusal with `BADARG`.
pub fn bad(message: impl Into<Cow<'static, str>>) -> WireError {
    WireError::new(ErrorCode::BadArgument, message)
}

/// A key: 1 to [`MAX_KEY`] bytes.
pub fn key(bytes: &[u8]) -> Result<Key<'_>, WireError> {
    match bytes.len() {
        0 => Err(bad("a key has at least 1 byte")),
        1..=MAX_KEY => Ok(Key::bytes(bytes)),
        length => Err(too_big("key", length, MAX_KEY)),
    }
}

/// The start of keys: up to [`MAX_KEY`] bytes, and empty for all of them.
pub fn prefix(bytes: &[u8]) -> Result<&[u8], WireError> {
    if bytes.len() > MAX_KEY { Err(too_big("prefix", bytes.len(), MAX_KEY)) } else { Ok(bytes) }
}

/// A value, within the limit.
pub fn value(bytes: &[u8], limits: Limits) -> Result<&[u8], WireError> {
    let limit = limits.max_value;
    if bytes.len() > limit { Err(too_big("value", bytes.len(), limit)) } else { Ok(bytes) }
}

fn too_big(what: &str, length: usize, limit: usize) -> WireError {
    WireError::new(ErrorCode::TooBig, format!("a {what} of {length} bytes; the limit is {limit}"))
}
