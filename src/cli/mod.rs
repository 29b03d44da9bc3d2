//! The command line and the environment, made into a configuration that can be relied on.
//!
//! Two steps each: flags are what was typed, and what [`Flags::validate`] and [`BenchFlags::validate`] return is what was
//! meant and found possible. Knows no sockets and no files: whether a port is free or a directory can be written is
//! found out by those who need it.

mod bench;
mod daemon;
mod endpoint;

pub use bench::{BenchFlags, BenchFlagsError, Keys};
pub use daemon::*;
pub use endpoint::{Endpoint, Host};

use clap::Subcommand;
use std::path::PathBuf;

/// What kvd can do beside being a daemon.
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
    /// Put a running kvd under load and tell how fast it answers
    ///
    /// One thread plays all peers. It never removes a key, but writes into the store that is there.
    Bench(Box<BenchFlags>),
}
