//! How long values are.

use super::outbox::Payload;
use super::random::Random;
use crate::command::LARGEST_MAX_VALUE;
use std::fmt;
use std::str::FromStr;

/// The length of values, in bytes.
///
/// ```
/// use kvd::tools::bench::values::ValueSize;
/// assert_eq!("1KiB".parse(), Ok(ValueSize::fixed(1024)));
/// assert_eq!("10..100".parse(), Ok(ValueSize { smallest: 10, largest: 100 }));
/// assert!("100..10".parse::<ValueSize>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueSize {
    /// Bytes of the shortest.
    pub smallest: usize,
    /// Bytes of the longest; every length up to it is as likely as another.
    pub largest: usize,
}

impl ValueSize {
    /// All values have this length.
    pub const fn fixed(length: usize) -> ValueSize {
        ValueSize { smallest: length, largest: length }
    }

    /// The length, if there is only one.
    pub fn single(self) -> Option<usize> {
        (self.smallest == self.largest).then_some(self.largest)
    }

    /// The next length.
    pub fn draw(self, random: &mut Random) -> usize {
        self.smallest + random.below((self.largest - self.smallest) as u64 + 1) as usize
    }

    /// Bytes enough for the longest value, the same in every run, which no compression makes smaller.
    pub fn payload(self) -> Payload {
        Random::seeded(0).bytes(self.largest).into()
    }
}

impl fmt::Display for ValueSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(length) => write!(out, "{length}"),
            None => write!(out, "{}..{}", self.smallest, self.largest),
        }
    }
}

impl FromStr for ValueSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ValueSize, String> {
        let size = |text: &str| {
            let size = text.parse::<bytesize::ByteSize>();
            let size = size.map_err(|_| format!("`{text}` is no size: it must be bytes, or such as 1KiB"))?;
            let size = usize::try_from(size.as_u64()).ok().filter(|&size| size <= LARGEST_MAX_VALUE);
            size.ok_or_else(|| format!("{text} is over the longest value, 1GiB"))
        };
        let (smallest, largest) = match text.split_once("..") {
            Some((smallest, largest)) => (size(smallest)?, size(largest)?),
            None => (size(text)?, size(text)?),
        };
        if smallest > largest {
            return Err(format!("{text}: the first size must not be over the second"));
        }
        Ok(ValueSize { smallest, largest })
    }
}
