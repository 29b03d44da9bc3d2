//! Write amplification of compaction: bytes written for each byte that a client overwrites, by how full of live data the
//! log is kept. The accounts and the choice of victims are kvd's own; disk and table are left out.
//!
//! `cargo bench --bench amplification`

#[path = "../cargo_bench/mod.rs"]
mod cargo_bench;

use kvd::log::victims::{Appetite, choose};
use kvd::log::{Ledger, Tally};

/// Bytes of a record, keys, records of a segment.
const RECORD: u64 = 1_100;
const KEYS: usize = 1_000_000;
const PER_SEGMENT: u64 = 20_000;
const SEGMENT: u64 = RECORD * PER_SEGMENT + 4_096;
/// Segments that are written before counting begins, and that are counted.
const WARM_UP: u64 = 200;
const COUNTED: u64 = 400;

/// Which key is overwritten next.
#[derive(Clone, Copy)]
enum Overwrites {
    /// Each as likely as another.
    Uniform,
    /// Nine of ten times one of a tenth of the keys.
    Hot,
}

struct Log {
    ledger: Ledger,
    versions: Vec<u64>,
    next: u64,
    segment: u64,
    random: u64,
    copied: u64,
}

impl Log {
    fn random(&mut self, below: usize) -> usize {
        // Marsaglia's xorshift64: https://doi.org/10.18637/jss.v008.i14
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below as u64) as usize
    }

    fn write_segment(&mut self, mut next_key: impl FnMut(&mut Log) -> usize) {
        self.segment += 1;
        let first = self.next;
        self.next += PER_SEGMENT;
        let tally = Tally { puts: PER_SEGMENT, put_bytes: PER_SEGMENT * RECORD, ..Tally::default() };
        self.ledger.appended(self.segment, first, PER_SEGMENT * RECORD, tally);
        for version in first..self.next {
            let key = next_key(self);
            let old = std::mem::replace(&mut self.versions[key], version);
            if old > 0 {
                self.ledger.died(old, RECORD as usize);
            }
        }
    }

    /// Compacts until live data is at least this share of the sealed segments.
    fn compact(&mut self, share: f64) {
        while (self.ledger.live_bytes() as f64) < share * self.ledger.sealed_bytes() as f64 {
            let Some((_, sealed)) = self.ledger.segments().split_last() else { return };
            let Some(run) = choose(sealed, SEGMENT, Appetite::Any) else { return };
            let within = sealed.iter().filter(|usage| (run.first..=run.last).contains(&usage.number));
            let live: u64 = within.map(|usage| usage.live).sum();
            let bytes = 4_096 + live * RECORD;
            self.copied += bytes;
            let tally = Tally { puts: live, put_bytes: live * RECORD, ..Tally::default() };
            self.ledger.replaced(run.first, run.last, bytes, tally);
        }
    }
}

fn amplification(share: f64, overwrites: Overwrites) -> f64 {
    let versions = vec![0; KEYS];
    let mut log =
        Log { ledger: Ledger::default(), versions, next: 1, segment: 0, random: 88_172_645_463_325_252, copied: 0 };
    let mut fill = 0;
    for _ in 0..KEYS as u64 / PER_SEGMENT {
        log.write_segment(|_| {
            fill += 1;
            fill - 1
        });
    }
    for segment in 0..WARM_UP + COUNTED {
        if segment == WARM_UP {
            log.copied = 0;
        }
        log.write_segment(|log| match overwrites {
            Overwrites::Hot if log.random(10) > 0 => log.random(KEYS / 10),
            _ => log.random(KEYS),
        });
        log.compact(share);
    }
    1.0 + log.copied as f64 / (COUNTED * PER_SEGMENT * RECORD) as f64
}

fn main() {
    if !cargo_bench::runs_this("amplification") {
        return;
    }
    println!("| live data | uniform | 90 % of overwrites to 10 % of the keys |");
    println!("|---:|---:|---:|");
    for percent in [50, 67, 70, 80, 90] {
        let share = f64::from(percent) / 100.0;
        let [uniform, hot] = [Overwrites::Uniform, Overwrites::Hot].map(|overwrites| amplification(share, overwrites));
        println!("| {percent} % | {uniform:.2} | {hot:.2} |");
    }
}
