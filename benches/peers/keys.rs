//! Which keys a load asks for.
//!
//! Keys are 16 bytes, `key:` and a number in 12 digits, so that every server is given the same ones. The
//! numbers come from a generator with a fixed seed: two runs ask for the same keys in the same order.

use crate::random::Random;

/// Bytes of a key.
pub const KEY_LEN: usize = 16;

/// A key.
pub type Key = [u8; KEY_LEN];

/// The key with this number.
pub fn key(mut number: u64) -> Key {
    let mut key = *b"key:000000000000";
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    key
}

/// An endless stream of keys.
pub enum Keys {
    /// Key after key, each once: fills a store.
    InOrder {
        /// The number of the next key.
        next: u64,
    },
    /// Any of the keys below `space`, each as likely as another.
    Uniform {
        /// How many keys there are.
        space: u64,
        /// Chooses among them.
        random: Random,
    },
}

impl Keys {
    /// Key after key, from number 0.
    pub fn in_order() -> Keys {
        Keys::InOrder { next: 0 }
    }

    /// Keys at random among the first `space`.
    pub fn uniform(space: u64) -> Keys {
        Keys::Uniform { space, random: Random::new() }
    }

    /// The next key.
    pub fn next(&mut self) -> Key {
        match self {
            Keys::InOrder { next } => {
                *next += 1;
                key(*next - 1)
            }
            Keys::Uniform { space, random } => key(random.below(*space)),
        }
    }
}
