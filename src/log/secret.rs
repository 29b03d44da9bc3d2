//! What a store keys its hashes by, and its SCAN cursors: random, made with the store, told to nobody.
//!
//! Knows that it must not be printed. What is hashed is for others to know.

use super::error::LogError;
use std::fmt;

/// The secret of a store. It stands in the headers of its segments and nowhere else: whoever can't read the log itself does
/// not learn it.
///
/// ```
/// use kvd::log::Secret;
/// assert_eq!(format!("{:?}", Secret::new(7)), "Secret");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(u128);

impl Secret {
    /// This one.
    pub const fn new(bits: u128) -> Secret {
        Secret(bits)
    }

    /// A new one.
    ///
    /// # Errors
    /// What the system says when it has no random bytes.
    pub fn random() -> Result<Secret, LogError> {
        random_bits("the store's secret").map(Secret)
    }

    /// Its bits, for a key or a header.
    pub const fn expose(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// 128 random bits, for what is named in the error.
pub(super) fn random_bits(what: &str) -> Result<u128, LogError> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| LogError::io("draw", what)(errno.into()))?;
    debug_assert_eq!(filled, bytes.len(), "up to 256 bytes come whole");
    Ok(u128::from_le_bytes(bytes))
}
