//! The flags of the daemon, and the configuration that they make.

use super::Tool;
use super::endpoint::Endpoint;
use super::environment::Origins;
use super::machine::{Machine, NoPlace};
use super::values::{self, spell};
use crate::command::{LARGEST_MAX_VALUE, Limits};
use crate::engine::MemoryLimit;
use crate::log::SyncPolicy;
use bytesize::ByteSize;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Where kvd listens if it is told nothing: the tutorial's address.
pub const DEFAULT_BIND: &str = "tcp://127.0.0.1:43000";
/// Exit code: a flag is wrong. The same as clap's own.
pub const USAGE: u8 = 2;
/// Exit code: it can't start now, but may later without anybody's doing (`EX_TEMPFAIL` of sysexits.h).
pub const MAY_PASS: u8 = 75;
/// Smallest `--segment-size`, in bytes.
pub const SMALLEST_SEGMENT: u64 = 64 << 10;
/// Largest `--segment-size`, in bytes.
pub const LARGEST_SEGMENT: u64 = 16 << 30;
/// Smallest `--max-memory`, in bytes.
pub const SMALLEST_MEMORY: u64 = 1 << 20;
/// Smallest `--compaction-rate`, in bytes a second.
pub const SLOWEST_COMPACTION: u64 = 64 << 10;
/// Smallest `--max-log-size`, in segments: up to three that are sized ahead, one for compaction, and two for data.
pub const FEWEST_SEGMENTS: u64 = 6;
/// Largest of the sizes that have no other bound, in bytes.
pub const LARGEST_SIZE: u64 = 1 << 62;
/// Smallest `--max-backlog`, in bytes.
pub const SMALLEST_BACKLOG: u64 = 1 << 20;

const AFTER_HELP: &str = "\
Sizes are bytes, or a number with a unit: 65536, 64KiB, 128MiB, 1GiB (powers of 1024), 1MB (of 1000).
Durations are a number with a unit: 250ms, 1s, 2m.
Every flag is also read from the environment variable named beside it; the flag wins, and an empty variable is not set.
The tools read none of them.

Exit codes:
  0   stopped cleanly, by SIGTERM or SIGINT
  1   refused to start, for a reason that lasts: it is on standard error
  2   a flag or a variable is wrong
  70  the socket failed while running
  74  the log failed while running, or the disk could not be read at start: nothing unsure was acknowledged,
      start again once the disk is well
  75  can't start now, for a reason that may pass (address not there yet, port or data directory in use, no room on
      the disk, no descriptors, threads or memory): start again
  101 internal error: start again, and report it

Once it serves, kvd prints one line to standard output: `kvd ready` and the endpoints it is bound to.
Everything else it has to say goes to standard error.";

/// What was typed. Running without a subcommand starts the daemon.
#[expect(clippy::doc_markdown, reason = "these comments are the help, read as plain text")]
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kvd",
    version,
    about = "A persistent key/value cache spoken to over ZeroMQ",
    long_about = "A persistent key/value cache spoken to over ZeroMQ. Every acknowledged write is in a checksummed \
                  log on disk before its reply leaves.",
    after_long_help = AFTER_HELP,
    args_conflicts_with_subcommands = true
)]
pub struct Flags {
    /// A tool to run in place of the daemon.
    #[command(subcommand)]
    pub tool: Option<Tool>,

    /// Directory that holds the data; made if it is missing
    #[arg(long, env = "KVD_DATA_DIR", value_name = "DIR", default_value = "./data")]
    pub data_dir: PathBuf,

    /// Endpoint to listen on, tcp://HOST:PORT or ipc://PATH; may be given several times
    ///
    /// HOST is an address, a network interface, or `*`; names are not resolved. Port `*` or 0 picks a free one. An IPv6
    /// address stands in brackets, a link-local one with its interface: [fe80::1%eth0]. In the environment, endpoints are
    /// separated by commas.
    #[arg(long, env = "KVD_BIND", value_name = "ENDPOINT", value_delimiter = ',', default_value = DEFAULT_BIND)]
    pub bind: Vec<Endpoint>,

    /// When written data is synced to the disk: `always`, `never`, or at least every DURATION
    ///
    /// `always`: before a write is acknowledged. DURATION (such as 1s): a power loss may take back the writes
    /// of that long. `never`: when the kernel likes. Killing the process loses nothing in any mode.
    #[arg(long, env = "KVD_FSYNC", value_name = "WHEN", default_value = "always", value_parser = parse_fsync)]
    pub fsync: SyncPolicy,

    /// Size of one log file, 64KiB to 16GiB
    #[arg(long, env = "KVD_SEGMENT_SIZE", value_name = "SIZE", value_parser = values::size, default_value = "128MiB")]
    pub segment_size: ByteSize,

    /// Memory that keys and values may take, with what is kept of each [default: 75% of the machine's or the cgroup's]
    ///
    /// It is the table that is meant, and what waits to become durable; the process needs a little more.
    #[arg(long, env = "KVD_MAX_MEMORY", value_name = "SIZE", value_parser = values::size)]
    pub max_memory: Option<ByteSize>,

    /// What happens beyond --max-memory: `clock` evicts what is used least, `none` refuses writes with NOMEM
    #[arg(long, env = "KVD_EVICTION", value_name = "POLICY", default_value = "clock")]
    pub eviction: Eviction,

    /// How fast the log is compacted in the background, bytes read and written a second, at least 64KiB
    ///
    /// Where garbage piles up faster than that, or COMPACT asks for it, there is no limit.
    #[arg(long, env = "KVD_COMPACTION_RATE", value_name = "SIZE", value_parser = values::size, default_value = "32MiB")]
    pub compaction_rate: ByteSize,

    /// Most that the log may take on disk, at least six segments [default: what the disk has]
    ///
    /// Past it, and if compaction can't make room, writes are refused; reads and removals go on.
    #[arg(long, env = "KVD_MAX_LOG_SIZE", value_name = "SIZE", value_parser = values::size)]
    pub max_log_size: Option<ByteSize>,

    /// Longest value, up to 1GiB
    #[arg(long, env = "KVD_MAX_VALUE", value_name = "SIZE", value_parser = values::size, default_value = "64MiB")]
    pub max_value: ByteSize,

    /// Replies held for one peer that does not read them, at least 1MiB; beyond, the peer is cut off
    #[arg(long, env = "KVD_MAX_BACKLOG", value_name = "SIZE", value_parser = values::size, default_value = "64MiB")]
    pub max_backlog: ByteSize,

    /// What to log: error, warn, info, debug, trace, or a filter such as `info,kvd::server=debug`
    ///
    /// Without it, RUST_LOG is honoured, and without that, it is `info`.
    #[arg(long, env = "KVD_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Allow --bind beyond this machine: anyone who reaches the port may read and write everything
    #[arg(long, env = "KVD_INSECURE_BIND", value_parser = values::switch)]
    pub insecure_bind: bool,

    /// Refuse to start where there is no log yet, rather than make a new store: for a disk that may not be mounted
    #[arg(long, env = "KVD_EXISTING", value_parser = values::switch)]
    pub existing: bool,

    /// Threads that read the log at start [default: the number of processors]
    #[arg(long, env = "KVD_REPLAY_THREADS", value_name = "N", value_parser = values::whole::<usize>)]
    pub replay_threads: Option<usize>,

    /// Which of them came from the environment.
    #[arg(skip)]
    pub origins: Origins,
}

/// What `--eviction` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Eviction {
    /// A queue on probation, and a clock over the rest.
    Clock,
    /// Nothing is evicted.
    None,
}

/// A configuration in which every value has been found possible.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Where to listen; at least one.
    pub bind: Vec<Endpoint>,
    /// What said so, for messages: the flag, and the variable if it came from there.
    pub bind_flag: String,
    /// When to sync.
    pub fsync: SyncPolicy,
    /// Bytes of one log file.
    pub segment_size: u64,
    /// The limit of memory, and what happens beyond.
    pub memory: MemoryLimit,
    /// Bytes a second that compaction may read and write where it is not urgent.
    pub compaction_rate: u64,
    /// Bytes that the log may take on disk.
    pub max_log_size: u64,
    /// The limits of what peers may send.
    pub limits: Limits,
    /// Bytes of replies that may wait for one peer.
    pub max_backlog: usize,
    /// Threads for the replay; at least one.
    pub replay_threads: usize,
    /// Whether no new store may be made.
    pub existing: bool,
}

/// Why flags make no configuration. Displays as a sentence that tells what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A size outside its bounds.
    #[error("{flag} is {given}, but must be from {smallest} to {largest}")]
    Size {
        /// The flag, and the variable if it came from there.
        flag: String,
        /// What was given.
        given: String,
        /// The least that is possible.
        smallest: String,
        /// The most that is possible.
        largest: String,
    },
    /// An endpoint that other machines can reach.
    #[error(
        "{flag} {endpoint} can be reached from other machines, and kvd would let anyone who reaches it read and write \
         everything; give --insecure-bind if the network is trusted, or bind a loopback address such as \
         tcp://127.0.0.1:43000"
    )]
    BeyondLoopback {
        /// The flag, and the variable if it came from there.
        flag: String,
        /// What it says.
        endpoint: Endpoint,
    },
    /// An endpoint that this machine does not have.
    #[error("{flag} {endpoint} {why}")]
    NoPlace {
        /// The flag, and the variable if it came from there.
        flag: String,
        /// What it says.
        endpoint: Endpoint,
        /// What is wrong with it.
        why: NoPlace,
    },
    /// An endpoint that is there already.
    #[error("{flag} {endpoint} is given twice{means}")]
    Twice {
        /// The flag, and the variable if it came from there.
        flag: String,
        /// What it says.
        endpoint: Endpoint,
        /// What that is on this machine, if it is written in another way.
        means: String,
    },
    /// No thread to replay with.
    #[error("{0} is 0, but must be at least 1")]
    NoThreads(String),
}

impl ConfigError {
    /// The exit code that tells it.
    pub fn exit_code(&self) -> u8 {
        match self {
            ConfigError::NoPlace { why, .. } if why.may_pass() => MAY_PASS,
            _ => USAGE,
        }
    }
}

impl Flags {
    /// Checks what was typed, on this machine.
    ///
    /// # Errors
    /// A [`ConfigError`] for the first value that can't be.
    pub fn validate(self, machine: &Machine) -> Result<Config, ConfigError> {
        let mut bind = Vec::new();
        for endpoint in &self.bind {
            let flag = || self.origins.name("--bind");
            let (place, is_local) = machine.place(endpoint).map_err(|why| ConfigError::NoPlace {
                flag: flag(),
                endpoint: endpoint.clone(),
                why,
            })?;
            if !is_local && !self.insecure_bind {
                return Err(ConfigError::BeyondLoopback { flag: flag(), endpoint: endpoint.clone() });
            }
            // Ports that are picked differ.
            if bind.contains(&place) && !matches!(place, Endpoint::Tcp { port: None, .. }) {
                let means = if place == *endpoint { String::new() } else { format!(", as {place}") };
                return Err(ConfigError::Twice { flag: flag(), endpoint: endpoint.clone(), means });
            }
            bind.push(place);
        }
        let within = |flag: &str, given: ByteSize, smallest: u64, largest: u64| {
            if (smallest..=largest).contains(&given.as_u64()) {
                return Ok(given.as_u64());
            }
            let [given, smallest, largest] = [given.as_u64(), smallest, largest].map(|size| spell(size).to_string());
            Err(ConfigError::Size { flag: self.origins.name(flag), given, smallest, largest })
        };
        let max_value = within("--max-value", self.max_value, 1, LARGEST_MAX_VALUE as u64)?;
        let replay_threads = match self.replay_threads {
            Some(0) => return Err(ConfigError::NoThreads(self.origins.name("--replay-threads"))),
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        };
        let segment_size = within("--segment-size", self.segment_size, SMALLEST_SEGMENT, LARGEST_SEGMENT)?;
        let max_log_size = match self.max_log_size {
            Some(given) => within("--max-log-size", given, FEWEST_SEGMENTS * segment_size, LARGEST_SIZE)?,
            None => u64::MAX,
        };
        Ok(Config {
            data_dir: self.data_dir,
            bind,
            bind_flag: self.origins.name("--bind"),
            fsync: self.fsync,
            segment_size,
            compaction_rate: within("--compaction-rate", self.compaction_rate, SLOWEST_COMPACTION, LARGEST_SIZE)?,
            max_log_size,
            memory: MemoryLimit {
                bytes: match self.max_memory {
                    Some(given) => within("--max-memory", given, SMALLEST_MEMORY, LARGEST_SIZE)? as usize,
                    None => usize::try_from(machine.memory / 4 * 3).unwrap_or(usize::MAX),
                },
                evicts: self.eviction == Eviction::Clock,
            },
            limits: Limits { max_value: max_value as usize },
            max_backlog: within("--max-backlog", self.max_backlog, SMALLEST_BACKLOG, LARGEST_SIZE)? as usize,
            replay_threads,
            existing: self.existing,
        })
    }
}

fn parse_fsync(text: &str) -> Result<SyncPolicy, String> {
    match text {
        "always" => Ok(SyncPolicy::Always),
        "never" => Ok(SyncPolicy::Never),
        _ => match humantime::parse_duration(text) {
            Ok(Duration::ZERO) => Err("a duration of 0 would be `always`: say that".into()),
            Ok(every) => Ok(SyncPolicy::Every(every)),
            Err(_) => Err("must be `always`, `never`, or a duration such as 250ms, 1s or 2m".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Interface;

    const MACHINE: Machine = Machine { memory: 8 << 30, interfaces: Vec::new() };

    /// Without the environment of whoever runs the tests.
    fn flags(arguments: &[&str]) -> Result<Flags, clap::Error> {
        Flags::read(std::iter::once("kvd").chain(arguments.iter().copied()).map(Into::into), &|_| None)
    }

    fn refusal(arguments: &[&str]) -> String {
        match flags(arguments) {
            Ok(flags) => flags.validate(&MACHINE).expect_err("must be refused").to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Flags::command().debug_assert();
    }

    #[test]
    fn without_flags_everything_has_its_documented_default() {
        let config = flags(&[]).expect("parses").validate(&MACHINE).expect("is possible");
        assert_eq!(config.data_dir, PathBuf::from("./data"));
        assert_eq!(config.bind.iter().map(ToString::to_string).collect::<Vec<_>>(), [DEFAULT_BIND]);
        assert_eq!(config.fsync, SyncPolicy::Always);
        assert_eq!(config.segment_size, 128 << 20);
        assert_eq!(config.limits.max_value, crate::command::DEFAULT_MAX_VALUE);
        assert_eq!(config.max_backlog, 64 << 20);
        assert!(config.replay_threads >= 1);
    }

    #[test]
    fn fsync_takes_always_never_and_durations() {
        assert_eq!(parse_fsync("always"), Ok(SyncPolicy::Always));
        assert_eq!(parse_fsync("never"), Ok(SyncPolicy::Never));
        assert_eq!(parse_fsync("250ms"), Ok(SyncPolicy::Every(Duration::from_millis(250))));
        assert!(parse_fsync("0s").is_err_and(|why| why.contains("always")));
        assert!(parse_fsync("often").is_err());
    }

    #[test]
    fn sizes_have_bounds() {
        assert!(refusal(&["--segment-size", "1KiB"]).contains("--segment-size"));
        assert!(refusal(&["--segment-size", "17GiB"]).contains("--segment-size"));
        assert!(refusal(&["--max-value", "2GiB"]).contains("--max-value"));
        assert!(refusal(&["--max-backlog", "1000"]).contains("--max-backlog"));
        assert!(refusal(&["--replay-threads", "0"]).contains("--replay-threads"));
        let config = flags(&["--segment-size", "65536", "--max-value", "1GiB", "--max-backlog", "1MiB"])
            .expect("parses")
            .validate(&MACHINE)
            .expect("is possible");
        assert_eq!((config.segment_size, config.limits.max_value, config.max_backlog), (65536, 1 << 30, 1 << 20));
    }

    #[test]
    fn no_endpoint_is_given_twice() {
        let lo = Interface { name: "lo".into(), index: 1, addresses: vec![std::net::Ipv4Addr::LOCALHOST.into()] };
        let machine = Machine { interfaces: vec![lo], ..MACHINE };
        let refusal = |one: &str, other: &str| {
            let flags = flags(&["--bind", one, "--bind", other]).expect("parses");
            flags.validate(&machine).err().map(|error| (error.exit_code(), error.to_string()))
        };
        for (one, other, told) in [
            ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1", "--bind tcp://127.0.0.1:1 is given twice"),
            ("tcp://127.0.0.1:1", "tcp://localhost:1", "--bind tcp://127.0.0.1:1 is given twice"),
            ("tcp://127.0.0.1:1", "tcp://lo:1", "--bind tcp://lo:1 is given twice, as tcp://127.0.0.1:1"),
            ("ipc:///run/kvd.sock", "ipc:///run/kvd.sock", "--bind ipc:///run/kvd.sock is given twice"),
            ("ipc://@kvd", "ipc://@kvd", "--bind ipc://@kvd is given twice"),
        ] {
            assert_eq!(refusal(one, other), Some((USAGE, told.to_owned())));
        }
        assert_eq!(refusal("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"), None);
        assert_eq!(refusal("tcp://127.0.0.1:1", "tcp://127.0.0.1:2"), None);
    }

    #[test]
    fn binding_beyond_loopback_wants_to_be_confirmed() {
        let both = ["--bind", "tcp://127.0.0.1:1", "--bind", "tcp://*:2"];
        assert!(refusal(&both).contains("--insecure-bind"));
        let config = flags(&[&both[..], &["--insecure-bind"]].concat()).expect("parses").validate(&MACHINE);
        assert_eq!(config.expect("is possible").bind.len(), 2);
    }
}
