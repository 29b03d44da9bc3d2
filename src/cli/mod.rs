//! The command line and the environment, made into a configuration that can be relied on.
//!
//! Two steps each: flags are what was typed, and what [`Flags::validate`] and [`BenchFlags::validate`] return is what was
//! meant and found possible. Knows no sockets and no files: whether a port is free or a directory can be written is
//! found out by those who need it.

mod bench;
mod daemon;
mod endpoint;
mod environment;
mod machine;
mod values;

pub use bench::{BenchFlags, BenchFlagsError, Keys};
pub use daemon::*;
pub use endpoint::{Endpoint, Host};
pub use environment::Origins;
pub use machine::{Interface, Machine, NoPlace};

use crate::tools::repair::Policy;
use clap::{ArgGroup, Subcommand};
use std::path::PathBuf;

/// What kvd can do beside being a daemon.
#[expect(clippy::doc_markdown, reason = "these comments are the help, read as plain text")]
#[derive(Clone, Debug, Subcommand)]
pub enum Tool {
    /// Read a data directory and tell what is in it and what is wrong with it; changes nothing
    ///
    /// Exit codes: 0 clean, 1 a torn tail only, 2 damage, 3 can't be read.
    Check {
        /// The data directory
        dir: PathBuf,
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Tell what can be saved of a damaged data directory and what is lost, and with --write save it
    ///
    /// Exit codes: 0 there was nothing to repair, or it was done; 1 there is, and nothing was changed; 3 it can't be done.
    Repair {
        /// The data directory
        dir: PathBuf,
        /// Do it. The damaged files are kept under other names
        #[arg(long, conflicts_with = "dry_run")]
        write: bool,
        /// Only tell what would be done, which is the default
        #[arg(long)]
        dry_run: bool,
        /// What becomes of keys that may be stale, since a later change of theirs may be lost
        #[arg(long, value_enum, default_value = "keep-stale")]
        policy: Policy,
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Write what a data directory holds to standard output, a line of JSON for each key; changes nothing
    ///
    /// Bytes that are no UTF-8 stand in key_base64 and value_base64. Exit codes: 0 all was written, 1 it was not: the
    /// log is damaged or can't be read.
    Dump {
        /// The data directory
        dir: PathBuf,
        /// Only keys that start with this
        #[arg(long, value_name = "PREFIX", default_value = "")]
        prefix: String,
        /// Every record of the log in its order, removals and flushes as well
        #[arg(long)]
        history: bool,
    },
    /// Store the lines of a dump in a running kvd or in a fresh data directory
    ///
    /// Exit codes: 0 all is stored, 1 it is not: the message names the line.
    #[command(group(ArgGroup::new("place").required(true).args(["server", "data_dir"])))]
    Load {
        /// The file with the lines; standard input if none is given
        file: Option<PathBuf>,
        /// Where a kvd listens, tcp://HOST:PORT or ipc://PATH
        #[arg(long, value_name = "ENDPOINT")]
        server: Option<Endpoint>,
        /// A directory without a log; made if it is missing
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Put a running kvd under load and tell how fast it answers
    ///
    /// One thread plays all peers. It never removes a key, but writes into the store that is there.
    Bench(Box<BenchFlags>),
}
