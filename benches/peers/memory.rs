//! What ill-behaved clients cost a server in memory.
//!
//! Each kind of [`Misuse`] meets a server of its own, while another client asks now and then whether it is
//! still served. Kinds that only ZMTP allows are not tried on Redis.

use crate::options::Options;
use crate::process::Memory;
use crate::server::{Fsync, Kind, Server};
use crate::table::{self, mib};
use kvd::tools::bench::connection::Connection;
use kvd::tools::bench::keys::KeyShape;
use kvd::tools::bench::zmtp::{LONG, MORE, put_header};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of the value whose GETs are never read, and of each frame of the endless message.
const PIECE: usize = 1024;
/// Connections that announce a frame, and the bytes that each announces.
const ANNOUNCERS: usize = 100;
const ANNOUNCED: u64 = 64 << 20;
/// Enough of an endless message to see a slope, and little enough for the machine to bear.
const ENDLESS_LIMIT: u64 = 1 << 30;
/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// What a client may do wrong, or on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Misuse {
    /// Pipelines GETs and reads no reply.
    NeverReads,
    /// Announces large frames and sends nothing of them.
    AnnouncesFrames,
    /// Sends frame after frame of a message that never ends.
    EndlessMessage,
}

impl Misuse {
    const ALL: [Misuse; 3] = [Misuse::NeverReads, Misuse::AnnouncesFrames, Misuse::EndlessMessage];

    fn name(self) -> String {
        match self {
            Misuse::NeverReads => format!("GETs of {PIECE} B, no reply read"),
            Misuse::AnnouncesFrames => format!("{ANNOUNCERS} frames of {} MiB announced", ANNOUNCED >> 20),
            Misuse::EndlessMessage => format!("one message of {PIECE} B frames without end"),
        }
    }

    /// Whether it can be tried on this kind of server.
    fn fits(self, kind: Kind) -> bool {
        match kind.base() {
            // It stores no value of that size.
            Kind::Bare => self != Misuse::NeverReads,
            Kind::Redis | Kind::Memcached => self == Misuse::NeverReads,
            _ => true,
        }
    }
}

/// Tries each misuse on each server and prints what it cost.
///
/// # Errors
/// A server fails, or stops serving others.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path) -> io::Result<()> {
    let mut rows = Vec::new();
    for misuse in Misuse::ALL {
        for kind in kinds.iter().copied().filter(|kind| misuse.fits(*kind)) {
            eprintln!("memory, {}, {}", misuse.name(), kind.name());
            rows.push(measure(options, misuse, kind, scratch)?);
        }
    }
    table::print(
        "Memory, MiB",
        2,
        &[
            "client",
            "server",
            "sent",
            "resident before",
            "after ¼",
            "after ½",
            "after ¾",
            "at the end",
            "peak",
            "address space at the end",
            "resident after it left",
            "others waited at most ms",
        ],
        &rows,
    );
    Ok(())
}

fn measure(options: &Options, misuse: Misuse, kind: Kind, scratch: &Path) -> io::Result<Vec<String>> {
    let directory = tempfile::tempdir_in(scratch)?;
    let server = Server::start(&options.programs(), kind, &directory.path().join("data"), Fsync::Always)?;
    let (mut other, key) = (server.connect()?, KeyShape::default().key(0));
    other.ask(&[b"SET", &key, &vec![b'v'; PIECE]])?;

    let before = server.process.memory()?;
    let mut client = Client::new(misuse, &server)?;
    let (start, total) = (Instant::now(), Duration::from_secs_f64(options.seconds()));
    let (mut samples, mut slowest) = (Vec::new(), Duration::ZERO);
    while start.elapsed() < total {
        client.go_on(start + INTERVAL * (samples.len() as u32 + 1))?;
        samples.push(server.process.memory()?);
        let asked = Instant::now();
        other.ask(&[b"GET", &key])?;
        slowest = slowest.max(asked.elapsed());
    }
    let sent = client.sent;
    drop(client);
    std::thread::sleep(2 * INTERVAL);
    let after = server.process.memory()?;
    server.stop()?;

    let resident_at = |quarter| mib(at(&samples, quarter).resident);
    let end = at(&samples, 4);
    let mut row = vec![misuse.name(), kind.name().to_owned(), mib(sent), mib(before.resident)];
    row.extend([1, 2, 3, 4].map(resident_at));
    row.extend([
        mib(end.peak),
        mib(end.address_space),
        mib(after.resident),
        format!("{:.1}", slowest.as_secs_f64() * 1e3),
    ]);
    Ok(row)
}

/// The sample at the end of this quarter of the time.
fn at(samples: &[Memory], quarter: usize) -> Memory {
    samples.get((samples.len() * quarter / 4).saturating_sub(1)).copied().unwrap_or_default()
}

/// Who misuses.
struct Client {
    misuse: Misuse,
    connections: Vec<Connection>,
    /// What is sent over and over, and how much of it is gone.
    again: Vec<u8>,
    position: usize,
    sent: u64,
}

impl Client {
    fn new(misuse: Misuse, server: &Server) -> io::Result<Client> {
        let count = if misuse == Misuse::AnnouncesFrames { ANNOUNCERS } else { 1 };
        let connections = (0..count).map(|_| server.connect()).collect::<io::Result<Vec<_>>>()?;
        let key = KeyShape::default().key(0);
        let mut client = Client { misuse, connections, again: Vec::new(), position: 0, sent: 0 };
        for connection in &mut client.connections {
            let stream = connection.stream();
            match misuse {
                Misuse::NeverReads => {}
                Misuse::EndlessMessage => stream.write_all(&[MORE, 0])?,
                Misuse::AnnouncesFrames => {
                    stream.write_all(&[MORE, 0, LONG])?;
                    stream.write_all(&ANNOUNCED.to_be_bytes())?;
                    client.sent += 11;
                }
            }
            connection.set_nonblocking()?;
        }
        // Many at a time, so that a call of the system carries more than one.
        for _ in 0..64 {
            match misuse {
                Misuse::NeverReads => server.kind.protocol().request(&[b"GET", &key], &mut client.again),
                Misuse::AnnouncesFrames => {}
                Misuse::EndlessMessage => {
                    put_header(MORE, PIECE, &mut client.again);
                    client.again.resize(client.again.len() + PIECE, b'v');
                }
            }
        }
        Ok(client)
    }

    /// Goes on until `deadline`, as fast as the server lets it.
    fn go_on(&mut self, deadline: Instant) -> io::Result<()> {
        while Instant::now() < deadline {
            if self.again.is_empty() || (self.misuse == Misuse::EndlessMessage && self.sent >= ENDLESS_LIMIT) {
                std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                return Ok(());
            }
            match self.connections[0].stream().write(&self.again[self.position..]) {
                Ok(count) => {
                    self.sent += count as u64;
                    self.position = (self.position + count) % self.again.len();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // Cut off by the server: its right, and for some kinds of misuse what should happen.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                    self.again.clear();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
