//! What compaction asks of the table: which of these records still count.
//!
//! Knows keys and versions. Does not know who answers.

use crate::mutation::{Key, Space};

/// Keys that are asked about at a time.
pub const QUESTIONS: usize = 1024;

/// What the table says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has an entry of this very version.
    Live,
    /// It has a newer one of this key.
    Superseded,
    /// It has none of this key.
    Absent,
}

/// Records of which the table is asked. Filled, answered, read and filled again.
#[derive(Debug, Default)]
pub struct Questions {
    keys: Vec<u8>,
    asked: Vec<Asked>,
    pub(super) fates: Vec<Fate>,
}

/// A record of which is asked.
#[derive(Debug)]
struct Asked {
    /// Where its key ends among the keys.
    end: usize,
    space: Space,
    version: u64,
}

impl Questions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether every one has its answer.
    pub fn are_answered(&self) -> bool {
        self.fates.len() == self.asked.len()
    }

    /// The keys and versions that are to be answered next, in the order of their answers.
    pub fn open(&self) -> impl Iterator<Item = (Key<'_>, u64)> {
        open(&self.keys, &self.asked, self.fates.len())
    }

    /// Answers so many of the open ones.
    pub fn answer(&mut self, at_most: usize, mut fate: impl FnMut(Key<'_>, u64) -> Fate) {
        let open = open(&self.keys, &self.asked, self.fates.len());
        self.fates.extend(open.take(at_most).map(|(key, version)| fate(key, version)));
    }

    pub(super) fn push(&mut self, key: Key<'_>, version: u64) {
        self.keys.extend_from_slice(key.bytes);
        self.asked.push(Asked { end: self.keys.len(), space: key.space, version });
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.asked.clear();
        self.fates.clear();
    }
}

/// Those without an answer, when so many have one.
fn open<'a>(keys: &'a [u8], asked: &'a [Asked], answered: usize) -> impl Iterator<Item = (Key<'a>, u64)> {
    let mut start = answered.checked_sub(1).and_then(|last| asked.get(last)).map_or(0, |last| last.end);
    asked.iter().skip(answered).map(move |&Asked { end, space, version }| {
        let bytes = keys.get(start..end).unwrap_or_default();
        start = end;
        (Key { space, bytes }, version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_answered_in_turn_however_few_at_a_time() {
        let keys: [&[u8]; 5] = [b"a", b"bc", b"", b"def", b"g"];
        for at_most in 1..=6 {
            let mut questions = Questions::default();
            for (version, bytes) in (1..).zip(keys) {
                questions.push(Key::bytes(bytes), version);
            }
            let mut heard = Vec::new();
            while !questions.are_answered() {
                let next = questions.open().next().map(|(key, version)| (key.bytes.to_vec(), version));
                let before = heard.len();
                questions.answer(at_most, |key, version| {
                    heard.push((key.bytes.to_vec(), version));
                    if version % 2 == 0 { Fate::Live } else { Fate::Absent }
                });
                assert_eq!(heard.get(before).cloned(), next);
                assert!(heard.len() - before <= at_most);
            }
            assert_eq!(heard, (1..).zip(keys).map(|(version, key)| (key.to_vec(), version)).collect::<Vec<_>>());
            assert_eq!(questions.fates, [Fate::Absent, Fate::Live, Fate::Absent, Fate::Live, Fate::Absent]);
        }
    }
}
