//! What ill-behaved clients cost a server in memory.
//!
//! Each kind of [`Misuse`] meets a server of its own, while another client asks now and then whether it is
//! still served. Kinds that only ZMTP allows are not tried on Redis.

use crate::abusers::{Abuser, Caller, Habits, Talker, endless};
use crate::options::Options;
use crate::process::Memory;
use crate::server::{Fsync, Kind, Server};
use crate::table::{self, mib};
use kvd::tools::bench::keys::KeyShape;
use kvd::tools::bench::zmtp::{LONG, MORE};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of the value whose GETs are never read.
const VALUE: usize = 1024;
/// How many are asked for at a time, so that a call of the system carries more than one.
const AT_A_TIME: usize = 64;
/// Connections that announce a frame, and the bytes that each announces.
const ANNOUNCERS: usize = 100;
const ANNOUNCED: u64 = 64 << 20;
/// Bytes of each frame of a message without end: nothing, what libzmq keeps in the frame's own place, and more.
const FRAMES: [usize; 4] = [0, 32, 1024, 64 << 10];
/// Enough of such a message to see a slope, and little enough for the machine to bear: bytes, and frames of 64 bytes or more.
const ENDLESS: u64 = 1 << 30;
const ENDLESS_FRAMES: u64 = ENDLESS / 64;
/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// What a client may do wrong, or on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Misuse {
    /// Pipelines GETs and reads no reply.
    NeverReads,
    /// Announces large frames and sends nothing of them.
    AnnouncesFrames,
    /// Sends frame after frame of so many bytes, of a message that never ends.
    EndlessMessage(usize),
}

impl Misuse {
    fn all() -> Vec<Misuse> {
        let others = [Misuse::NeverReads, Misuse::AnnouncesFrames];
        others.into_iter().chain(FRAMES.map(Misuse::EndlessMessage)).collect()
    }

    fn name(self) -> String {
        match self {
            Misuse::NeverReads => format!("GETs of {VALUE} B, no reply read"),
            Misuse::AnnouncesFrames => format!("{ANNOUNCERS} frames of {} MiB announced", ANNOUNCED >> 20),
            Misuse::EndlessMessage(frame) => format!("one message of {frame} B frames without end"),
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

    fn begin(self, server: &Server) -> io::Result<Box<dyn Abuser>> {
        let protocol = server.kind.protocol();
        let goes_on = Habits { reads: false, most: u64::MAX, starts_over: false };
        Ok(match self {
            Misuse::NeverReads => {
                let mut again = Vec::new();
                for _ in 0..AT_A_TIME {
                    protocol.request(&[b"GET", &KeyShape::default().key(0)], &mut again);
                }
                Box::new(Talker::new(server, again, goes_on)?)
            }
            Misuse::AnnouncesFrames => {
                let announcement = [&[MORE, 0, LONG][..], &ANNOUNCED.to_be_bytes()].concat();
                Box::new(Caller::new(server, true, vec![announcement], ANNOUNCERS, None)?)
            }
            Misuse::EndlessMessage(frame) => {
                let most = ENDLESS.min(ENDLESS_FRAMES * (frame as u64 + 2));
                Box::new(Talker::new(server, endless(frame), Habits { most, ..goes_on })?)
            }
        })
    }
}

/// Tries each misuse on each server and prints what it cost.
///
/// # Errors
/// A server fails, or stops serving others.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path) -> io::Result<()> {
    let mut rows = Vec::new();
    for misuse in Misuse::all() {
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
    other.ask(&[b"SET", &key, &vec![b'v'; VALUE]])?;

    let before = server.process.memory()?;
    let mut client = misuse.begin(&server)?;
    let (start, total) = (Instant::now(), Duration::from_secs_f64(options.seconds()));
    let (mut samples, mut slowest) = (Vec::new(), Duration::ZERO);
    while start.elapsed() < total {
        let look = start + INTERVAL * (samples.len() as u32 + 1);
        while Instant::now() < look {
            client.go_on()?;
        }
        samples.push(server.process.memory()?);
        let asked = Instant::now();
        other.ask(&[b"GET", &key])?;
        slowest = slowest.max(asked.elapsed());
    }
    let sent = client.done().bytes;
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
