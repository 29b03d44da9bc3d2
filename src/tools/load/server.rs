//! Lines into a running daemon: as frames, and keys that frames can't name as the pickled requests that they came in.

use super::{LoadError, Sink};
use crate::command::{Command, LARGEST_MAX_VALUE, Limits};
use crate::mutation::{Key, PICKLED, Space};
use crate::tools::line::Line;
use crate::tools::output::say;
use crate::wire::pickle;
use std::collections::VecDeque;
use std::time::Duration;

/// Requests, and bytes of them, that may be unanswered.
const IN_FLIGHT: usize = 1000;
const BYTES_IN_FLIGHT: usize = 16 << 20;
/// How long the daemon may be silent, in milliseconds.
const PATIENCE_MS: i32 = 30_000;
/// How long it may be until whoever waits for the first answer is told so, in milliseconds.
const UNTOLD_MS: i64 = 1_000;
/// How long until a daemon that still reads its log is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// A request that is unanswered.
struct Asked {
    /// The line that it stores.
    number: u64,
    bytes: usize,
    /// How a reply begins that tells that it was stored.
    stored: &'static [u8],
}

/// A daemon that stores lines.
pub(super) struct Server {
    endpoint: String,
    socket: zmq::Socket,
    /// The requests that are unanswered, oldest first.
    asked: VecDeque<Asked>,
    bytes: usize,
}

impl Server {
    /// Connects, and waits until the daemon has read its log.
    pub fn connect(endpoint: &str) -> Result<Server, LoadError> {
        let failed = |why: zmq::Error| LoadError::Server { endpoint: endpoint.to_owned(), why: why.to_string() };
        let socket = zmq::Context::new().socket(zmq::DEALER).map_err(failed)?;
        // Replies in flight are few, and counted by us.
        socket.set_sndhwm(0).map_err(failed)?;
        socket.set_rcvhwm(0).map_err(failed)?;
        socket.set_linger(0).map_err(failed)?;
        socket.set_rcvtimeo(PATIENCE_MS).map_err(failed)?;
        // An IPv6 address stands in brackets; otherwise a name is that of an IPv4 address.
        socket.set_ipv6(endpoint.contains('[')).map_err(failed)?;
        socket.connect(endpoint).map_err(failed)?;
        let server = Server { endpoint: endpoint.to_owned(), socket, asked: VecDeque::new(), bytes: 0 };
        let mut told = false;
        loop {
            server.socket.send_multipart([&b""[..], b"COUNT"], 0).map_err(|error| server.failed(error))?;
            if !told && server.socket.poll(zmq::POLLIN, UNTOLD_MS) == Ok(0) {
                told = true;
                say(format_args!("kvd: waits for a kvd to answer at {endpoint}, {} s at most", PATIENCE_MS / 1_000));
            }
            let reply = server.reply()?;
            match reply.get(1..) {
                Some([status, ..]) if status == b"OK" => return Ok(server),
                Some([status, code, ..]) if status == b"ERR" && code == b"LOADING" => std::thread::sleep(AGAIN),
                _ => return Err(server.gone("it is no kvd: it does not tell how many keys it has")),
            }
        }
    }

    /// Sends a request, whose envelope is added, and reads replies as long as too much is unanswered.
    fn ask(&mut self, number: u64, body: &[&[u8]], stored: &'static [u8]) -> Result<(), LoadError> {
        let bytes = body.iter().map(|frame| frame.len()).sum();
        let frames = std::iter::once(&b""[..]).chain(body.iter().copied());
        self.socket.send_multipart(frames, 0).map_err(|error| self.failed(error))?;
        self.asked.push_back(Asked { number, bytes, stored });
        self.bytes += bytes;
        while self.asked.len() >= IN_FLIGHT || self.bytes >= BYTES_IN_FLIGHT {
            self.hear()?;
        }
        Ok(())
    }

    /// Reads the reply to the oldest request.
    fn hear(&mut self) -> Result<(), LoadError> {
        let reply = self.reply()?;
        let Some(Asked { number, bytes, stored }) = self.asked.pop_front() else { return Ok(()) };
        self.bytes -= bytes;
        let words = reply.get(1..).unwrap_or_default();
        if words.first().is_some_and(|status| status == stored) {
            return Ok(());
        }
        let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        Err(LoadError::Refused { number, why: words.join(" ") })
    }

    fn reply(&self) -> Result<Vec<Vec<u8>>, LoadError> {
        self.socket.recv_multipart(0).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: zmq::Error) -> LoadError {
        match error {
            zmq::Error::EAGAIN => self.gone("no kvd answers there"),
            error => self.gone(&error.to_string()),
        }
    }

    fn gone(&self, why: &str) -> LoadError {
        LoadError::Server { endpoint: self.endpoint.clone(), why: why.to_owned() }
    }
}

impl Sink for Server {
    fn take(&mut self, number: u64, line: &Line<'_>) -> Result<(), LoadError> {
        if line.space == Space::Python {
            return self.ask(number, &[&request_of(number, line)?], b"ok");
        }
        let (deadline, flags) = (line.deadline.to_string(), (line.flags & !PICKLED).to_string());
        let mut body: Vec<&[u8]> = vec![b"SET", &line.key, &line.value];
        if line.deadline != 0 {
            body.extend([&b"AT"[..], deadline.as_bytes()]);
        }
        if line.flags & !PICKLED != 0 {
            body.extend([&b"FLAGS"[..], flags.as_bytes()]);
        }
        if line.flags & PICKLED != 0 {
            body.push(b"PICKLED");
        }
        self.ask(number, &body, b"OK")
    }

    fn finish(mut self) -> Result<(), LoadError> {
        while !self.asked.is_empty() {
            self.hear()?;
        }
        Ok(())
    }
}

/// The pickled request that stores a key of Python's as its line says: the one that its value came from, if that is of this
/// key. It has no place for flags and deadlines, and nobody gives such a key any, but a line may.
fn request_of(number: u64, line: &Line<'_>) -> Result<Vec<u8>, LoadError> {
    if line.flags & PICKLED == 0 {
        return Err(LoadError::NotPickled(number));
    }
    let request = pickle::restore(&line.value).ok_or(LoadError::NoRequest(number))?;
    let (limits, mut scratch) = (Limits { max_value: LARGEST_MAX_VALUE }, Vec::new());
    match pickle::decode(&request, &limits, &mut scratch) {
        Ok(Command::Set { key, .. }) if key == (Key { space: line.space, bytes: &line.key }) => {}
        Ok(_) => return Err(LoadError::OtherKey(number)),
        Err(error) => return Err(LoadError::Impossible { number, why: error.to_string() }),
    }
    let what = match (line.deadline, line.flags) {
        (0, PICKLED) => return Ok(request),
        (0, _) => "flags",
        _ => "a deadline_ms",
    };
    Err(LoadError::NotCarried { number, what })
}
