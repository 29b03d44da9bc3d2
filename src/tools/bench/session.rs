//! What `kvd bench` does from its start to its end: look whether kvd is there and ready, fill it, load it, tell.
//!
//! Knows the order of these, signals and exit codes. How a load is driven is for [`super::load`].

use super::address::Address;
use super::connection::Connection;
use super::frames::Frames;
use super::load::{self, Ended, Outcome, Plan, Wish};
use super::mix::Ycsb;
use super::outbox::Payload;
use super::packed::Packed;
use super::pickle::Pickle;
use super::progress::Progress;
use super::protocol::{Answer, Protocol};
use super::report::Report;
use super::zmtp;
use crate::descriptors::raise_limit;
use crate::tools::output::say;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a kvd that still loads is asked whether it is ready.
const AGAIN: Duration = Duration::from_millis(200);

/// Exit code: it ran to its end, or was told to end.
const DONE: u8 = 0;
/// Exit code: it could not begin.
const NOT_BEGUN: u8 = 1;
/// Exit code: it broke off.
const BROKEN: u8 = 3;
/// Exit code: it ran to its end, and something was refused.
const REFUSED: u8 = 4;

/// How kvd is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    /// A verb and its arguments, a frame each
    Frames,
    /// Many commands in a message
    Packed,
    /// Python's pickles
    Pickle,
}

impl Dialect {
    /// As flags name it.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Frames => "frames",
            Dialect::Packed => "packed",
            Dialect::Pickle => "pickle",
        }
    }

    /// How it is spoken.
    pub fn protocol(self) -> &'static dyn Protocol {
        match self {
            Dialect::Frames => &Frames,
            Dialect::Packed => &Packed,
            Dialect::Pickle => &Pickle,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where kvd is.
    pub address: Address,
    /// How it is spoken to.
    pub dialect: Dialect,
    /// Where the mix comes from, if it has a name.
    pub workload: Option<Ycsb>,
    /// Whether every key is stored first.
    pub fill: bool,
    /// Whether the figures are for programs.
    pub json: bool,
    /// The load.
    pub plan: Plan,
}

/// Why it could not begin. Displays as a sentence.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Nobody listens there.
    #[error("can't connect to {address}: {source}")]
    Unreachable {
        /// Where.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("{address} is no kvd: {why}")]
    NotKvd {
        /// Where.
        address: Address,
        /// What it did.
        why: String,
    },
    /// The keys could not be stored.
    #[error("the keys could not be stored: {0}")]
    NotFilled(String),
    /// It was told to end before it had begun.
    #[error("it was told to end before anything was measured")]
    Interrupted,
    /// The system refuses something else.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Does it all: writes the figures to `out`, and progress and complaints to standard error. Returns the exit code.
pub fn run(settings: &Settings, out: &mut impl Write) -> u8 {
    match measure(settings) {
        Ok(report) => {
            if let Err(error) = report.write(out) {
                say(format_args!("kvd bench: can't write the figures: {error}"));
                return NOT_BEGUN;
            }
            if let Some(complaint) = report.complaint() {
                say(format_args!("kvd bench: {complaint}"));
            }
            exit_code(&report.outcome)
        }
        Err(error) => {
            say(format_args!("kvd bench: {error}"));
            NOT_BEGUN
        }
    }
}

fn exit_code(outcome: &Outcome) -> u8 {
    match outcome.ended {
        Ended::Broken(_) | Ended::Silent(_) => BROKEN,
        Ended::Complete | Ended::Interrupted if outcome.measured.refusals.is_empty() => DONE,
        Ended::Complete | Ended::Interrupted => REFUSED,
    }
}

fn measure(settings: &Settings) -> Result<Report<'_>, BenchError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down and raises it, the second one ends the process.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    raise_limit();
    let version = wait_until_ready(settings, &stop)?;
    if settings.fill {
        fill(settings, &stop)?;
    }
    let mut progress = Progress::of_load(&settings.plan);
    let outcome = drive(settings, &settings.plan, &stop, &mut progress)?;
    drop(progress);
    Ok(Report { settings, version, outcome })
}

/// Asks for the version, and then whether the log has been read.
fn wait_until_ready(settings: &Settings, stop: &AtomicBool) -> Result<String, BenchError> {
    let address = &settings.address;
    let not_kvd = |why: &str| BenchError::NotKvd { address: address.clone(), why: why.to_owned() };
    let opened = Connection::open(&Frames, address, Payload::default(), settings.plan.patience);
    let mut control = opened.map_err(|error| whose_fault(address, error))?;
    let reply = control.ask_in_full(&[b"VERSION"]).map_err(|error| whose_fault(address, error))?;
    let version = match zmtp::frames(&reply).as_slice() {
        [_, b"OK", version, _protocol] => String::from_utf8_lossy(version).into_owned(),
        _ => return Err(not_kvd("it does not tell its version")),
    };
    let mut told = false;
    loop {
        match control.ask(&[b"COUNT"]).map_err(|error| whose_fault(address, error))? {
            Answer::Refused(why) if why.starts_with("LOADING") => {
                if !told {
                    say("kvd bench: waiting until kvd has read its log");
                    told = true;
                }
                std::thread::sleep(AGAIN);
            }
            Answer::Refused(why) => return Err(not_kvd(&why)),
            _ => return Ok(version),
        }
        if stop.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
    }
}

/// Tells who does not listen from who is no kvd.
fn whose_fault(address: &Address, source: io::Error) -> BenchError {
    let address = address.clone();
    let why = match source.kind() {
        io::ErrorKind::InvalidData => source.to_string(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        io::ErrorKind::UnexpectedEof => "it ends the connection".to_owned(),
        _ => return BenchError::Unreachable { address, source },
    };
    BenchError::NotKvd { address, why }
}

fn fill(settings: &Settings, stop: &AtomicBool) -> Result<(), BenchError> {
    let plan = settings.plan.fill();
    let outcome = drive(settings, &plan, stop, &mut Progress::of_fill(&plan))?;
    if let Ended::Interrupted = outcome.ended {
        return Err(BenchError::Interrupted);
    }
    outcome.whole().map(drop).map_err(|error| BenchError::NotFilled(error.to_string()))
}

fn drive(settings: &Settings, plan: &Plan, stop: &AtomicBool, progress: &mut Progress) -> Result<Outcome, BenchError> {
    let mut watch = |tick| {
        progress.tick(tick);
        if stop.load(Ordering::Relaxed) { Wish::Stop } else { Wish::GoOn }
    };
    load::watched(settings.dialect.protocol(), &settings.address, plan, &mut watch)
        .map_err(|error| whose_fault(&settings.address, error))
}
