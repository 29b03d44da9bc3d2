//! `kvd`: reads the flags, sets up the log output, runs the daemon, turns what came of it into an exit code.

use kvd::cli::{Flags, Tool, USAGE};
use kvd::tools::bench::session;
use kvd::tools::check::{self, Finding};
use kvd::tools::dump::{self, Wanted};
use kvd::tools::load::{self, LoadError};
use kvd::tools::output::{Output, say};
use kvd::tools::repair;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Entries and replies come and go by the million, made by one thread and often freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A tool could not do what it was asked for.
const FAILED: u8 = 1;
/// A data directory can't be read, or what was found in it can't be told.
const UNREADABLE: u8 = Finding::Unreadable.exit_code();

fn main() -> ExitCode {
    kvd::fault::arm();
    let flags = Flags::of_process();
    if let Some(tool) = &flags.tool {
        return run_tool(tool);
    }
    let filter = match filter(&flags) {
        Ok(filter) => filter,
        Err(error) => return tell(&error, USAGE),
    };
    let stderr = io::stderr;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        // It would complain of a line that can't be written where that line could not be, and panic.
        .log_internal_errors(false)
        .init();
    let config = match flags.validate(&kvd::server::machine()) {
        Ok(config) => config,
        Err(error) => return tell(&error.to_string(), error.exit_code()),
    };
    match kvd::server::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tell(&error.to_string(), error.exit_code()),
    }
}

fn run_tool(tool: &Tool) -> ExitCode {
    let mut out = Output::lock();
    match tool {
        Tool::Check { dir, json } => {
            let report = check::check(dir);
            let written = if *json { report.write_json(&mut out) } else { report.write(&mut out) };
            told(written, report.finding().exit_code())
        }
        Tool::Repair { dir, write, policy, json, dry_run: _ } => match repair::repair(dir, *policy, *write) {
            Ok(report) => {
                let written = if *json { report.write_json(&mut out) } else { report.write(&mut out) };
                told(written, if report.is_sound() || report.written.is_some() { 0 } else { FAILED })
            }
            Err(error) => tell(&error.to_string(), UNREADABLE),
        },
        Tool::Dump { dir, prefix, history } => {
            let wanted = Wanted { prefix: prefix.clone().into_bytes(), history: *history };
            match dump::dump(dir, &wanted, &mut out) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => tell(&error.to_string(), FAILED),
            }
        }
        Tool::Load { file, server, data_dir } => {
            let into = match (server, data_dir) {
                (Some(endpoint), _) => load::Destination::Server(endpoint.to_string()),
                (None, data_dir) => load::Destination::Directory(data_dir.clone().unwrap_or_default()),
            };
            match load_from(file.as_deref(), &into) {
                Ok(lines) => tell(&format!("{lines} keys stored"), 0),
                Err(error) => tell(&error.to_string(), FAILED),
            }
        }
        Tool::Bench(flags) => match flags.validate() {
            Ok(settings) => ExitCode::from(session::run(&settings, &mut out)),
            Err(error) => tell(&error.to_string(), USAGE),
        },
    }
}

/// Loads a file, or standard input.
fn load_from(file: Option<&Path>, into: &load::Destination) -> Result<u64, LoadError> {
    match file {
        None => load::load(&mut io::stdin().lock(), into),
        Some(path) => load::load_file(path, into),
    }
}

/// The flag, else `RUST_LOG`, else `info`.
fn filter(flags: &Flags) -> Result<EnvFilter, String> {
    const MUST: &str = "must be error, warn, info, debug, trace or off, or a filter such as `info,kvd::server=debug`";
    match &flags.log_level {
        Some(level) => EnvFilter::try_new(level)
            .map_err(|_| format!("{} is `{level}`, but {MUST}", flags.origins.name("--log-level"))),
        None if std::env::var_os("RUST_LOG").is_none_or(|filter| filter.is_empty()) => Ok(EnvFilter::new("info")),
        None => EnvFilter::try_from_default_env().map_err(|_| format!("RUST_LOG {MUST}")),
    }
}

/// The exit code that goes with a report, if that could be written.
fn told(written: io::Result<()>, code: u8) -> ExitCode {
    match written {
        Ok(()) => ExitCode::from(code),
        Err(error) => tell(&format!("can't write the report: {error}"), UNREADABLE),
    }
}

/// Says it on standard error.
fn tell(what: &str, code: u8) -> ExitCode {
    say(format_args!("kvd: {what}"));
    ExitCode::from(code)
}
