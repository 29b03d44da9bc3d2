//! The hash of keys, under the secret of the store: who does not know it can't choose keys that collide.
//!
//! Knows spaces and bytes of keys; knows neither shards nor slots. The function is SipHash-1-3 (Aumasson, Bernstein, "SipHash:
//! a fast short-input PRF", INDOCRYPT 2012): what it gives for other keys tells nothing of what it gives for this one. A hash
//! that merely starts from a secret is not enough, if the secret cancels out between two keys.
//!
//! Nothing here is `Debug`: a secret that can be printed will be.

use crate::mutation::{Key, Space};
use siphasher::sip::SipHasher13;
use siphasher::sip128::SipHasher24;

/// Hashes keys.
pub struct KeyHasher {
    /// One for each space, set up once: so a space costs no byte to hash, and its keys are strangers to the other's.
    spaces: [SipHasher13; 2],
    /// Bits that a test leaves of a hash, to see what happens where keys collide after all.
    #[cfg(test)]
    pub mask: u64,
}

impl KeyHasher {
    /// The hash of the store that has this secret.
    pub fn new(secret: u128) -> KeyHasher {
        let of_space = |purpose| {
            let (first, second) = halves(derive(secret, purpose));
            SipHasher13::new_with_keys(first, second)
        };
        KeyHasher {
            spaces: [of_space(Purpose::BytesKeys), of_space(Purpose::PythonKeys)],
            #[cfg(test)]
            mask: u64::MAX,
        }
    }

    /// All 64 bits of a key's hash.
    pub fn hash(&self, key: Key<'_>) -> u64 {
        let hash = self.spaces[key.space as usize].hash(key.bytes);
        #[cfg(test)]
        let hash = hash & self.mask;
        hash
    }
}

const _: () = assert!(Space::Bytes as usize == 0 && Space::Python as usize == 1);

/// What a part of the secret is for. None of them tells another.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// Hashing keys that are bytes.
    BytesKeys = 1,
    /// Hashing the other Python keys.
    PythonKeys = 2,
    /// Hiding positions in SCAN cursors.
    Cursors = 3,
}

/// The 128 bits that a secret has for a purpose.
pub fn derive(secret: u128, purpose: Purpose) -> u128 {
    let (first, second) = halves(secret);
    SipHasher24::new_with_keys(first, second).hash(&[purpose as u8]).as_u128()
}

/// The two words that SipHash takes a key as.
pub fn halves(key: u128) -> (u64, u64) {
    (key as u64, (key >> 64) as u64)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Keys that had one hash in every store, whatever its identity, under the hash that was here before.
    pub fn pinned() -> Vec<Vec<u8>> {
        let sixteen = (0..20_000_u64).map(|n| [n.to_le_bytes(), 0x3f84_d5b5_b547_0917_u64.to_le_bytes()].concat());
        let twice = [0xc0ac_29b7_c97c_50dd_u64.to_le_bytes(); 2].concat();
        let longer = (0..20_000_u64).map(|n| [&[n as u8, (n >> 8) as u8, 0], &[7; 8][..], &twice].concat());
        sixteen.chain(longer).collect()
    }

    #[test]
    fn keys_that_once_collided_in_every_store_do_not() {
        let keys = pinned();
        assert!(keys[0].len() == 16 && keys[20_000].len() == 27);
        for secret in [0, 7, u128::MAX] {
            let hasher = KeyHasher::new(secret);
            let distinct: BTreeSet<u64> = keys.iter().map(|key| hasher.hash(Key::bytes(key))).collect();
            assert_eq!(distinct.len(), keys.len());
        }
    }

    #[test]
    fn every_bit_of_the_secret_and_the_space_decide() {
        let (key, python) = (Key::bytes(b"k"), Key { space: Space::Python, bytes: b"k" });
        let secrets = (0..128).map(|bit| 1 << bit).chain([0]);
        let hashes: BTreeSet<u64> =
            secrets.map(KeyHasher::new).flat_map(|hasher| [hasher.hash(key), hasher.hash(python)]).collect();
        assert_eq!(hashes.len(), 2 * 129);
        assert_eq!(KeyHasher::new(9).hash(key), KeyHasher::new(9).hash(key));
    }

    /// Pinned: cursors that clients hold must stay good when kvd is upgraded.
    #[test]
    fn the_hash_of_a_store_stays_the_same() {
        let hasher = KeyHasher::new(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
        let told = [Space::Bytes, Space::Python].map(|space| hasher.hash(Key { space, bytes: b"user:1" }));
        assert_eq!(told, [2_488_435_483_837_012_338, 6_526_351_388_333_640_751]);
    }
}
