//! Servers with a limit to their memory: how each is told, and which limit makes it as large as another.
//!
//! Limits mean different things: memcached counts its items, Redis what its allocator gave it, kvd its table. What
//! an operator pays for is the memory that the process holds, so that is what is made equal.

use crate::lookaside::{self, Length};
use crate::options::Options;
use crate::server::{Fsync, Kind, Server};
use crate::trace::{Pattern, Trace};
use std::io;
use std::path::Path;

/// memcached takes its limit in these.
const MIB: u64 = 1 << 20;
/// With less a server has hardly room for its connections.
const LEAST: u64 = 4 * MIB;
/// How near the memory must come to what is wanted: half of what is promised, since a workload moves it a little.
const NEAR: f64 = 0.01;
/// Limits that are tried before the last one has to do.
const TRIES: u32 = 8;

/// A server and its way of making room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// kvd.
    Kvd,
    /// Redis, least recently used of five.
    RedisLru,
    /// Redis, least frequently used of five.
    RedisLfu,
    /// memcached, segmented LRU.
    Memcached,
}

impl Cache {
    /// All of them.
    pub const ALL: [Cache; 4] = [Cache::Kvd, Cache::RedisLru, Cache::RedisLfu, Cache::Memcached];

    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Cache::Kvd => "kvd",
            Cache::RedisLru => "Redis allkeys-lru",
            Cache::RedisLfu => "Redis allkeys-lfu",
            Cache::Memcached => "memcached",
        }
    }

    /// The server that it is.
    pub fn kind(self) -> Kind {
        match self {
            Cache::Kvd => Kind::Kvd,
            Cache::RedisLru | Cache::RedisLfu => Kind::Redis,
            Cache::Memcached => Kind::Memcached,
        }
    }

    /// Starts it, empty, with this limit in bytes.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start(self, options: &Options, directory: &Path, limit: u64) -> io::Result<Server> {
        let redis = |policy: &str| {
            // As a cache, without its file: that costs it time and memory, and wins it no hits.
            let limit = limit.to_string();
            ["--appendonly", "no", "--maxmemory", &limit, "--maxmemory-policy", policy].map(str::to_owned).to_vec()
        };
        let arguments = match self {
            Cache::Kvd => vec!["--max-memory".to_owned(), limit.to_string()],
            Cache::RedisLru => redis("allkeys-lru"),
            Cache::RedisLfu => redis("allkeys-lfu"),
            // One thread has the least memory of its own, and is what the others answer with.
            Cache::Memcached => ["-t", "1", "-m", &(limit / MIB).to_string()].map(str::to_owned).to_vec(),
        };
        Server::start_with(&options.programs(), self.kind(), directory, Fsync::Never, &arguments)
    }
}

/// The limit of each cache, in bytes, that makes all of them hold the same memory.
///
/// # Errors
/// A server fails or refuses a request.
pub fn equal_limits(options: &Options, caches: &[Cache], scratch: &Path) -> io::Result<Vec<u64>> {
    // The one whose limit is coarse is given it, and the others have to follow.
    let Some(&first) = caches.iter().find(|cache| **cache == Cache::Memcached).or(caches.first()) else {
        return Ok(Vec::new());
    };
    let given = options.cache_memory();
    let (_, target) = resident(options, first, given, scratch)?;
    caches
        .iter()
        .map(|cache| if *cache == first { Ok(given) } else { limit_for(options, *cache, target, scratch) })
        .collect()
}

/// The limit that makes a cache hold `target` bytes: by interpolation between one that is too low and one that is
/// too high, since memory does not grow evenly (tables double).
fn limit_for(options: &Options, cache: Cache, target: u64, scratch: &Path) -> io::Result<u64> {
    let (mut limit, mut low, mut high) = (target, (0, 0), None);
    for _ in 0..if options.smoke() { 1 } else { TRIES } {
        let (empty, full) = resident(options, cache, limit, scratch)?;
        let off = full as f64 / target as f64 - 1.0;
        eprintln!("{}: a limit of {limit} bytes takes {full}, {:+.1}% off", cache.name(), off * 100.0);
        if off.abs() <= NEAR {
            return Ok(limit);
        }
        if full > target {
            high = Some((limit, full));
        } else {
            low = (limit, full);
        }
        if low.0 == 0 {
            low.1 = empty.min(target);
        }
        limit = match high {
            Some(high) => between(low, high, target).max(LEAST),
            None => limit * 2,
        };
    }
    eprintln!("{}: no limit found that takes {target} bytes", cache.name());
    Ok(limit)
}

/// The limit at which the line through two pairs of limit and memory reaches `target`, but never one of the two.
fn between(low: (u64, u64), high: (u64, u64), target: u64) -> u64 {
    let permille = ((target - low.1) * 1000 / (high.1 - low.1)).clamp(100, 900);
    low.0 + (high.0 - low.0) * permille / 1000
}

/// What a cache with this limit holds in memory: empty, and when it has long been full.
fn resident(options: &Options, cache: Cache, limit: u64, scratch: &Path) -> io::Result<(u64, u64)> {
    let directory = tempfile::tempdir_in(scratch)?;
    let server = cache.start(options, &directory.path().join("data"), limit)?;
    let empty = server.process.memory()?.resident;
    let mut trace = Trace::new(Pattern::Still, options.cache_keys());
    // As long as it will be measured: what a server holds grows for a while after it is full.
    let length = Length { warm_up: 12 * options.cache_keys(), counted: 0 };
    lookaside::run(cache.kind().protocol(), &server.address, options.value(), &mut trace, length)?;
    let full = server.process.memory()?.resident;
    server.stop()?;
    Ok((empty, full))
}
