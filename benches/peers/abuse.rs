//! How long ordinary peers wait while others break the rules.
//!
//! Readers and writers ask at a quarter of the rate that saturates as many, whether or not earlier requests are answered: alone,
//! then beside each kind of [`Abuse`] of another server, then beside the same of their own. On a machine of few processors
//! abusers take time by being there at all; what they do to the other server shows how much.

use crate::abuses::Abuse;
use crate::compare::{drive, filled};
use crate::load::Load;
use crate::options::Options;
use crate::process::Memory;
use crate::results::Results;
use crate::server::{Kind, Server};
use crate::table::{self, median, mib, ratio, short};
use kvd::descriptors::raise_limit;
use kvd::tools::bench::load::Plan;
use kvd::tools::bench::tally::Until;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Who waits: four that read, and four that write. A peer that does both would wait for the disk in either case.
const READERS: Load = Load::get(4, 1);
const WRITERS: Load = Load::set(4, 1);
/// What saturates a server: as many that do both.
const SATURATION: Load = Load { reads: 50, ..Load::set(8, 1) };
/// The part of that rate which they ask at.
const PART: f64 = 0.25;

/// Where the abuse goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    AnotherServer,
    ThisServer,
}

impl Beside {
    const ALL: [Beside; 3] = [Beside::Nothing, Beside::AnotherServer, Beside::ThisServer];

    fn name(self) -> &'static str {
        match self {
            Beside::Nothing => "none",
            Beside::AnotherServer => "of another server",
            Beside::ThisServer => "of this server",
        }
    }
}

/// Of one place of the abuse, a figure a round: p50, p99 and the maximum in microseconds, of readers and of writers.
type Waits = [[Vec<f64>; 3]; 2];

/// What the abuse came to where it met the server that is timed, a figure a round.
#[derive(Default)]
struct Cost {
    connections: Vec<f64>,
    mebibytes: Vec<f64>,
    /// Processors that the abuser and the server kept busy.
    abuser: Vec<f64>,
    server: Vec<f64>,
    /// Of the server, the most of all rounds.
    before: u64,
    peak: u64,
}

/// Times the ordinary peers beside each kind of abuse, round by round, and prints the medians.
///
/// # Errors
/// A server fails, refuses an ordinary request or loses a key.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path, results: &mut Results) -> io::Result<()> {
    raise_limit();
    // Abuse is bytes of ZMTP.
    let speaks = |kind: &Kind| matches!(kind.base(), Kind::Kvd | Kind::Bare);
    let mut costs = Vec::new();
    for kind in kinds.iter().copied().filter(speaks) {
        let rate = PART * saturation(options, kind, scratch)?;
        let mut figures: Vec<(Abuse, [Waits; 3], Cost)> =
            Abuse::ALL.map(|abuse| (abuse, Default::default(), Cost::default())).into();
        for round in 0..options.rounds() {
            for (abuse, waits, cost) in &mut figures {
                eprintln!("abuse, round {}, {}, {}", round + 1, kind.name(), abuse.name());
                Course { options, kind, abuse: *abuse, rate, scratch }.run(waits, cost)?;
            }
        }
        let mut rows = Vec::new();
        for (abuse, places, cost) in &figures {
            for (beside, place) in Beside::ALL.into_iter().zip(places) {
                rows.push(row(*abuse, kind, beside, place, &places[0]));
                results.add("abuse", record(*abuse, kind, rate, beside, place));
            }
            costs.push(cost.row(*abuse, kind));
            results.add("abuse_cost", cost.record(*abuse, kind));
        }
        let heading = format!("Ordinary peers beside abuse, {} requests/s, µs", short(rate));
        let header =
            ["abuse", "server", "beside", "GET p50", "p99", "to none", "max", "SET p50", "p99", "to none", "max"];
        table::print(&heading, 3, &header, &rows);
    }
    let header = [
        "abuse",
        "server",
        "connections/s",
        "MiB/s",
        "abuser's processors",
        "server's processors",
        "MiB before",
        "MiB peak",
    ];
    table::print("What the abuse of this server comes to", 2, &header, &costs);
    Ok(())
}

/// Requests a second of the ordinary peers when they wait for nothing but the server.
fn saturation(options: &Options, kind: Kind, scratch: &Path) -> io::Result<f64> {
    eprintln!("abuse, saturation, {}", kind.name());
    let directory = tempfile::tempdir_in(scratch)?;
    let seconds = Duration::from_secs_f64(options.seconds());
    let plan = Plan { warm_up: seconds / 3, until: Until::elapsed(seconds), ..SATURATION.plan(options, kind) };
    let server = filled(options, kind, SATURATION, &plan, directory.path())?;
    let measured = drive(&server, SATURATION, &plan)?;
    server.stop()?;
    Ok(measured.rate())
}

/// One round of one kind of abuse.
struct Course<'a> {
    options: &'a Options,
    kind: Kind,
    abuse: Abuse,
    rate: f64,
    scratch: &'a Path,
}

impl Course<'_> {
    fn run(&self, waits: &mut [Waits; 3], cost: &mut Cost) -> io::Result<()> {
        let directories = [tempfile::tempdir_in(self.scratch)?, tempfile::tempdir_in(self.scratch)?];
        let plan = SATURATION.plan(self.options, self.kind);
        let start = |directory: &Path| filled(self.options, self.kind, SATURATION, &plan, directory);
        let [this, another] = [start(directories[0].path())?, start(directories[1].path())?];
        self.time(&this, &mut waits[0])?;
        self.abuse(&this, &another, &mut waits[1], &mut Cost::default())?;
        // What it still has to do would be a burden too.
        drop(another);
        self.abuse(&this, &this, &mut waits[2], cost)?;
        this.stop()
    }

    /// Drives a server as ordinary peers do.
    fn time(&self, server: &Server, waits: &mut Waits) -> io::Result<()> {
        let seconds = Duration::from_secs_f64(self.options.seconds());
        let asked = |load: Load| {
            let plan = Plan {
                rate: Some(self.rate / 2.0),
                in_flight: usize::MAX,
                warm_up: seconds / 3,
                until: Until::elapsed(seconds),
                ..load.plan(self.options, self.kind)
            };
            drive(server, load, &plan)
        };
        let both = thread::scope(|scope| {
            let writers = scope.spawn(|| asked(WRITERS));
            Ok::<_, io::Error>([asked(READERS)?, writers.join().expect("the writers' thread does not panic")?])
        })?;
        for (measured, figures) in both.iter().zip(waits) {
            let latency = measured.overall().latency;
            let times = [latency.value_at_quantile(0.5), latency.value_at_quantile(0.99), latency.max()];
            for (time, figures) in times.into_iter().zip(figures) {
                figures.push(time as f64 / 1e3);
            }
        }
        Ok(())
    }

    /// Drives `timed` while `victim`, which may be the same, is abused.
    fn abuse(&self, timed: &Server, victim: &Server, waits: &mut Waits, cost: &mut Cost) -> io::Result<()> {
        let Memory { resident, .. } = victim.process.memory()?;
        let mut abuser = self.abuse.begin(victim)?;
        let (begun, start, busy) = (abuser.done(), Instant::now(), victim.process.processor_time()?);
        let is_over = AtomicBool::new(false);
        let (timing, outcome) = thread::scope(|scope| {
            let abusing = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    abuser.go_on()?;
                }
                // Of this thread alone.
                let spent = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
                Ok::<_, io::Error>((abuser.done(), spent))
            });
            let timing = self.time(timed, waits);
            is_over.store(true, Ordering::Relaxed);
            (timing, abusing.join().expect("an abuser does not panic"))
        });
        timing?;
        let ((done, spent), seconds) = (outcome?, start.elapsed().as_secs_f64());
        let served = victim.process.processor_time()?.saturating_sub(busy);
        cost.connections.push((done.connections - begun.connections) as f64 / seconds);
        cost.mebibytes.push((done.bytes - begun.bytes) as f64 / f64::from(1 << 20) / seconds);
        cost.abuser.push(spent.as_secs_f64() / seconds);
        cost.server.push(served.as_secs_f64() / seconds);
        cost.before = cost.before.max(resident);
        cost.peak = cost.peak.max(victim.process.memory()?.peak);
        Ok(())
    }
}

fn row(abuse: Abuse, kind: Kind, beside: Beside, waits: &Waits, alone: &Waits) -> Vec<String> {
    let mut row = vec![abuse.name(), kind.name().to_owned(), beside.name().to_owned()];
    for (waits, alone) in waits.iter().zip(alone) {
        let [p50, p99, most] = waits.each_ref().map(|rounds| median(rounds));
        row.extend([
            format!("{p50:.0}"),
            format!("{p99:.0}"),
            ratio(p99, Some(median(&alone[1]))),
            format!("{most:.0}"),
        ]);
    }
    row
}

fn record(abuse: Abuse, kind: Kind, rate: f64, beside: Beside, waits: &Waits) -> serde_json::Value {
    let [get, set] = waits.each_ref().map(|waits| {
        let [p50, p99, most] = waits.each_ref().map(|rounds| median(rounds));
        json!({ "p50_us": p50, "p99_us": p99, "max_us": most })
    });
    json!({
        "abuse": abuse.name(), "server": kind.name(), "per_second": rate, "beside": beside.name(), "get": get, "set": set,
    })
}

impl Cost {
    fn row(&self, abuse: Abuse, kind: Kind) -> Vec<String> {
        vec![
            abuse.name(),
            kind.name().to_owned(),
            short(median(&self.connections)),
            format!("{:.1}", median(&self.mebibytes)),
            format!("{:.2}", median(&self.abuser)),
            format!("{:.2}", median(&self.server)),
            mib(self.before),
            mib(self.peak),
        ]
    }

    fn record(&self, abuse: Abuse, kind: Kind) -> serde_json::Value {
        json!({
            "abuse": abuse.name(), "server": kind.name(), "connections_per_second": median(&self.connections),
            "mebibytes_per_second": median(&self.mebibytes), "abuser_processors": median(&self.abuser),
            "server_processors": median(&self.server), "before": self.before, "peak": self.peak,
        })
    }
}
