//! Whether a command costs more when there are more keys: rates and processor time from ten thousand keys on.
//!
//! One server of a kind grows through all numbers, and is measured at each. It syncs every second: with so many keys
//! the disk would otherwise be all that is seen.

use crate::compare::{drive, timed};
use crate::load::Load;
use crate::options::Options;
use crate::results::Results;
use crate::server::{Fsync, Kind, Server};
use crate::table::{self, short};
use kvd::tools::bench::keys::KeyShape;
use kvd::tools::bench::load::Plan;
use serde_json::json;
use std::io;
use std::path::Path;

/// What is asked at each number of keys.
const LOADS: [Load; 2] = [Load::get(50, 16), Load::set(50, 16)];

/// Grows every server and prints what it reached at each number of keys.
///
/// # Errors
/// A server fails, refuses a request or loses a key.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path, results: &mut Results) -> io::Result<()> {
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| *kind != Kind::Bare && *kind == kind.base()).collect();
    let mut rows = Vec::new();
    for kind in kinds {
        let directory = tempfile::tempdir_in(scratch)?;
        let server = Server::start(&options.programs(), kind, &directory.path().join("data"), Fsync::EverySecond)?;
        let empty = server.process.memory()?.resident;
        let mut stored = 0;
        for &keys in options.scale() {
            eprintln!("scale, {keys} keys, {}", kind.name());
            let fill = Plan { keys: keys - stored, first_key: stored, ..LOADS[1].plan(options, kind) };
            drive(&server, LOADS[1], &fill.fill())?;
            stored = keys;
            let resident = server.process.memory()?.resident.saturating_sub(empty);
            let pair = KeyShape::default().size() + options.value().largest;
            let beyond = resident as f64 / keys as f64 - pair as f64;
            let mut row = vec![keys.to_string(), kind.name().to_owned(), format!("{beyond:.0}")];
            for load in LOADS {
                let plan = Plan { keys, ..load.plan(options, kind) };
                let (measured, cost) = timed(options, &server, load, &plan)?;
                let rate = measured.rate();
                row.extend([short(rate), format!("{cost:.2}")]);
                let name = if load.reads == 0 { "set" } else { "get" };
                results.add(
                    "scale",
                    json!({
                        "keys": keys, "server": kind.name(), "operation": name,
                        "commands_per_second": rate, "server_cpu_us": cost, "bytes_beyond_pair": beyond,
                    }),
                );
            }
            rows.push(row);
        }
        server.stop()?;
    }
    let header = [
        "keys",
        "server",
        "bytes a key beyond key and value",
        "GET/s",
        "server CPU µs each",
        "SET/s",
        "server CPU µs each",
    ];
    table::print("Rates by the number of keys", 2, &header, &rows);
    Ok(())
}
