//! A map from prefixes, and the one question asked of it: what is there under the prefixes that a key begins with?
//!
//! Knows bytes, and nothing of flushes. A key is read once, however many of the prefixes it begins with, of whatever lengths:
//! a keyed hash is fed with it, and asked at each length that some prefix has. The prefixes themselves are not kept; 128 bits
//! of SipHash under a key that nobody else knows stand for each, and nobody can find two that share theirs. A trie would read
//! the key once as well, but has as many nodes one below the other as somebody likes.

use siphasher::sip128::{Hasher128 as _, SipHasher13};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// A map from prefixes to values.
pub struct Prefixes<V> {
    /// Fed with nothing yet.
    hasher: SipHasher13,
    values: HashMap<u128, V>,
    /// How many prefixes have each length.
    lengths: BTreeMap<usize, usize>,
}

impl<V> Default for Prefixes<V> {
    fn default() -> Self {
        // What std makes of the system's randomness, once a thread and counted on.
        let random = RandomState::new();
        let hasher = SipHasher13::new_with_keys(random.hash_one(1), random.hash_one(2));
        Prefixes { hasher, values: HashMap::new(), lengths: BTreeMap::new() }
    }
}

impl<V: Default> Prefixes<V> {
    /// The value of a prefix; made if there is none.
    pub fn entry(&mut self, prefix: &[u8]) -> &mut V {
        let mut hasher = self.hasher;
        feed(&mut hasher, prefix);
        self.values.entry(hasher.finish128().as_u128()).or_insert_with(|| {
            *self.lengths.entry(prefix.len()).or_default() += 1;
            V::default()
        })
    }
}

impl<V> Prefixes<V> {
    /// Removes a prefix.
    pub fn remove(&mut self, prefix: &[u8]) {
        let mut hasher = self.hasher;
        feed(&mut hasher, prefix);
        if self.values.remove(&hasher.finish128().as_u128()).is_some()
            && let Some(count) = self.lengths.get_mut(&prefix.len())
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    /// The values of all prefixes that a key begins with, the shortest first.
    pub fn of<'p>(&'p self, key: &'p [u8]) -> impl Iterator<Item = &'p V> {
        let (mut hasher, mut fed) = (self.hasher, 0);
        self.lengths
            .keys()
            .map_while(move |&length| {
                feed(&mut hasher, key.get(fed..length)?);
                fed = length;
                Some(self.values.get(&hasher.finish128().as_u128()))
            })
            .flatten()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

fn feed(hasher: &mut SipHasher13, bytes: &[u8]) {
    #[cfg(test)]
    tests::FED.with(|fed| fed.set(fed.get() + bytes.len()));
    hasher.write(bytes);
}

/// Without the key of the hash.
impl<V: fmt::Debug> fmt::Debug for Prefixes<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefixes")
            .field("lengths", &self.lengths)
            .field("values", &self.values.values())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// Bytes that were hashed by this thread.
        pub static FED: Cell<usize> = const { Cell::new(0) };
    }

    fn prefixes(of: &[&[u8]]) -> Prefixes<Vec<u8>> {
        let mut prefixes = Prefixes::<Vec<u8>>::default();
        for prefix in of {
            prefixes.entry(prefix).extend_from_slice(prefix);
        }
        prefixes
    }

    #[test]
    fn a_key_meets_the_prefixes_that_it_begins_with() {
        let mut prefixes = prefixes(&[b"", b"ab", b"a", b"abcd", b"b", b"ac"]);
        let met = |prefixes: &Prefixes<Vec<u8>>, key: &[u8]| prefixes.of(key).cloned().collect::<Vec<_>>();
        assert_eq!(met(&prefixes, b"abc"), [&b""[..], b"a", b"ab"]);
        assert_eq!(met(&prefixes, b"abcd"), [&b""[..], b"a", b"ab", b"abcd"]);
        assert_eq!(met(&prefixes, b""), [b""]);
        prefixes.remove(b"a");
        prefixes.remove(b"");
        prefixes.remove(b"never there");
        assert_eq!(met(&prefixes, b"abc"), [b"ab"]);
        for prefix in [&b"ab"[..], b"abcd", b"b", b"ac"] {
            assert!(!prefixes.is_empty());
            prefixes.remove(prefix);
        }
        assert!(prefixes.is_empty() && prefixes.lengths.is_empty());
    }

    #[test]
    fn a_key_is_read_once_however_many_prefixes_there_are() {
        let key = vec![b'k'; 65_536];
        let mut prefixes = Prefixes::<usize>::default();
        for length in 1..=400 {
            *prefixes.entry(&key[..length * 160]) = length;
        }
        FED.set(0);
        assert_eq!(prefixes.of(&key).sum::<usize>(), 400 * 401 / 2);
        assert!(FED.get() <= key.len(), "{} bytes of {} were hashed", FED.get(), key.len());
    }

    #[test]
    fn the_key_of_the_hash_is_not_printed() {
        let prefixes = prefixes(&[b"a"]);
        let told = format!("{prefixes:?}");
        let (first, second) = prefixes.hasher.keys();
        assert!([first, second].iter().all(|key| !told.contains(&key.to_string())), "{told}");
    }
}
