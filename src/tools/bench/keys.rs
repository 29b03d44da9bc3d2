//! Which keys a load asks for, and how a key is spelt.
//!
//! A key is a number, written in decimal behind `key:`, so that every server is given the same ones. Numbers come
//! from a generator with a seed: two runs ask for the same keys in the same order.

use super::random::Random;
use super::zipf::Zipf;

/// What keys begin with if they are long enough.
const PREFIX: &[u8] = b"key:";
/// Keys from this length on have the prefix.
const PREFIXED: usize = 8;

/// How keys are written: all with the same length.
///
/// ```
/// use kvd::tools::bench::keys::KeyShape;
/// assert_eq!(KeyShape::default().key(1234), b"key:000000001234");
/// assert_eq!(KeyShape::of_size(3).key(7), b"007");
/// assert_eq!(KeyShape::of_size(3).distinct(), 1000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyShape {
    size: usize,
}

impl Default for KeyShape {
    /// 16 bytes.
    fn default() -> KeyShape {
        KeyShape::of_size(16)
    }
}

impl KeyShape {
    /// Keys of `size` bytes, at least 1.
    pub const fn of_size(size: usize) -> KeyShape {
        KeyShape { size }
    }

    /// Bytes of a key.
    pub const fn size(self) -> usize {
        self.size
    }

    /// How many keys can be told apart.
    pub fn distinct(self) -> u64 {
        let digits = self.size - self.prefix();
        u32::try_from(digits).ok().and_then(|digits| 10_u64.checked_pow(digits)).unwrap_or(u64::MAX)
    }

    /// The key with this number.
    pub fn key(self, number: u64) -> Vec<u8> {
        let mut key = vec![b'0'; self.size];
        key[..self.prefix()].copy_from_slice(&PREFIX[..self.prefix()]);
        overwrite(number, &mut key);
        key
    }

    const fn prefix(self) -> usize {
        if self.size < PREFIXED { 0 } else { PREFIX.len() }
    }
}

/// Makes key 0 the key with this number.
pub(super) fn overwrite(mut number: u64, key: &mut [u8]) {
    for digit in key.iter_mut().rev() {
        if number == 0 {
            break;
        }
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// How often each key is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Each as often as another.
    Uniform,
    /// By Zipf's law with this exponent; key 0 is the most popular.
    Zipf(f64),
    /// By Zipf's law with this exponent; the key stored last is the most popular.
    Latest(f64),
    /// One after the other, and again from the start.
    Sequential,
}

/// The keys that there are, as a stream of those that are asked for.
#[derive(Clone, Debug)]
pub struct Keys {
    distribution: Distribution,
    first: u64,
    count: u64,
    /// Where the distribution needs one.
    zipf: Option<Zipf>,
    position: u64,
}

impl Keys {
    /// `count` keys, at least 1, from number `first` on.
    pub fn new(distribution: Distribution, first: u64, count: u64) -> Keys {
        let mut keys = Keys { distribution, first, count: 0, zipf: None, position: 0 };
        keys.resize(count);
        keys
    }

    /// The number of the next key to ask for.
    pub fn next(&mut self, random: &mut Random) -> u64 {
        let rank = self.zipf.as_ref().map_or(0, |zipf| zipf.draw(random));
        let place = match self.distribution {
            Distribution::Uniform => random.below(self.count),
            Distribution::Zipf(_) => rank,
            Distribution::Latest(_) => self.count - 1 - rank,
            Distribution::Sequential => {
                self.position += 1;
                (self.position - 1) % self.count
            }
        };
        self.first + place
    }

    /// Another number of keys.
    pub fn resize(&mut self, count: u64) {
        if count != self.count {
            self.count = count;
            self.zipf = match self.distribution {
                Distribution::Zipf(theta) | Distribution::Latest(theta) => Some(Zipf::new(count, theta)),
                Distribution::Uniform | Distribution::Sequential => None,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(distribution: Distribution, count: u64) -> Vec<u64> {
        let (mut keys, mut random) = (Keys::new(distribution, 100, count), Random::seeded(3));
        let mut seen = vec![0; count as usize];
        for _ in 0..10_000 {
            let number = keys.next(&mut random);
            seen[(number - 100) as usize] += 1;
        }
        seen
    }

    #[test]
    fn uniform_favours_nobody() {
        let seen = drawn(Distribution::Uniform, 10);
        assert!(seen.iter().all(|&count| (900..1100).contains(&count)), "{seen:?}");
    }

    #[test]
    fn sequential_takes_turns() {
        assert_eq!(drawn(Distribution::Sequential, 10), [1000; 10]);
    }

    #[test]
    fn the_popular_end_is_the_first_key_or_the_last() {
        let (mut first, last) = (drawn(Distribution::Zipf(0.99), 10), drawn(Distribution::Latest(0.99), 10));
        assert!(first[0] > 2 * first[3] && first[3] > first[9], "{first:?}");
        first.reverse();
        assert_eq!(first, last);
    }

    #[test]
    fn a_key_that_is_added_becomes_the_latest() {
        let (mut keys, mut random) = (Keys::new(Distribution::Latest(20.0), 0, 10), Random::seeded(3));
        assert_eq!(keys.next(&mut random), 9);
        keys.resize(11);
        assert_eq!(keys.next(&mut random), 10);
    }

    #[test]
    fn long_keys_and_short_ones() {
        assert_eq!(KeyShape::of_size(1).key(5), b"5");
        assert_eq!(KeyShape::of_size(8).key(42), b"key:0042");
        let long = KeyShape::of_size(40);
        assert_eq!(long.key(u64::MAX), [b"key:0000000000000000".as_slice(), b"18446744073709551615"].concat());
        assert_eq!(long.distinct(), u64::MAX);
    }
}
