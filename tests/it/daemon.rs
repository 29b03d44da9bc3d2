//! A real `kvd` process: started on a directory of its own, spoken to, signalled, waited for.
//!
//! Everything here waits for an event (a line on stdout, a reply, the end of the process), never for a time to
//! pass; [`PATIENCE`] only ends tests that would hang. What the daemon wrote on stderr is shown when a test fails.

use crate::zmtp::Peer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a test waits for what must happen before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub const KVD: &str = env!("CARGO_BIN_EXE_kvd");

/// A data directory that outlives the daemons that run on it.
pub struct Store {
    root: tempfile::TempDir,
}

impl Store {
    pub fn new() -> Store {
        Store { root: tempfile::Builder::new().prefix("kvd-").tempdir().expect("a temporary directory") }
    }

    /// The data directory itself.
    pub fn path(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A place beside the data directory, for sockets and files that do not belong in it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// An endpoint that is known before the daemon runs.
    pub fn ipc_endpoint(&self) -> String {
        format!("ipc://{}", self.beside("socket").display())
    }

    pub fn launch(&self) -> Launch {
        Launch::on(&self.path())
    }

    pub fn start(&self) -> Daemon {
        self.launch().start()
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        segments(&self.path())
    }

    /// Every file of the data directory, and what it holds.
    pub fn contents(&self) -> BTreeMap<OsString, Vec<u8>> {
        let entries = std::fs::read_dir(self.path()).expect("a data directory");
        let entries = entries.map(|entry| entry.expect("a directory entry"));
        entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).expect("a readable file"))).collect()
    }
}

/// The segments in a data directory, oldest first.
pub fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a data directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
    paths.retain(|path| path.extension() == Some(OsStr::new("log")));
    paths.sort();
    paths
}

/// How to start a daemon.
#[derive(Clone)]
pub struct Launch {
    program: PathBuf,
    wrapper: Vec<OsString>,
    data_dir: Option<PathBuf>,
    segment_size: &'static str,
    binds: Vec<String>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    user: Option<u32>,
}

impl Launch {
    /// On this directory, with small segments and a port that the kernel picks.
    pub fn on(data_dir: &Path) -> Launch {
        Launch {
            program: KVD.into(),
            wrapper: Vec::new(),
            data_dir: Some(data_dir.to_owned()),
            segment_size: "1MiB",
            binds: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            user: None,
        }
    }

    /// Without `--data-dir`.
    pub fn without_data_dir(mut self) -> Launch {
        self.data_dir = None;
        self
    }

    pub fn program(mut self, program: &Path) -> Launch {
        program.clone_into(&mut self.program);
        self
    }

    /// Adds an endpoint to bind; the first one takes the place of `tcp://127.0.0.1:*`.
    pub fn bind(mut self, endpoint: &str) -> Launch {
        self.binds.push(endpoint.to_owned());
        self
    }

    pub fn segment_size(mut self, size: &'static str) -> Launch {
        self.segment_size = size;
        self
    }

    pub fn flag(mut self, flag: &str) -> Launch {
        self.arguments.push(flag.into());
        self
    }

    pub fn option(self, name: &str, value: &str) -> Launch {
        self.flag(name).flag(value)
    }

    pub fn environment(mut self, name: &str, value: impl AsRef<OsStr>) -> Launch {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Under another program, which must become the daemon (same process) in the end.
    pub fn under<S: AsRef<OsStr>>(mut self, wrapper: &[S]) -> Launch {
        self.wrapper = wrapper.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    pub fn user(mut self, user: u32) -> Launch {
        self.user = Some(user);
        self
    }

    /// Starts the process and returns at once.
    pub fn spawn(&self) -> Daemon {
        let mut words = self.wrapper.clone();
        words.push(self.program.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        // Settings of whoever runs the tests are none of the daemon's.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"KVD_")) {
            command.env_remove(name);
        }
        if let Some(data_dir) = &self.data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        command.args(["--segment-size", self.segment_size]);
        let default = ["tcp://127.0.0.1:*".to_owned()];
        let binds = if self.binds.is_empty() { default.as_slice() } else { &self.binds };
        command.args(binds.iter().filter(|bind| !bind.is_empty()).flat_map(|bind| ["--bind", bind]));
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Daemon::watch(command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    /// Starts the process and waits until it serves.
    pub fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.wait_ready();
        daemon
    }

    /// Starts the process and waits until it has refused to run.
    pub fn refused(&self) -> Ended {
        let ended = self.spawn().wait();
        assert!(!ended.status.success(), "it must not start, yet it ended with {}", ended.status);
        assert!(ended.status.code().is_some(), "a refusal, not a crash: {}", ended.status);
        assert_eq!(ended.stdout, Vec::<String>::new(), "a refusal says nothing on stdout");
        ended
    }
}

/// What is left of a daemon.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// The lines on stdout, `kvd ready` left out if it was waited for.
    pub stdout: Vec<String>,
    pub stderr: String,
}

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    child: Child,
    endpoints: Vec<String>,
    stdout: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Daemon {
    fn watch(mut child: Child) -> Daemon {
        let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut err = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (lines, stdout) = channel();
        let stderr = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&stderr);
        let out_reader = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let err_reader = std::thread::spawn(move || {
            let mut line = Vec::new();
            while matches!(err.by_ref().read_until(b'\n', &mut line), Ok(1..)) {
                collected.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Daemon { child, endpoints: Vec::new(), stdout, stderr, readers: vec![out_reader, err_reader] }
    }

    /// Waits for the line `kvd ready ENDPOINT…`.
    pub fn wait_ready(&mut self) {
        if !self.comes_up() {
            let status = self.wait_for_exit();
            panic!("the daemon ended before it was ready: {status}");
        }
    }

    /// Waits until it serves or has ended, and tells whether it serves.
    pub fn comes_up(&mut self) -> bool {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => {
                let endpoints = line.strip_prefix("kvd ready ").unwrap_or_else(|| panic!("not a ready line: {line}"));
                self.endpoints = endpoints.split_whitespace().map(str::to_owned).collect();
                true
            }
            Err(RecvTimeoutError::Timeout) => panic!("the daemon is not ready after {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }

    /// The first endpoint.
    pub fn endpoint(&self) -> &str {
        self.endpoints.first().expect("a ready daemon")
    }

    /// All endpoints, in the order of the flags.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// A REQ client.
    pub fn client(&self) -> Client {
        Client::req(self.endpoint())
    }

    /// A DEALER client, which may pipeline.
    pub fn dealer(&self) -> Client {
        Client::dealer(self.endpoint())
    }

    /// A peer without libzmq.
    pub fn peer(&self) -> Peer {
        Peer::connect(self.endpoint()).expect("a handshake")
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// What reads stderr also after the daemon is gone.
    pub fn stderr_reader(&self) -> impl Fn() -> String + use<> {
        let stderr = Arc::clone(&self.stderr);
        move || stderr.lock().unwrap().clone()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a live process");
    }

    /// kill -9, and wait until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("a child of ours");
        self.wait_for_exit();
    }

    /// SIGTERM, and wait until it has ended.
    pub fn terminate(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Stops it as an operator would, and expects it to end well.
    pub fn stop(self) {
        let ended = self.terminate();
        assert_eq!(ended.status.code(), Some(0), "SIGTERM ends with exit code 0:\n{}", ended.stderr);
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) -> Ended {
        let status = self.wait_for_exit();
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of the daemon's output");
        }
        Ended { status, stdout: self.stdout.try_iter().collect(), stderr: self.stderr() }
    }

    /// Number of the process, which is that of its first thread as well.
    pub fn number(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory now, in bytes.
    pub fn memory(&self) -> u64 {
        self.status_figure("VmRSS:")
    }

    /// The most resident memory so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status_figure("VmHWM:")
    }

    fn status_figure(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a live process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
    }

    fn wait_for_exit(&mut self) -> ExitStatus {
        if let Ok(Some(status)) = self.child.try_wait() {
            return status;
        }
        let process =
            pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("a child not yet waited for");
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).expect("poll");
        assert!(ended > 0, "the daemon is still running after {PATIENCE:?}");
        self.child.wait().expect("a child of ours")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail, harmlessly, where it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's stderr ---\n{}---", self.stderr());
        }
    }
}

/// The frames of a message.
pub type Frames = Vec<Vec<u8>>;

/// A client on libzmq, as applications have it.
pub struct Client {
    pub socket: zmq::Socket,
    adds_delimiter: bool,
}

impl Client {
    pub fn req(endpoint: &str) -> Client {
        Client { socket: connect(zmq::REQ, endpoint), adds_delimiter: false }
    }

    pub fn dealer(endpoint: &str) -> Client {
        Client { socket: connect(zmq::DEALER, endpoint), adds_delimiter: true }
    }

    pub fn send<B: AsRef<[u8]>>(&self, body: &[B]) {
        let delimiter: &[&[u8]] = if self.adds_delimiter { &[b""] } else { &[] };
        self.send_frames(delimiter.iter().copied().chain(body.iter().map(AsRef::as_ref)));
    }

    pub fn recv(&self) -> Frames {
        let mut frames = self.recv_frames();
        if self.adds_delimiter {
            assert_eq!(frames.first().map(Vec::as_slice), Some(b"".as_slice()), "a reply begins with its envelope");
            frames.remove(0);
        }
        frames
    }

    /// Sends a request and waits for its reply.
    pub fn call(&self, body: &[&[u8]]) -> Frames {
        self.send(body);
        self.recv()
    }

    /// A request in words, and its reply in words.
    pub fn say(&self, request: &str) -> String {
        self.send_words(request);
        self.hear()
    }

    /// A figure of STATS.
    pub fn figure(&self, name: &str) -> u64 {
        figure_of(&self.call(&[b"STATS"]), name)
    }

    pub fn send_words(&self, request: &str) {
        self.send(&request.split(' ').collect::<Vec<_>>());
    }

    /// The next reply, in words.
    pub fn hear(&self) -> String {
        words(&self.recv())
    }

    /// Sends these frames and no other.
    pub fn send_frames<'f>(&self, frames: impl IntoIterator<Item = &'f [u8]>) {
        self.socket.send_multipart(frames, 0).expect("room to send");
    }

    /// Which of these have a reply, once one has.
    pub fn wait_for_any(clients: &[Client]) -> Vec<usize> {
        let mut items: Vec<_> = clients.iter().map(|client| client.socket.as_poll_item(zmq::POLLIN)).collect();
        let found = zmq::poll(&mut items, PATIENCE.as_millis() as i64).expect("a wait");
        assert!(found > 0, "a reply in time");
        (0..items.len()).filter(|index| items[*index].is_readable()).collect()
    }

    /// Every frame that comes, the envelope included.
    pub fn recv_frames(&self) -> Frames {
        self.socket.recv_multipart(0).expect("a reply in time")
    }
}

/// A figure in a reply to STATS.
pub fn figure_of(stats: &Frames, name: &str) -> u64 {
    let at = stats.iter().position(|word| word == name.as_bytes()).unwrap_or_else(|| panic!("STATS has no {name}"));
    String::from_utf8_lossy(&stats[at + 1]).parse().expect("a number")
}

/// Frames as one line.
pub fn words(frames: &Frames) -> String {
    frames.iter().map(|frame| String::from_utf8_lossy(frame)).collect::<Vec<_>>().join(" ")
}

/// Polls until something has come true.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "not so after {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

fn connect(kind: zmq::SocketType, endpoint: &str) -> zmq::Socket {
    static CONTEXT: OnceLock<zmq::Context> = OnceLock::new();
    let socket = CONTEXT.get_or_init(zmq::Context::new).socket(kind).expect("a socket");
    let patience = PATIENCE.as_millis() as i32;
    socket.set_linger(0).expect("ZMQ_LINGER");
    socket.set_rcvtimeo(patience).expect("ZMQ_RCVTIMEO");
    socket.set_sndtimeo(patience).expect("ZMQ_SNDTIMEO");
    // Endpoints that are connected to before the daemon runs are found as soon as it does.
    socket.set_reconnect_ivl(1).expect("ZMQ_RECONNECT_IVL");
    socket.connect(endpoint).expect("an endpoint");
    socket
}
