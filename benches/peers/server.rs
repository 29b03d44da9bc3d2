//! The servers that are compared: how each is started and spoken to, and when it is ready.
//!
//! All of them listen on loopback TCP and keep their data on the disk that the build directory is on; none
//! reads a configuration of the machine's own.

use crate::memcached::Text;
use crate::process::Process;
use crate::resp::Resp;
use clap::ValueEnum;
use kvd::tools::bench::address::Address;
use kvd::tools::bench::connection::Connection;
use kvd::tools::bench::frames::Frames;
use kvd::tools::bench::keys::KeyShape;
use kvd::tools::bench::protocol::{Answer, Protocol};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The argument that makes this program the bare ROUTER.
pub const SERVE_BARE: &str = "--serve-bare";

/// How long a server may take to load what is on its disk.
const LOADS_WITHIN: Duration = Duration::from_secs(600);
/// How often a server is asked whether it is ready: at first finely enough to time a start on nothing, then rarely enough
/// not to slow a long one.
const POLLS: [Duration; 2] = [Duration::from_micros(200), Duration::from_millis(5)];
/// How long that is at first.
const AT_FIRST: Duration = Duration::from_secs(1);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// kvd.
    Kvd,
    /// kvd that syncs every second.
    KvdSecond,
    /// Redis with an append-only file.
    Redis,
    /// The same, synced every second.
    RedisSecond,
    /// A ROUTER that answers OK and does nothing else.
    Bare,
    /// memcached, which keeps nothing on disk.
    Memcached,
}

impl Kind {
    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kvd => "kvd",
            Kind::KvdSecond => "kvd 1s",
            Kind::Redis => "Redis",
            Kind::RedisSecond => "Redis everysec",
            Kind::Bare => "bare ROUTER",
            Kind::Memcached => "memcached",
        }
    }

    /// The same program, whatever it is told of syncs.
    pub fn base(self) -> Kind {
        match self {
            Kind::KvdSecond => Kind::Kvd,
            Kind::RedisSecond => Kind::Redis,
            other => other,
        }
    }

    /// How it is spoken to.
    pub fn protocol(self) -> &'static dyn Protocol {
        match self.base() {
            Kind::Redis => &Resp,
            Kind::Memcached => &Text,
            _ => &Frames,
        }
    }
}

/// When what was written is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before a write is answered.
    Always,
    /// Every second.
    EverySecond,
    /// When the kernel likes.
    Never,
}

impl Fsync {
    /// As kvd wants it said, and as Redis does.
    fn words(self) -> [&'static str; 2] {
        match self {
            Fsync::Always => ["always", "always"],
            Fsync::EverySecond => ["1s", "everysec"],
            Fsync::Never => ["never", "no"],
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// kvd.
    pub kvd: PathBuf,
    /// More arguments for kvd.
    pub kvd_arguments: Vec<String>,
    /// Redis.
    pub redis: PathBuf,
    /// memcached.
    pub memcached: PathBuf,
}

impl Programs {
    /// Whether a kind of server can be started on this machine.
    pub fn has(&self, kind: Kind) -> bool {
        let installed = |program: &Path| Command::new(program).arg("--version").output().is_ok();
        match kind.base() {
            Kind::Redis => installed(&self.redis),
            Kind::Memcached => installed(&self.memcached),
            _ => true,
        }
    }
}

/// A server that answers.
pub struct Server {
    /// Which.
    pub kind: Kind,
    /// Where it listens.
    pub address: Address,
    /// What runs it.
    pub process: Process,
    /// From the start of the process to the first answered GET.
    pub ready_after: Duration,
}

impl Server {
    /// Starts a server on the data in `directory`, which may be empty, and waits until it answers a GET.
    ///
    /// # Errors
    /// It can't be started, ends, or does not answer in time.
    pub fn start(programs: &Programs, kind: Kind, directory: &Path, fsync: Fsync) -> io::Result<Server> {
        Server::start_with(programs, kind, directory, fsync, &[])
    }

    /// The same with more arguments; the last word is theirs.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(
        programs: &Programs,
        kind: Kind,
        directory: &Path,
        fsync: Fsync,
        arguments: &[String],
    ) -> io::Result<Server> {
        fs::create_dir_all(directory)?;
        let log = directory.with_extension("log");
        let port = free_port()?;
        let fsync = if kind == kind.base() { fsync } else { Fsync::EverySecond };
        let mut command = match kind.base() {
            Kind::Bare => bare()?,
            Kind::Redis => redis(programs, directory, fsync, port, &log),
            Kind::Memcached => memcached(programs, port),
            _ => kvd(programs, directory, fsync),
        };
        command.args(arguments);
        let start = Instant::now();
        let (mut process, address) = match kind.base() {
            Kind::Kvd | Kind::Bare => announced(command, kind, log)?,
            _ => {
                let process = Process::start(kind.name(), &mut command, log)?;
                (process, Address::from(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
            }
        };
        wait_for_answer(kind, &address, &mut process, start)?;
        Ok(Server { kind, address, process, ready_after: start.elapsed() })
    }

    /// A connection to it.
    pub fn connect(&self) -> io::Result<Connection> {
        Connection::to_ask(self.kind.protocol(), &self.address)
    }

    /// Stops it and waits until it has written what it holds.
    pub fn stop(self) -> io::Result<()> {
        match self.kind.base() {
            // They have nothing to write.
            Kind::Bare | Kind::Memcached => Ok(()),
            _ => self.process.stop(),
        }
    }
}

fn kvd(programs: &Programs, directory: &Path, fsync: Fsync) -> Command {
    let mut command = Command::new(&programs.kvd);
    // Flags may also come from the environment, and what is set there is not what is measured here.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"KVD_")) {
        command.env_remove(name);
    }
    command.arg("--data-dir").arg(directory);
    command.args(["--bind", "tcp://127.0.0.1:*"]);
    command.args(["--fsync", fsync.words()[0]]);
    command.args(&programs.kvd_arguments);
    command
}

/// Redis as an append-only store and nothing else: no snapshots, no rewrite of the file while it is measured.
fn redis(programs: &Programs, directory: &Path, fsync: Fsync, port: u16, log: &Path) -> Command {
    let mut command = Command::new(&programs.redis);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
    command.arg("--dir").arg(directory).arg("--logfile").arg(log);
    command.args(["--appendonly", "yes", "--appendfsync", fsync.words()[1]]);
    command.args(["--aof-use-rdb-preamble", "no", "--auto-aof-rewrite-percentage", "0"]);
    command
}

fn memcached(programs: &Programs, port: u16) -> Command {
    let mut command = Command::new(&programs.memcached);
    // The limit of memory is beyond what any load stores. The user matters to root alone, whom it asks for one.
    command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-m", "16384", "-u", "root"]);
    command
}

fn bare() -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(SERVE_BARE);
    Ok(command)
}

/// Starts a server that chooses its port and tells it in a line `NAME ready tcp://ADDRESS`.
fn announced(mut command: Command, kind: Kind, log: PathBuf) -> io::Result<(Process, Address)> {
    let mut process = Process::start(kind.name(), &mut command, log)?;
    let output = process.stdout().ok_or_else(|| io::Error::other("no standard output"))?;
    let (tell, told) = mpsc::channel();
    // On a thread of its own, so that waiting can end; and to the end of the output, since a server that
    // says more than a pipe holds would stand still.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once(" ready tcp://") {
                let _ = tell.send(address.to_owned());
            }
        }
    });
    match told.recv_timeout(LOADS_WITHIN) {
        Ok(address) => Ok((process, Address::Tcp(address))),
        Err(RecvTimeoutError::Disconnected) => Err(process.failure("ended before it was ready")),
        Err(RecvTimeoutError::Timeout) => Err(process.failure("does not get ready")),
    }
}

/// A port that nobody has now. Redis and memcached can't be told to choose one themselves.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Asks again and again until a GET is answered with a value or a miss. Servers that still load refuse it.
fn wait_for_answer(kind: Kind, address: &Address, process: &mut Process, start: Instant) -> io::Result<()> {
    let key = KeyShape::default().key(0);
    let pause = || std::thread::sleep(POLLS[usize::from(start.elapsed() >= AT_FIRST)]);
    while start.elapsed() < LOADS_WITHIN {
        let answer = Connection::to_ask(kind.protocol(), address).and_then(|mut peer| {
            loop {
                match peer.ask(&[b"GET", &key])? {
                    Answer::Refused(why) if why.starts_with("LOADING") => pause(),
                    answer => return Ok(answer),
                }
            }
        });
        match answer {
            Ok(Answer::Ok | Answer::Miss) => return Ok(()),
            Ok(Answer::Refused(why) | Answer::AllRefused(why)) => {
                return Err(process.failure(&format!("refuses a GET: {why}")));
            }
            // Not listening yet. Whether it ever will is for the process to say.
            Err(_) => process.check()?,
        }
        pause();
    }
    Err(process.failure("does not get ready"))
}
