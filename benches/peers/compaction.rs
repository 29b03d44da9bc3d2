//! What giving back disk space costs those who are served meanwhile.
//!
//! kvd compacts segments beside its work; Redis forks and writes its file anew. Both overwrite the same few keys over
//! and over, which is what fills a log, at a rate that both can bear: half of what the slower one reaches.

use crate::compare::{drive, filled};
use crate::load::Load;
use crate::options::Options;
use crate::server::Kind;
use crate::stats::Stats;
use crate::table::{self, mib, short};
use hdrhistogram::Histogram;
use kvd::tools::bench::connection::Connection;
use kvd::tools::bench::load::Plan;
use kvd::tools::bench::protocol::Answer;
use kvd::tools::bench::tally::Until;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes of a value.
const VALUE: usize = 1024;
/// How both are brought to their limit.
const SATURATION: Load = Load { reads: 50, value: Some(VALUE), ..Load::set(50, 16) };
/// How often a compaction is asked for; one that is under way goes on.
const AGAIN: Duration = Duration::from_millis(100);

/// Latency without compaction and with it, one after the other on the same server.
struct Figures {
    latency: [Histogram<u64>; 2],
    work: [Work; 2],
}

/// What was compacted in a stretch of time.
#[derive(Clone, Copy, Default)]
struct Work {
    runs: u64,
    /// Where the server counts them.
    copied: Option<u64>,
}

/// Times both under the same load and prints one row for each, with compaction and without.
///
/// # Errors
/// A server fails, refuses a request or loses a key.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path) -> io::Result<()> {
    let compacts = |kind: &Kind| matches!(kind, Kind::Kvd | Kind::Redis);
    let kinds: Vec<Kind> = kinds.iter().copied().filter(compacts).collect();
    let mut least = f64::INFINITY;
    for kind in &kinds {
        eprintln!("compaction, saturation, {}", kind.name());
        let rate = saturation(options, *kind, scratch)?;
        eprintln!("{}: {} requests/s", kind.name(), short(rate));
        least = least.min(rate);
    }
    let rate = least / 2.0;

    let mut all: Vec<Option<Figures>> = kinds.iter().map(|_| None).collect();
    for round in 0..options.rounds() {
        for (kind, sum) in kinds.iter().zip(&mut all) {
            eprintln!("compaction, round {}, {}", round + 1, kind.name());
            let figures = measure(options, *kind, rate, scratch)?;
            match sum {
                None => *sum = Some(figures),
                Some(sum) => sum.add(&figures)?,
            }
        }
    }
    let mut rows = Vec::new();
    for (kind, figures) in kinds.iter().zip(all.iter().flatten()) {
        rows.extend(figures.rows(*kind));
    }
    let heading = format!("Compaction beside {} requests/s, half of them SETs of {VALUE} B", short(rate));
    let header = ["server", "compaction", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "runs", "copied MiB"];
    table::print(&heading, 2, &header, &rows);
    Ok(())
}

/// What is asked.
fn plan(options: &Options) -> Plan {
    Plan { keys: options.overwritten_keys(), ..SATURATION.plan(options, Kind::Kvd) }
}

/// Requests a second when peers wait for nothing but the server.
fn saturation(options: &Options, kind: Kind, scratch: &Path) -> io::Result<f64> {
    let directory = tempfile::tempdir_in(scratch)?;
    let seconds = Duration::from_secs_f64(options.seconds());
    let plan = Plan { warm_up: seconds / 3, until: Until::elapsed(seconds), ..plan(options) };
    let server = filled(options, kind, SATURATION, &plan, directory.path())?;
    let measured = drive(&server, SATURATION, &plan)?;
    server.stop()?;
    Ok(measured.rate())
}

fn measure(options: &Options, kind: Kind, rate: f64, scratch: &Path) -> io::Result<Figures> {
    let directory = tempfile::tempdir_in(scratch)?;
    let seconds = Duration::from_secs_f64(options.seconds());
    let steady = Plan { rate: Some(rate), in_flight: usize::MAX, until: Until::elapsed(seconds), ..plan(options) };
    let server = filled(options, kind, SATURATION, &steady, directory.path())?;
    let latency = || Ok::<_, io::Error>(drive(&server, SATURATION, &steady)?.overall().latency);
    let mut control = server.connect()?;
    // A warm-up of its own, whose compactions are none of those that are told.
    drive(&server, SATURATION, &Plan { until: Until::elapsed(seconds / 3), ..steady.clone() })?;
    let before = work(kind, &mut control)?;
    let idle = latency()?;
    let between = work(kind, &mut control)?;
    let stop = AtomicBool::new(false);
    let (running, started) = thread::scope(|scope| {
        let asking = scope.spawn(|| keep_compacting(kind, &mut control, &stop));
        let running = latency();
        stop.store(true, Ordering::Relaxed);
        let started = asking.join().expect("the thread that asks for compaction does not panic");
        Ok::<_, io::Error>((running?, started?))
    })?;
    let after = work(kind, &mut control)?;
    server.stop()?;
    let mut meanwhile = after.since(between);
    if kind == Kind::Redis {
        meanwhile.runs = started;
    }
    Ok(Figures { latency: [idle, running], work: [between.since(before), meanwhile] })
}

/// Asks for compaction until it is told to stop. Returns how often it was granted.
fn keep_compacting(kind: Kind, control: &mut Connection, stop: &AtomicBool) -> io::Result<u64> {
    let verb: &[u8] = if kind == Kind::Redis { b"BGREWRITEAOF" } else { b"COMPACT" };
    let mut granted = 0;
    while !stop.load(Ordering::Relaxed) {
        match control.ask(&[verb])? {
            Answer::Ok => granted += 1,
            Answer::Refused(why) if why.contains("already in progress") => {}
            answer => return Err(io::Error::other(format!("no compaction: {answer:?}"))),
        }
        thread::sleep(AGAIN);
    }
    Ok(granted)
}

/// What was compacted so far, where the server says.
fn work(kind: Kind, control: &mut Connection) -> io::Result<Work> {
    if kind != Kind::Kvd {
        return Ok(Work::default());
    }
    let stats = Stats::ask(control)?;
    Ok(Work { runs: stats.count("compactions")?, copied: Some(stats.count("compaction_bytes_copied")?) })
}

impl Work {
    fn since(self, earlier: Work) -> Work {
        let copied = self.copied.zip(earlier.copied).map(|(now, then)| now - then);
        Work { runs: self.runs - earlier.runs, copied }
    }
}

impl Figures {
    fn add(&mut self, other: &Figures) -> io::Result<()> {
        for (sum, latency) in self.latency.iter_mut().zip(&other.latency) {
            sum.add(latency).map_err(io::Error::other)?;
        }
        for (sum, work) in self.work.iter_mut().zip(&other.work) {
            sum.runs += work.runs;
            sum.copied = sum.copied.zip(work.copied).map(|(one, other)| one + other);
        }
        Ok(())
    }

    fn rows(&self, kind: Kind) -> Vec<Vec<String>> {
        let stretches = self.latency.iter().zip(&self.work).zip(["idle", "running"]);
        stretches
            .map(|((latency, work), name)| {
                let ms = |nanoseconds: u64| format!("{:.2}", nanoseconds as f64 / 1e6);
                let mut row = vec![kind.name().to_owned(), name.to_owned()];
                row.extend([0.5, 0.99, 0.999].map(|quantile| ms(latency.value_at_quantile(quantile))));
                row.push(ms(latency.max()));
                row.push(work.runs.to_string());
                row.push(work.copied.map_or_else(|| "–".to_owned(), mib));
                row
            })
            .collect()
    }
}
