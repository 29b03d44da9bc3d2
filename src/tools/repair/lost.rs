//! What a damaged log has lost, and which of the keys that are left may be stale for it.
//!
//! Knows versions: they rise with every change of the store, so that whatever a stretch of the log held, it was newer than
//! what came before. Of a key whose newest record is older than the newest that was lost, a later change may be among it.

use crate::log::salvage::{Gap, Lost};

/// Something that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The segment's file.
    pub file: String,
    /// From which byte up to which; none where the file is not there, or ends too early.
    pub bytes: Option<(u64, u64)>,
    /// The lowest version that may have been in it.
    pub first_version: u64,
    /// The version after the highest that may have been in it; none where nothing tells.
    pub end_version: Option<u64>,
    /// Records of which it is known that they are given up, since their groups are not whole.
    pub given_up: Vec<Lost>,
}

impl Loss {
    /// What a gap in a segment means. `versions_end` is the version with which the next segment begins.
    pub fn of_gap(file: &str, gap: &Gap, versions_end: Option<u64>) -> Loss {
        Loss {
            file: file.to_owned(),
            bytes: Some((gap.from, gap.to)),
            first_version: gap.first_version,
            end_version: gap.end_version.or(versions_end),
            given_up: gap.given_up.clone(),
        }
    }

    /// These versions are in no file.
    pub fn of_versions(file: &str, first_version: u64, end_version: Option<u64>) -> Loss {
        Loss { file: file.to_owned(), bytes: None, first_version, end_version, given_up: Vec::new() }
    }

    /// Whether no change of the store is missing.
    pub fn is_harmless(&self) -> bool {
        self.end_version.is_some_and(|end| end <= self.first_version) && self.given_up.is_empty()
    }
}

/// All that was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    all: Vec<Loss>,
    /// The version after the highest that may have been in any that does harm.
    end_version: u64,
}

impl Losses {
    /// One more.
    pub fn add(&mut self, loss: Loss) {
        if !loss.is_harmless() {
            self.end_version = self.end_version.max(loss.end_version.unwrap_or(u64::MAX));
        }
        self.all.push(loss);
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Loss> {
        self.all.iter()
    }

    /// Whether a later change of a key whose newest record has this version may be among what was lost. Asked of every key, however
    /// many losses there are.
    pub fn may_hide(&self, version: u64) -> bool {
        self.end_version > version.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(versions: &[(u64, Option<u64>)]) -> Losses {
        let mut losses = Losses::default();
        for &(first, end) in versions {
            losses.add(Loss::of_versions("file", first, end));
        }
        losses
    }

    #[test]
    fn what_is_older_than_anything_lost_may_be_stale() {
        let losses = losses(&[(10, Some(13)), (20, Some(20))]);
        assert!(losses.may_hide(9) && losses.may_hide(11));
        assert!(!losses.may_hide(12) && !losses.may_hide(13) && !losses.may_hide(25));
        assert!(self::losses(&[(10, None)]).may_hide(1 << 40));
        assert!(!self::losses(&[(10, Some(10))]).may_hide(1), "a header alone was damaged");
    }
}
