//! How often caches of equal memory hold what they are asked for.

use crate::cache::{self, Cache};
use crate::lookaside::{self, Hits, Length};
use crate::options::Options;
use crate::table::{self, mib};
use crate::trace::{Pattern, Trace};
use std::io;
use std::path::Path;

/// Accesses for each key before counting begins, and counted: long enough to see what two scans leave behind, and for
/// all hot keys to change.
const WARM_UP: u64 = 6;
const COUNTED: u64 = 10;
/// Part of the keys that are counted right after a restart, one access for each: before a cache has learnt anew.
const AFTER_RESTART: u64 = 2;

/// Runs every pattern on every cache and prints hits and memory.
///
/// # Errors
/// A server fails or refuses a request.
pub fn run(options: &Options, caches: &[Cache], scratch: &Path) -> io::Result<()> {
    let limits = cache::equal_limits(options, caches, scratch)?;
    let mut rows = Vec::new();
    for (cache, &limit) in caches.iter().zip(&limits) {
        let mut row = vec![cache.name().to_owned(), mib(limit)];
        for pattern in Pattern::ALL {
            let (hits, resident) = measure(options, *cache, limit, pattern, scratch)?;
            eprintln!("hit ratio, {}, {}: {:.2}%", pattern.name(), cache.name(), hits.percent());
            row.extend([format!("{:.2}", hits.percent()), mib(resident)]);
        }
        rows.push(row);
    }
    let columns = Pattern::ALL.map(|pattern| [format!("{} hits %", pattern.name()), "resident MiB".to_owned()]);
    let header: Vec<&str> =
        ["server", "limit MiB"].into_iter().chain(columns.iter().flatten().map(String::as_str)).collect();
    table::print("Hit ratio at equal memory", 1, &header, &rows);
    match caches.iter().position(|cache| *cache == Cache::Kvd) {
        Some(kvd) => restarts(options, limits[kvd], scratch),
        None => Ok(()),
    }
}

/// What a restart costs kvd, the one that has something left after it: hits of the same accesses by a daemon that
/// went on, and by one that was killed right before them and started on its log.
fn restarts(options: &Options, limit: u64, scratch: &Path) -> io::Result<()> {
    let counted = options.cache_keys() / AFTER_RESTART;
    let mut rows = Vec::new();
    for pattern in Pattern::ALL {
        eprintln!("hit ratio after a restart, {}", pattern.name());
        let went_on = next_hits(options, limit, pattern, counted, false, scratch)?.percent();
        let restarted = next_hits(options, limit, pattern, counted, true, scratch)?.percent();
        let figures = [went_on, restarted, restarted - went_on].map(|percent| format!("{percent:.2}"));
        rows.push([vec![pattern.name().to_owned()], figures.to_vec()].concat());
    }
    let title = format!("Hit ratio of the next {counted} accesses");
    table::print(&title, 1, &["pattern", "went on %", "killed and restarted %", "points"], &rows);
    Ok(())
}

/// Hits of the accesses that follow when kvd is warm, and has been restarted if asked to.
fn next_hits(
    options: &Options,
    limit: u64,
    pattern: Pattern,
    counted: u64,
    restart: bool,
    scratch: &Path,
) -> io::Result<Hits> {
    let directory = tempfile::tempdir_in(scratch)?;
    let data = directory.path().join("data");
    let protocol = Cache::Kvd.kind().protocol();
    let mut trace = Trace::new(pattern, options.cache_keys());
    let mut server = Cache::Kvd.start(options, &data, limit)?;
    let warm_up = Length { warm_up: WARM_UP * options.cache_keys(), counted: 0 };
    lookaside::run(protocol, &server.address, options.value(), &mut trace, warm_up)?;
    if restart {
        // Dropped is killed.
        drop(server);
        server = Cache::Kvd.start(options, &data, limit)?;
    }
    let hits = lookaside::run(protocol, &server.address, options.value(), &mut trace, Length { warm_up: 0, counted })?;
    server.stop()?;
    Ok(hits)
}

/// Hits, and what the server held at the end.
fn measure(options: &Options, cache: Cache, limit: u64, pattern: Pattern, scratch: &Path) -> io::Result<(Hits, u64)> {
    let directory = tempfile::tempdir_in(scratch)?;
    let server = cache.start(options, &directory.path().join("data"), limit)?;
    let mut trace = Trace::new(pattern, options.cache_keys());
    let length = Length { warm_up: WARM_UP * options.cache_keys(), counted: COUNTED * options.cache_keys() };
    let hits = lookaside::run(cache.kind().protocol(), &server.address, options.value(), &mut trace, length)?;
    let resident = server.process.memory()?.resident;
    server.stop()?;
    Ok((hits, resident))
}
