//! Which keys a cache is asked for, and in which order.
//!
//! Endless streams from a fixed seed, so that every server is asked for the same. All periods are multiples of the
//! number of keys, so that a small trace behaves as a large one does.

use kvd::tools::bench::random::Random;
use kvd::tools::bench::zipf::{THETA, Zipf};

/// Popular keys, and what is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Zipf's law, and nothing else.
    Still,
    /// The same, and after every 5 accesses a key another as many keys that nobody wants, each once.
    Scanned,
    /// The same, and after every access a key a tenth of the hot keys changes.
    Shifting,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Pattern; 3] = [Pattern::Still, Pattern::Scanned, Pattern::Shifting];

    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Still => "Zipf",
            Pattern::Scanned => "with scans",
            Pattern::Shifting => "shifting",
        }
    }
}

/// One access.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The number of the key.
    pub key: u64,
    /// Whether a scan asks for it, which no cache can answer.
    pub scan: bool,
}

/// A stream of accesses.
pub struct Trace {
    pattern: Pattern,
    zipf: Zipf,
    random: Random,
    /// The key of each rank.
    by_rank: Vec<u32>,
    /// How many accesses there have been.
    position: u64,
}

impl Trace {
    /// The stream over this many keys.
    pub fn new(pattern: Pattern, keys: u64) -> Trace {
        Trace {
            pattern,
            zipf: Zipf::new(keys, THETA),
            random: Random::seeded(0),
            by_rank: (0..keys as u32).collect(),
            position: 0,
        }
    }

    /// The next access.
    pub fn next(&mut self) -> Access {
        let (position, keys) = (self.position, self.by_rank.len() as u64);
        self.position += 1;
        let within = position % (6 * keys);
        if self.pattern == Pattern::Scanned && within >= 5 * keys {
            return Access { key: within - 4 * keys, scan: true };
        }
        if self.pattern == Pattern::Shifting && position > 0 && position.is_multiple_of(keys) {
            self.shift((position / keys - 1) as usize);
        }
        let rank = self.zipf.draw(&mut self.random);
        Access { key: u64::from(self.by_rank[rank as usize]), scan: false }
    }

    /// Every tenth of the hot ranks, which are the first tenth, changes its key with a cold one. Ten times on, all
    /// of the hot ranks have done so; the cold ones take turns too.
    fn shift(&mut self, times: usize) {
        let hot = self.by_rank.len() / 10;
        let cold = self.by_rank.len() - hot;
        let changed = hot / 10;
        for i in 0..changed {
            self.by_rank.swap(10 * i + times % 10, hot + (times * changed + i) % cold);
        }
    }
}
