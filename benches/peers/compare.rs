//! Servers beside each other under the same loads.
//!
//! Every figure comes from a server started afresh on an empty directory, alone on the machine but for the
//! generator. Servers take turns within a round, and rounds repeat, so that a disk or a neighbour that slows
//! down for a while slows everybody down.

use crate::load::Load;
use crate::options::Options;
use crate::server::{Fsync, Kind, Server};
use crate::table::{self, median, ratio, short};
use kvd::tools::bench::load::{self, Plan};
use kvd::tools::bench::tally::{Measured, Until};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Figures of one server under one load, one element a round.
#[derive(Default)]
struct Figures {
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Microseconds of processor time a message.
    server: Vec<f64>,
    client: Vec<f64>,
}

/// Runs every load against every server, round by round, and prints the medians.
///
/// # Errors
/// A server fails, refuses a request or loses a key.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path) -> io::Result<()> {
    let mut rows = Vec::new();
    for &load in &options.loads() {
        let mut figures: Vec<Figures> = kinds.iter().map(|_| Figures::default()).collect();
        for round in 0..options.rounds() {
            for (kind, figures) in kinds.iter().zip(&mut figures) {
                eprintln!("{load}, round {}, {}", round + 1, kind.name());
                measure(options, *kind, load, scratch, figures)?;
            }
        }
        let redis = kinds.iter().position(|kind| *kind == Kind::Redis).map(|i| median(&figures[i].rate));
        for (kind, figures) in kinds.iter().zip(&figures) {
            rows.push(figures.row(load, *kind, redis));
        }
    }
    table::print(
        "Loads",
        2,
        &[
            "load",
            "server",
            "msg/s",
            "least–most",
            "to Redis",
            "p50 µs",
            "p99 µs",
            "server CPU µs/msg",
            "client CPU µs/msg",
        ],
        &rows,
    );
    Ok(())
}

/// A server that syncs every write and holds every key that a load may ask for.
///
/// # Errors
/// It can't be started, or refuses a write.
pub fn filled(options: &Options, kind: Kind, directory: &Path) -> io::Result<Server> {
    let server = Server::start(&options.programs(), kind, &directory.join("data"), Fsync::Always)?;
    let fill = Load::set(1, 1).plan(options).fill();
    load::run(kind.protocol(), &server.address, &fill)?.whole()?;
    Ok(server)
}

fn drive(kind: Kind, server: &Server, plan: &Plan) -> io::Result<Measured> {
    load::run(kind.protocol(), &server.address, plan)?.whole()
}

fn measure(options: &Options, kind: Kind, load: Load, scratch: &Path, figures: &mut Figures) -> io::Result<()> {
    let directory = tempfile::tempdir_in(scratch)?;
    let server = filled(options, kind, directory.path())?;
    let seconds = Duration::from_secs_f64(options.seconds());
    let plan = load.plan(options);
    drive(kind, &server, &Plan { until: Until::elapsed(seconds / 3), ..plan.clone() })?;
    let before = server.process.processor_time()?;
    let measured = drive(kind, &server, &Plan { until: Until::elapsed(seconds), ..plan })?;
    let spent = server.process.processor_time()?.saturating_sub(before);
    server.stop()?;
    if measured.misses() > 0 {
        return Err(io::Error::other(format!("{}: {} keys were lost", kind.name(), measured.misses())));
    }

    let each = |time: Duration| time.as_secs_f64() * 1e6 / measured.count() as f64;
    let latency = measured.overall().latency;
    figures.rate.push(measured.rate());
    figures.p50.push(latency.value_at_quantile(0.50) as f64 / 1e3);
    figures.p99.push(latency.value_at_quantile(0.99) as f64 / 1e3);
    figures.server.push(each(spent));
    figures.client.push(each(measured.client));
    Ok(())
}

impl Figures {
    fn row(&self, load: Load, kind: Kind, redis: Option<f64>) -> Vec<String> {
        let least = self.rate.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.rate.iter().copied().fold(0.0, f64::max);
        vec![
            load.to_string(),
            kind.name().to_owned(),
            short(median(&self.rate)),
            format!("{}–{}", short(least), short(most)),
            ratio(median(&self.rate), redis),
            format!("{:.0}", median(&self.p50)),
            format!("{:.0}", median(&self.p99)),
            format!("{:.2}", median(&self.server)),
            format!("{:.2}", median(&self.client)),
        ]
    }
}
