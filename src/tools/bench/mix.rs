//! What is asked, and how often of each kind.

use super::keys::Distribution;
use super::random::Random;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read a key.
    Get,
    /// Write a key that there may be already.
    Set,
    /// Write a key that there never was.
    Insert,
    /// List some keys.
    Scan,
    /// Read a key, and when it was read, write it.
    ReadModifyWrite,
}

impl Operation {
    /// All of them, in the order in which figures stand.
    pub const ALL: [Operation; 5] =
        [Operation::Get, Operation::Set, Operation::Insert, Operation::Scan, Operation::ReadModifyWrite];

    /// As figures name it.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Set => "set",
            Operation::Insert => "insert",
            Operation::Scan => "scan",
            Operation::ReadModifyWrite => "read-modify-write",
        }
    }
}

/// How many of a hundred operations are of each kind.
///
/// ```
/// use kvd::tools::bench::mix::{Mix, Operation};
/// let mix = Mix::of_reads(90);
/// assert_eq!((mix.percent(Operation::Get), mix.percent(Operation::Set)), (90, 10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// In the order of [`Operation::ALL`]; together 100.
    percent: [u8; Operation::ALL.len()],
}

impl Mix {
    /// GETs, this many of a hundred, and SETs.
    ///
    /// # Panics
    /// Over 100.
    pub const fn of_reads(percent: u8) -> Mix {
        assert!(percent <= 100, "a part of a hundred");
        Mix { percent: [percent, 100 - percent, 0, 0, 0] }
    }

    /// GETs alone.
    pub const GETS: Mix = Mix::of_reads(100);
    /// SETs alone.
    pub const SETS: Mix = Mix::of_reads(0);

    /// How many of a hundred are of this kind.
    pub const fn percent(self, operation: Operation) -> u8 {
        self.percent[operation as usize]
    }

    /// The kind that all are of, if there is only one.
    pub fn single(self) -> Option<Operation> {
        Operation::ALL.into_iter().find(|operation| self.percent(*operation) == 100)
    }

    /// The kind of the next operation.
    pub fn draw(self, random: &mut Random) -> Operation {
        let mut place = random.below(100);
        let drawn = Operation::ALL.into_iter().find(|operation| {
            let percent = u64::from(self.percent(*operation));
            let found = place < percent;
            place = place.wrapping_sub(percent);
            found
        });
        drawn.unwrap_or(Operation::Get)
    }
}

/// The core workloads of YCSB (Cooper et al.: "Benchmarking cloud serving systems with YCSB", `SoCC` 2010).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Ycsb {
    /// Update heavy: 50% GET, 50% SET, Zipf
    A,
    /// Read mostly: 95% GET, 5% SET, Zipf
    B,
    /// Read only: GET, Zipf
    C,
    /// Read latest: 95% GET of keys stored lately, 5% new keys
    D,
    /// Short ranges: 95% SCAN of 1 to 100 keys, 5% new keys
    E,
    /// 50% GET, 50% GET and then SET of the same key, Zipf
    F,
}

impl Ycsb {
    /// As flags name it.
    pub const fn name(self) -> &'static str {
        match self {
            Ycsb::A => "a",
            Ycsb::B => "b",
            Ycsb::C => "c",
            Ycsb::D => "d",
            Ycsb::E => "e",
            Ycsb::F => "f",
        }
    }

    /// What is asked.
    pub const fn mix(self) -> Mix {
        let percent = match self {
            Ycsb::A => [50, 50, 0, 0, 0],
            Ycsb::B => [95, 5, 0, 0, 0],
            Ycsb::C => [100, 0, 0, 0, 0],
            Ycsb::D => [95, 0, 5, 0, 0],
            Ycsb::E => [0, 0, 5, 95, 0],
            Ycsb::F => [50, 0, 0, 0, 50],
        };
        Mix { percent }
    }

    /// Of which keys, by Zipf's law with this exponent.
    pub const fn distribution(self, theta: f64) -> Distribution {
        match self {
            Ycsb::D => Distribution::Latest(theta),
            _ => Distribution::Zipf(theta),
        }
    }

    /// Bytes of a value: a record of ten fields.
    pub const VALUE: usize = 1000;

    /// Most keys of a scan; the fewest are 1.
    pub const LONGEST_SCAN: u64 = 100;
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    #[test]
    fn workloads_are_whole() {
        for workload in Ycsb::value_variants() {
            let total: u8 = Operation::ALL.into_iter().map(|operation| workload.mix().percent(operation)).sum();
            assert_eq!(total, 100, "{workload:?}");
        }
    }

    #[test]
    fn operations_come_as_often_as_was_said() {
        let mut random = Random::seeded(5);
        let mut seen = [0; Operation::ALL.len()];
        for _ in 0..10_000 {
            seen[Ycsb::E.mix().draw(&mut random) as usize] += 1;
        }
        assert!((400..600).contains(&seen[Operation::Insert as usize]), "{seen:?}");
        assert_eq!(seen[Operation::Insert as usize] + seen[Operation::Scan as usize], 10_000);
        assert_eq!(Ycsb::C.mix().single(), Some(Operation::Get));
        assert_eq!(Ycsb::A.mix().single(), None);
    }
}
