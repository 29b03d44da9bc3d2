//! Servers beside each other under the same loads.
//!
//! Every figure comes from a server started afresh on an empty directory, alone on the machine but for the
//! generator. Servers take turns within a round, and rounds repeat, so that a disk or a neighbour that slows
//! down for a while slows everybody down.

use crate::load::Load;
use crate::options::Options;
use crate::results::Results;
use crate::server::{Fsync, Kind, Server};
use crate::table::{self, least_most, median, ratio, short};
use kvd::tools::bench::load::{self, Plan};
use kvd::tools::bench::tally::{Measured, Until};
use serde_json::json;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Loads that are compared, under one heading.
pub struct Contest<'a> {
    /// What the section is called, in words and as data.
    pub heading: &'a str,
    /// The same as data.
    pub section: &'a str,
    /// What is asked.
    pub loads: Vec<Load>,
    /// Who is asked.
    pub kinds: Vec<Kind>,
}

/// Figures of one server under one load, one element a round.
#[derive(Default)]
struct Figures {
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Microseconds of processor time a command.
    server: Vec<f64>,
    client: Vec<f64>,
}

/// Runs every load against every server, round by round, and prints the medians.
///
/// # Errors
/// A server fails, refuses a request or loses a key.
pub fn run(options: &Options, contest: &Contest<'_>, scratch: &Path, results: &mut Results) -> io::Result<()> {
    let kinds = &contest.kinds;
    let mut rows = Vec::new();
    for &load in &contest.loads {
        let mut figures: Vec<Figures> = kinds.iter().map(|_| Figures::default()).collect();
        for round in 0..options.rounds() {
            for (kind, figures) in kinds.iter().zip(&mut figures) {
                eprintln!("{load}, round {}, {}", round + 1, kind.name());
                measure(options, *kind, load, scratch, figures)?;
            }
        }
        let redis = kinds.iter().position(|kind| *kind == Kind::Redis).map(|i| median(&figures[i].rate));
        for (kind, figures) in kinds.iter().zip(&figures) {
            rows.push(figures.row(options, load, *kind, redis));
            results.add(contest.section, figures.record(options, load, *kind));
        }
    }
    let header = [
        "load",
        "server",
        "commands/s",
        "least–most",
        "to Redis",
        "MiB/s",
        "p50 µs",
        "p99 µs",
        "server CPU µs each",
        "client CPU µs each",
    ];
    table::print(contest.heading, 2, &header, &rows);
    Ok(())
}

/// A server that syncs every write and holds every key that a plan of this load may ask for.
///
/// # Errors
/// It can't be started, or refuses a write.
pub fn filled(options: &Options, kind: Kind, load: Load, plan: &Plan, directory: &Path) -> io::Result<Server> {
    // memcached takes no value of 1 MiB unless it is told.
    let long = kind.base() == Kind::Memcached && load.bytes(options) >= 1 << 19;
    let arguments = if long { vec!["-I".to_owned(), "16m".to_owned()] } else { Vec::new() };
    let directory = directory.join("data");
    let server = Server::start_with(&options.programs(), kind, &directory, Fsync::Always, &arguments)?;
    let single = Plan { commands: 1, ..plan.clone() };
    load::run(kind.protocol(), &server.address, &single.fill())?.whole()?;
    Ok(server)
}

/// Puts a server that holds all keys that are read under a load.
///
/// # Errors
/// It fails, refuses a request or loses a key.
pub fn drive(server: &Server, load: Load, plan: &Plan) -> io::Result<Measured> {
    let measured = load::run(load.protocol(server.kind), &server.address, plan)?.whole()?;
    match measured.misses() {
        0 => Ok(measured),
        lost => Err(io::Error::other(format!("{}: {lost} keys were lost", server.kind.name()))),
    }
}

/// Puts a server that holds all keys under a load, after a warm-up. Returns what came of it, and the microseconds of the
/// server's processor time that each command took.
///
/// # Errors
/// It fails, refuses a request or loses a key.
pub fn timed(options: &Options, server: &Server, load: Load, plan: &Plan) -> io::Result<(Measured, f64)> {
    let seconds = Duration::from_secs_f64(options.seconds());
    drive(server, load, &Plan { until: Until::elapsed(seconds / 3), ..plan.clone() })?;
    let before = server.process.processor_time()?;
    let measured = drive(server, load, &Plan { until: Until::elapsed(seconds), ..plan.clone() })?;
    let spent = server.process.processor_time()?.saturating_sub(before);
    let each = microseconds_each(spent, &measured);
    Ok((measured, each))
}

fn microseconds_each(time: Duration, measured: &Measured) -> f64 {
    time.as_secs_f64() * 1e6 / measured.count() as f64
}

fn measure(options: &Options, kind: Kind, load: Load, scratch: &Path, figures: &mut Figures) -> io::Result<()> {
    let directory = tempfile::tempdir_in(scratch)?;
    let plan = load.plan(options, kind);
    let server = filled(options, kind, load, &plan, directory.path())?;
    let (measured, each) = timed(options, &server, load, &plan)?;
    server.stop()?;
    let latency = measured.overall().latency;
    figures.rate.push(measured.rate());
    figures.p50.push(latency.value_at_quantile(0.50) as f64 / 1e3);
    figures.p99.push(latency.value_at_quantile(0.99) as f64 / 1e3);
    figures.server.push(each);
    figures.client.push(microseconds_each(measured.client, &measured));
    Ok(())
}

impl Figures {
    fn row(&self, options: &Options, load: Load, kind: Kind, redis: Option<f64>) -> Vec<String> {
        let bandwidth = median(&self.rate) * load.bytes(options) as f64 / f64::from(1 << 20);
        // The bare ROUTER answers a GET without a value.
        let has_values = kind != Kind::Bare || load.reads == 0;
        vec![
            load.to_string(),
            kind.name().to_owned(),
            short(median(&self.rate)),
            least_most(&self.rate),
            ratio(median(&self.rate), redis),
            if has_values { format!("{bandwidth:.0}") } else { "–".to_owned() },
            format!("{:.0}", median(&self.p50)),
            format!("{:.0}", median(&self.p99)),
            format!("{:.2}", median(&self.server)),
            format!("{:.2}", median(&self.client)),
        ]
    }

    fn record(&self, options: &Options, load: Load, kind: Kind) -> serde_json::Value {
        json!({
            "load": load.to_string(), "server": kind.name(),
            "reads_percent": load.reads, "peers": load.peers, "in_flight": load.in_flight, "commands": load.commands,
            "value": load.bytes(options), "rates": self.rate, "commands_per_second": median(&self.rate),
            "p50_us": median(&self.p50), "p99_us": median(&self.p99),
            "server_cpu_us": median(&self.server), "client_cpu_us": median(&self.client),
        })
    }
}
