//! What to run, from the command line.
//!
//! `--smoke` changes the defaults and nothing else: every part runs, each for a blink.

use crate::cache::Cache;
use crate::load::Load;
use crate::sections::{Section, Sections};
use crate::server::{Kind, Programs};
use clap::Parser;
use kvd::tools::bench::values::ValueSize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// kvd, Redis and a bare ROUTER of libzmq under the same load.
#[derive(Debug, Parser)]
#[command(name = "peers")]
pub struct Options {
    #[command(flatten)]
    sections: Sections,
    /// Everything, tiny: does it work? Servers that are not installed are left out
    #[arg(long)]
    smoke: bool,
    /// Only these loads: set, get, mix (half of each) or mix90: (so many GETs), then peers x requests in flight
    #[arg(long, value_name = "LOAD", value_delimiter = ',')]
    only: Vec<Load>,
    /// Who takes part, in this order
    #[arg(long, value_name = "SERVER", value_delimiter = ',', value_enum)]
    servers: Vec<Kind>,
    /// Seconds that each figure is measured for; a third of it goes before as a warm-up [default: 3]
    #[arg(long)]
    seconds: Option<f64>,
    /// Times that everything is repeated; tables show medians [default: 3]
    #[arg(long)]
    rounds: Option<u32>,
    /// Keys that loads choose from [default: 100000; with --hit-ratio 2000000, with --compaction 10000,
    /// with --pauses 10000000]
    #[arg(long)]
    keys: Option<u64>,
    /// Records that --replay writes [default: 5000000]
    #[arg(long)]
    records: Option<u64>,
    /// MiB of the limit of memcached, which takes no finer one, with --hit-ratio; the others get as much memory
    /// [default: 64]
    #[arg(long, value_name = "MIB")]
    cache_memory: Option<u64>,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value: usize,
    /// A file to put the figures into, as JSON; sections that are not measured now stay in it. --reads, --replay,
    /// --compaction, --memory and --hit-ratio put none there
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// The kvd to run instead of the one just built
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_kvd"), hide_default_value = true)]
    kvd: PathBuf,
    /// One more argument for kvd; may be repeated
    #[arg(long = "kvd-arg", value_name = "ARGUMENT", allow_hyphen_values = true)]
    kvd_arguments: Vec<String>,
    /// The redis-server to run
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis: PathBuf,
    /// The memcached to run
    #[arg(long, value_name = "PATH", default_value = "memcached")]
    memcached: PathBuf,
    /// Cargo says this for `cargo bench`, and leaves it out for `cargo test --benches`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether anything was asked for. `cargo test` builds benches to see that they build; that is no
    /// reason to keep a machine busy for minutes.
    pub fn wanted(&self) -> bool {
        self.bench || self.smoke
    }

    /// Whether this is only to see that everything works.
    pub fn smoke(&self) -> bool {
        self.smoke
    }

    /// The parts to run.
    pub fn sections(&self) -> Vec<Section> {
        self.sections.chosen(self.smoke)
    }

    /// Where the figures go as data, if anywhere.
    pub fn results(&self) -> Option<&Path> {
        self.results.as_deref()
    }

    /// Numbers of keys of --scale.
    pub fn scale(&self) -> &'static [u64] {
        if self.smoke { &[1_000, 5_000] } else { &[10_000, 100_000, 1_000_000, 5_000_000, 20_000_000] }
    }

    /// Keys of --pauses.
    pub fn pause_keys(&self) -> u64 {
        self.keys.unwrap_or(if self.smoke { 20_000 } else { 10_000_000 })
    }

    /// How long --pauses goes on watching once a FLUSH is answered.
    pub fn aftermath(&self) -> Duration {
        Duration::from_millis(if self.smoke { 150 } else { 3_000 })
    }

    /// The loads to run: all but the ones that say nothing new, since the full product takes hours.
    pub fn loads(&self) -> Vec<Load> {
        const SHAPES: [(usize, usize); 8] =
            [(1, 1), (1, 16), (1, 128), (50, 1), (50, 16), (50, 128), (500, 1), (500, 16)];
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let shapes = if self.smoke { &[(1, 1), (50, 16)][..] } else { &SHAPES };
        let of = |load: fn(usize, usize) -> Load| shapes.iter().map(move |&(peers, in_flight)| load(peers, in_flight));
        let mixed = [90, 50].map(|reads| Load { reads, ..Load::set(50, 16) });
        of(Load::set).chain(of(Load::get)).chain(mixed).collect()
    }

    /// The loads with values of other sizes: large ones are fewer in flight.
    pub fn sizes() -> Vec<Load> {
        let of = |reads| {
            [(50, 16, 16), (50, 16, 100), (50, 16, 1 << 10), (50, 4, 64 << 10), (8, 1, 1 << 20)]
                .map(|(peers, in_flight, value)| Load { reads, value: Some(value), ..Load::set(peers, in_flight) })
        };
        of(0).into_iter().chain(of(100)).collect()
    }

    /// The loads of packed messages.
    pub fn packed() -> Vec<Load> {
        let of = |reads| [(50, 16), (8, 128)].map(|(peers, commands)| Load { reads, commands, ..Load::set(peers, 1) });
        of(0).into_iter().chain(of(100)).collect()
    }

    /// Who takes part.
    pub fn servers(&self) -> Vec<Kind> {
        match self.servers.as_slice() {
            [] if self.smoke => vec![Kind::Kvd, Kind::Redis, Kind::Bare],
            [] => vec![Kind::Kvd, Kind::Redis],
            chosen => chosen.to_vec(),
        }
    }

    /// Who takes part in the hit ratios.
    pub fn caches(&self) -> Vec<Cache> {
        let chosen = |cache: &Cache| self.servers.is_empty() || self.servers.contains(&cache.kind());
        let installed = |cache: &Cache| !self.smoke || self.programs().has(cache.kind());
        Cache::ALL.into_iter().filter(chosen).filter(installed).collect()
    }

    /// Seconds a figure.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.smoke { 0.15 } else { 3.0 })
    }

    /// How often everything is repeated.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.smoke { 1 } else { 3 })
    }

    /// Keys that loads choose from.
    pub fn keys(&self) -> u64 {
        self.keys.unwrap_or(if self.smoke { 1_000 } else { 100_000 })
    }

    /// Keys that are popular to some degree in the hit ratios.
    pub fn cache_keys(&self) -> u64 {
        self.keys.unwrap_or(if self.smoke { 20_000 } else { 2_000_000 })
    }

    /// Keys that are overwritten while the log is compacted.
    pub fn overwritten_keys(&self) -> u64 {
        self.keys.unwrap_or(if self.smoke { 100 } else { 10_000 })
    }

    /// The limit of the memory in the hit ratios, in bytes.
    pub fn cache_memory(&self) -> u64 {
        self.cache_memory.unwrap_or(if self.smoke { 2 } else { 64 }) << 20
    }

    /// Records that a replay reads.
    pub fn records(&self) -> u64 {
        self.records.unwrap_or(if self.smoke { 20_000 } else { 5_000_000 })
    }

    /// The length of the values that are written.
    pub fn value(&self) -> ValueSize {
        ValueSize::fixed(self.value)
    }

    /// Where the servers' programs are.
    pub fn programs(&self) -> Programs {
        Programs {
            kvd: self.kvd.clone(),
            kvd_arguments: self.kvd_arguments.clone(),
            redis: self.redis.clone(),
            memcached: self.memcached.clone(),
        }
    }
}
