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

/// Runs every pattern on every cache and prints hits and memory.
///
/// # Errors
/// A server fails or refuses a request.
pub fn run(options: &Options, caches: &[Cache], scratch: &Path) -> io::Result<()> {
    let limits = cache::equal_limits(options, caches, scratch)?;
    let mut rows = Vec::new();
    for (cache, limit) in caches.iter().zip(limits) {
        let mut row = vec![cache.name().to_owned(), mib(limit)];
        for pattern in Pattern::ALL {
            eprintln!("hit ratio, {}, {}", pattern.name(), cache.name());
            let (hits, resident) = measure(options, *cache, limit, pattern, scratch)?;
            row.extend([format!("{:.2}", hits.percent()), mib(resident)]);
        }
        rows.push(row);
    }
    let columns = Pattern::ALL.map(|pattern| [format!("{} hits %", pattern.name()), "resident MiB".to_owned()]);
    let header: Vec<&str> =
        ["server", "limit MiB"].into_iter().chain(columns.iter().flatten().map(String::as_str)).collect();
    table::print("Hit ratio at equal memory", 1, &header, &rows);
    Ok(())
}

/// Hits, and what the server held at the end.
fn measure(options: &Options, cache: Cache, limit: u64, pattern: Pattern, scratch: &Path) -> io::Result<(Hits, u64)> {
    let directory = tempfile::tempdir_in(scratch)?;
    let server = cache.start(options, &directory.path().join("data"), limit)?;
    let mut trace = Trace::new(pattern, options.cache_keys());
    let length = Length { warm_up: WARM_UP * options.cache_keys(), counted: COUNTED * options.cache_keys() };
    let hits = lookaside::run(cache.kind().protocol(), server.address, &options.value(), &mut trace, length)?;
    let resident = server.process.memory()?.resident;
    server.stop()?;
    Ok((hits, resident))
}
