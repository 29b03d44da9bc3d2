//! Latency where nobody is saturated: all servers at half of what the slowest of them reaches, open loop.
//!
//! A closed loop tells the latency of a full server, which is the length of its queue. Here requests leave when they
//! are due, as those of many independent clients do, at the same rate for everybody.

use crate::compare::{drive, filled};
use crate::load::Load;
use crate::options::Options;
use crate::results::Results;
use crate::server::Kind;
use crate::table::{self, short};
use hdrhistogram::Histogram;
use kvd::tools::bench::load::Plan;
use kvd::tools::bench::tally::{Measured, Until};
use serde_json::json;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What is asked, and how everybody is brought to the limit.
const LOADS: [Load; 2] = [Load::set(50, 16), Load::get(50, 16)];
const QUANTILES: [f64; 4] = [0.5, 0.99, 0.999, 1.0];

/// Saturates every server, then asks all of them at the same rate, round by round, and prints what it took.
///
/// # Errors
/// A server fails, refuses a request or loses a key.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path, results: &mut Results) -> io::Result<()> {
    let mut rows = Vec::new();
    for load in LOADS {
        let mut least = f64::INFINITY;
        for kind in kinds {
            eprintln!("half, saturation, {load}, {}", kind.name());
            least = least.min(measure(options, *kind, load, None, scratch)?.rate());
        }
        let rate = least / 2.0;
        let mut latencies: Vec<Option<Histogram<u64>>> = vec![None; kinds.len()];
        for round in 0..options.rounds() {
            for (kind, sum) in kinds.iter().zip(&mut latencies) {
                eprintln!("half, {load}, round {}, {}", round + 1, kind.name());
                let latency = measure(options, *kind, load, Some(rate), scratch)?.overall().latency;
                match sum {
                    None => *sum = Some(latency),
                    Some(sum) => sum.add(&latency).map_err(io::Error::other)?,
                }
            }
        }
        for (kind, latency) in kinds.iter().zip(latencies.iter().flatten()) {
            let micros = QUANTILES.map(|quantile| latency.value_at_quantile(quantile) as f64 / 1e3);
            let mut row = vec![load.to_string(), kind.name().to_owned(), short(rate)];
            row.extend(micros.map(|micros| format!("{micros:.0}")));
            rows.push(row);
            results.add(
                "half",
                json!({
                    "load": load.to_string(), "server": kind.name(), "per_second": rate,
                    "p50_us": micros[0], "p99_us": micros[1], "p99_9_us": micros[2], "max_us": micros[3],
                }),
            );
        }
    }
    let header = ["load", "server", "commands/s", "p50 µs", "p99 µs", "p99.9 µs", "max µs"];
    table::print("Latency at half of what the slowest reaches", 2, &header, &rows);
    Ok(())
}

fn measure(options: &Options, kind: Kind, load: Load, rate: Option<f64>, scratch: &Path) -> io::Result<Measured> {
    let directory = tempfile::tempdir_in(scratch)?;
    let seconds = Duration::from_secs_f64(options.seconds());
    let mut plan = Plan { rate, warm_up: seconds / 3, until: Until::elapsed(seconds), ..load.plan(options, kind) };
    let server = filled(options, kind, load, &plan, directory.path())?;
    if rate.is_some() {
        plan.in_flight = usize::MAX;
    }
    let measured = drive(&server, load, &plan)?;
    server.stop()?;
    Ok(measured)
}
