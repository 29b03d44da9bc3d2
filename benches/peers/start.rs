//! How long a start takes where there is nothing to read: from the start of the process to the first answered GET.

use crate::options::Options;
use crate::results::Results;
use crate::server::{Fsync, Kind, Server};
use crate::table::{self, median};
use serde_json::json;
use std::io;
use std::path::Path;

/// Starts every server on an empty directory, round by round, and prints the medians.
///
/// # Errors
/// A server does not start.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path, results: &mut Results) -> io::Result<()> {
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| *kind != Kind::Bare && *kind == kind.base()).collect();
    let mut times = vec![Vec::new(); kinds.len()];
    for round in 0..options.rounds() {
        for (kind, times) in kinds.iter().zip(&mut times) {
            eprintln!("start, round {}, {}", round + 1, kind.name());
            let directory = tempfile::tempdir_in(scratch)?;
            let server = Server::start(&options.programs(), *kind, &directory.path().join("data"), Fsync::Always)?;
            times.push(server.ready_after.as_secs_f64() * 1e3);
            server.stop()?;
        }
    }
    let mut rows = Vec::new();
    for (kind, times) in kinds.iter().zip(&times) {
        rows.push(vec![kind.name().to_owned(), format!("{:.0}", median(times))]);
        results.add("start", json!({ "server": kind.name(), "ready_after_ms": times }));
    }
    table::print("Start on an empty directory", 1, &["server", "ready after ms"], &rows);
    Ok(())
}
