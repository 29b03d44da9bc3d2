//! The longest anyone waits: a steady reader, while the table grows, while millions of keys expire in the same
//! second, and while millions are flushed.
//!
//! The reader asks at a fixed rate on a connection of its own, whether or not earlier GETs are answered, so a server
//! that stands still is charged for every GET that should have been answered meanwhile. It goes on for a while after a
//! FLUSH is answered, since that need not be when its work is done. Servers sync every second: what is looked for is work
//! that holds up the thread that answers, not the disk.

use crate::options::Options;
use crate::results::Results;
use crate::server::{Fsync, Kind, Server};
use crate::stats::Stats;
use crate::table;
use hdrhistogram::Histogram;
use kvd::command::Expiry;
use kvd::tools::bench::connection::Connection;
use kvd::tools::bench::load::{self, Plan, Tick, Wish};
use kvd::tools::bench::outbox::Payload;
use kvd::tools::bench::protocol::Answer;
use kvd::tools::bench::tally::Until;
use kvd::tools::bench::zmtp;
use serde_json::json;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// GETs a second.
const RATE: f64 = 1000.0;
/// Half of the keys have numbers from here on, so that the others have a prefix of their own.
const UPPER_HALF: u64 = 100_000_000_000;
/// What the keys of the lower half begin with.
const LOWER_PREFIX: &[u8] = b"key:0";
/// Who stores the keys: enough to keep a server busy, and few enough for the reader not to queue behind them for long.
const WRITERS: usize = 4;
const WRITERS_IN_FLIGHT: usize = 32;
/// How long a FLUSH may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Keys that expired are given this long to go.
const EXPIRES_WITHIN: Duration = Duration::from_secs(15);
/// How often the number of keys is asked for.
const AGAIN: Duration = Duration::from_millis(50);

/// What goes on beside the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Nothing,
    Growth,
    FlushPrefix,
    Flush,
    Expiry,
}

impl Event {
    const ALL: [Event; 5] = [Event::Nothing, Event::Growth, Event::FlushPrefix, Event::Flush, Event::Expiry];

    fn name(self, keys: u64) -> String {
        let (all, half) = (Count(keys), Count(keys / 2));
        match self {
            Event::Nothing => "nothing else".to_owned(),
            Event::Growth => format!("the table grows to {all} keys"),
            Event::FlushPrefix => format!("FLUSH PREFIX of {half} of {all} keys"),
            Event::Flush => format!("FLUSH of {half} keys"),
            Event::Expiry => format!("{half} keys expire in the same second"),
        }
    }
}

/// Millions where they are whole ones.
struct Count(u64);

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            count if count >= 1_000_000 && count.is_multiple_of(1_000_000) => write!(out, "{} M", count / 1_000_000),
            count => write!(out, "{count}"),
        }
    }
}

/// What the reader saw of an event, rounds added up.
struct Figures {
    latency: Histogram<u64>,
    /// The longest round of the event.
    lasted: Duration,
    /// What the server itself measured of its longest pauses: names and values, since its start.
    told: Vec<(String, String)>,
}

/// Watches the reader beside each event, round by round, and prints what it saw.
///
/// # Errors
/// A server fails or refuses a request.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path, results: &mut Results) -> io::Result<()> {
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| *kind != Kind::Bare && *kind == kind.base()).collect();
    let mut all: Vec<Vec<(Event, Figures)>> = kinds.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds() {
        for (kind, sums) in kinds.iter().zip(&mut all) {
            eprintln!("pauses, round {}, {}", round + 1, kind.name());
            let directory = tempfile::tempdir_in(scratch)?;
            let server = Server::start(&options.programs(), *kind, &directory.path().join("data"), Fsync::EverySecond)?;
            Course { options, server: &server, filled_in: Duration::ZERO }.run(sums)?;
            server.stop()?;
        }
    }
    let mut rows = Vec::new();
    for event in Event::ALL {
        for (kind, sums) in kinds.iter().zip(&all) {
            if let Some((_, figures)) = sums.iter().find(|(seen, _)| *seen == event) {
                rows.push(figures.row(event.name(options.pause_keys()), *kind));
                results.add("pauses", figures.record(&event.name(options.pause_keys()), *kind));
            }
        }
    }
    let heading = format!("Longest waits of a reader, {RATE} GET/s, open loop");
    let header = ["beside", "server", "lasted s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "by its own count"];
    table::print(&heading, 2, &header, &rows);
    Ok(())
}

/// All events on one server, one after the other.
struct Course<'a> {
    options: &'a Options,
    server: &'a Server,
    /// How long it took to store all keys.
    filled_in: Duration,
}

impl Course<'_> {
    fn run(&mut self, sums: &mut Vec<(Event, Figures)>) -> io::Result<()> {
        for event in Event::ALL {
            if event == Event::FlushPrefix && self.server.kind.base() != Kind::Kvd {
                // The others can flush all keys only, so the next event finds as many as it does on kvd.
                self.flush()?;
                self.fill(UPPER_HALF, Expiry::Never)?;
                continue;
            }
            eprintln!("  {}", event.name(self.options.pause_keys()));
            let figures = self.watch(event)?;
            match sums.iter_mut().find(|(seen, _)| *seen == event) {
                None => sums.push((event, figures)),
                Some((_, sum)) => sum.add(&figures)?,
            }
        }
        Ok(())
    }

    /// Reads while the event goes on.
    fn watch(&mut self, event: Event) -> io::Result<Figures> {
        let (kind, address) = (self.server.kind, &self.server.address);
        let deadline = if event == Event::Expiry { Some(self.fill_to_expire()?) } else { None };
        let reader = Plan {
            in_flight: usize::MAX,
            rate: Some(RATE),
            keys: self.options.pause_keys() / 2,
            until: Until { elapsed: Duration::MAX, count: u64::MAX },
            patience: PATIENCE,
            ..Plan::default()
        };
        let done = AtomicBool::new(false);
        let (lasted, outcome) = thread::scope(|scope| {
            let work = scope.spawn(|| {
                let start = Instant::now();
                let result = self.cause(event, deadline);
                let lasted = start.elapsed();
                if matches!(event, Event::FlushPrefix | Event::Flush) {
                    thread::sleep(self.options.aftermath());
                }
                done.store(true, Ordering::Relaxed);
                result.map(|()| lasted)
            });
            let mut wish = |_: Tick| if done.load(Ordering::Relaxed) { Wish::Finish } else { Wish::GoOn };
            let outcome = load::watched(kind.protocol(), address, &reader, &mut wish);
            (work.join().expect("the thread that causes the event does not panic"), outcome)
        });
        let (lasted, outcome) = (lasted?, outcome?);
        if event == Event::Growth {
            self.filled_in = lasted;
        }
        Ok(Figures { latency: outcome.whole()?.overall().latency, lasted, told: self.told()? })
    }

    fn cause(&self, event: Event, deadline: Option<SystemTime>) -> io::Result<()> {
        match event {
            Event::Nothing => thread::sleep(Duration::from_secs_f64(self.options.seconds())),
            Event::Growth => {
                self.fill(0, Expiry::Never)?;
                self.fill(UPPER_HALF, Expiry::Never)?;
            }
            Event::FlushPrefix => self.granted(&[b"FLUSH", b"PREFIX", LOWER_PREFIX])?,
            Event::Flush => self.flush()?,
            Event::Expiry => {
                let left = |until: SystemTime| until.duration_since(SystemTime::now()).unwrap_or_default();
                let deadline = deadline.unwrap_or_else(SystemTime::now);
                thread::sleep(left(deadline));
                while !left(deadline + EXPIRES_WITHIN).is_zero() && self.keys_left()? {
                    thread::sleep(AGAIN);
                }
            }
        }
        Ok(())
    }

    /// Stores half of the keys so that all of them expire at once. Returns when, a second before it is so.
    fn fill_to_expire(&self) -> io::Result<SystemTime> {
        // Twice as long as it should take. On whole seconds, since memcached knows no finer ones.
        let after = (self.filled_in + Duration::from_secs(3)).as_secs();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        self.fill(0, Expiry::At((now + after) * 1000))?;
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_secs(now + after);
        let left = deadline.duration_since(SystemTime::now());
        let left = left.map_err(|_| io::Error::other("the keys expired before all of them were stored"))?;
        thread::sleep(left.saturating_sub(Duration::from_secs(1)));
        Ok(deadline)
    }

    /// Stores half of the keys, from this number on.
    fn fill(&self, first_key: u64, expiry: Expiry) -> io::Result<()> {
        let keys = self.options.pause_keys() / 2;
        let plan = Plan { keys, first_key, expiry, values: self.options.value(), ..Plan::default() };
        let plan = Plan { peers: WRITERS, in_flight: WRITERS_IN_FLIGHT, ..plan.fill() };
        load::run(self.server.kind.protocol(), &self.server.address, &plan)?.whole().map(drop)
    }

    fn control(&self) -> io::Result<Connection> {
        Connection::open(self.server.kind.protocol(), &self.server.address, Payload::default(), PATIENCE)
    }

    fn flush(&self) -> io::Result<()> {
        let verb: &[u8] = match self.server.kind.base() {
            Kind::Redis => b"FLUSHALL",
            Kind::Memcached => b"flush_all",
            _ => b"FLUSH",
        };
        self.granted(&[verb])
    }

    /// Asks for something that may not be refused.
    fn granted(&self, arguments: &[&[u8]]) -> io::Result<()> {
        match self.control()?.ask(arguments)? {
            Answer::Ok => Ok(()),
            answer => Err(io::Error::other(format!("{}: no flush: {answer:?}", self.server.kind.name()))),
        }
    }

    /// Whether there are keys. memcached does not say.
    fn keys_left(&self) -> io::Result<bool> {
        match self.server.kind.base() {
            Kind::Redis => Ok(self.control()?.ask_in_full(&[b"DBSIZE"])? != b":0\r\n"),
            Kind::Kvd => Ok(zmtp::frames(&self.control()?.ask_in_full(&[b"COUNT"])?).last() != Some(&b"0".as_slice())),
            _ => Ok(true),
        }
    }

    /// What kvd's STATS tell of its longest pauses.
    fn told(&self) -> io::Result<Vec<(String, String)>> {
        if self.server.kind.base() != Kind::Kvd {
            return Ok(Vec::new());
        }
        Ok(Stats::ask(&mut self.control()?)?.named("longest"))
    }
}

impl Figures {
    fn add(&mut self, other: &Figures) -> io::Result<()> {
        self.lasted = self.lasted.max(other.lasted);
        self.told.clone_from(&other.told);
        self.latency.add(&other.latency).map_err(io::Error::other)
    }

    fn milliseconds(&self) -> [f64; 4] {
        let latency = &self.latency;
        let times = [latency.value_at_quantile(0.5), latency.value_at_quantile(0.99), latency.value_at_quantile(0.999)];
        [times[0], times[1], times[2], latency.max()].map(|nanoseconds| nanoseconds as f64 / 1e6)
    }

    fn row(&self, event: String, kind: Kind) -> Vec<String> {
        let mut row = vec![event, kind.name().to_owned(), format!("{:.1}", self.lasted.as_secs_f64())];
        row.extend(self.milliseconds().map(|milliseconds| format!("{milliseconds:.2}")));
        let told: Vec<_> = self.told.iter().map(|(name, value)| format!("{name} {value}")).collect();
        row.push(if told.is_empty() { "–".to_owned() } else { told.join(", ") });
        row
    }

    fn record(&self, event: &str, kind: Kind) -> serde_json::Value {
        let [p50, p99, p99_9, max] = self.milliseconds();
        json!({
            "beside": event, "server": kind.name(), "lasted_seconds": self.lasted.as_secs_f64(),
            "p50_ms": p50, "p99_ms": p99, "p99_9_ms": p99_9, "max_ms": max,
            "told": self.told.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        })
    }
}
