//! Whether reads wait for the disk: one peer's GETs, alone and beside peers that write.
//!
//! A server that syncs on the thread that answers shows the length of a sync here. On a machine of few cores
//! the writers' share of the processor shows as well, so a row stands only beside another server's.

use crate::compare::{drive, filled};
use crate::load::Load;
use crate::options::Options;
use crate::server::Kind;
use crate::table::{self, median, short};
use kvd::tools::bench::load::Plan;
use kvd::tools::bench::tally::{Measured, Until};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Who is timed.
const READER: Load = Load::get(1, 1);
/// Requests in flight of each writer, a row each; 0 is a reader alone.
const WRITERS: [usize; 3] = [0, 1, 16];
/// How many writers there are.
const PEERS: usize = 8;

/// Times the reader beside each kind of writers, round by round, and prints the medians.
///
/// # Errors
/// A server fails, refuses a request or loses a key.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path) -> io::Result<()> {
    let mut rows = Vec::new();
    for in_flight in WRITERS {
        let name = match in_flight {
            0 => "alone".to_owned(),
            _ => format!("beside {}", Load::set(PEERS, in_flight)),
        };
        let mut figures = vec![[const { Vec::new() }; 4]; kinds.len()];
        for round in 0..options.rounds() {
            for (kind, figures) in kinds.iter().zip(&mut figures) {
                eprintln!("reads {name}, round {}, {}", round + 1, kind.name());
                let (reads, writes) = measure(options, *kind, in_flight, scratch)?;
                figures[0].push(reads.rate());
                let latency = reads.overall().latency;
                figures[1].push(latency.value_at_quantile(0.50) as f64 / 1e3);
                figures[2].push(latency.value_at_quantile(0.99) as f64 / 1e3);
                figures[3].push(writes.map_or(0.0, |writes| writes.rate()));
            }
        }
        for (kind, figures) in kinds.iter().zip(&figures) {
            let [rate, p50, p99, writes] = figures.each_ref().map(|figures| median(figures));
            let figures = [short(rate), format!("{p50:.0}"), format!("{p99:.0}"), short(writes)];
            rows.push([name.clone(), kind.name().to_owned()].into_iter().chain(figures).collect());
        }
    }
    let header = ["GETs of one peer", "server", "GET/s", "p50 µs", "p99 µs", "SET/s beside"];
    table::print("Reads beside writers", 2, &header, &rows);
    Ok(())
}

fn measure(
    options: &Options,
    kind: Kind,
    in_flight: usize,
    scratch: &Path,
) -> io::Result<(Measured, Option<Measured>)> {
    let directory = tempfile::tempdir_in(scratch)?;
    let server = filled(options, kind, READER, &READER.plan(options, kind), directory.path())?;
    let seconds = Duration::from_secs_f64(options.seconds());
    let drive =
        |load: Load, time| drive(&server, load, &Plan { until: Until::elapsed(time), ..load.plan(options, kind) });
    let both = thread::scope(|scope| {
        let writers = (in_flight > 0).then(|| {
            let load = Load::set(PEERS, in_flight);
            // Longer than the reader, so that it is never alone while it is timed.
            scope.spawn(move || drive(load, seconds * 3 / 2))
        });
        drive(READER, seconds / 3)?;
        let reads = drive(READER, seconds)?;
        let beside = writers.map(|thread| thread.join().expect("the writers' thread does not panic"));
        Ok::<_, io::Error>((reads, beside.transpose()?))
    })?;
    server.stop()?;
    Ok(both)
}
