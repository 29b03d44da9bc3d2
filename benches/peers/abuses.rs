//! What may be done to a server on ZMTP, by whom it listens to: each kind, and the bytes that it takes.

use crate::abusers::{Abuser, Caller, Habits, Talker, endless};
use crate::server::Server;
use kvd::tools::bench::protocol::Protocol;
use kvd::tools::bench::random::Random;
use kvd::tools::bench::zmtp::put_header;
use rustix::process::{Resource, getrlimit};
use std::io;
use std::time::Duration;

/// Connections that are idle, if the limit of descriptors allows as many.
const IDLE: u64 = 10_000;
/// Descriptors for everything else.
const OTHERS: u64 = 500;
/// Half handshakes that are open at a time.
const HALF: usize = 1_000;
/// Connections that come and go, open at a time, and how long after one the next comes.
const PASSING: usize = 64;
const AFTER_EACH: Duration = Duration::from_micros(250);
/// Readers that have stopped, what each has asked for, how long a value is, and after how long another one follows.
const READERS: usize = 8;
const ASKED: usize = 128;
const LONG_VALUE: usize = 1 << 20;
const AFTER_A_READER: Duration = Duration::from_millis(500);
/// Bytes of a value of those who write too fast, and how many keys they write.
const WRITTEN: usize = 64 << 10;
const WRITTEN_KEYS: usize = 16;
/// Bytes of a frame of a message without end, and of all of them until it begins anew.
const FRAME: usize = 1024;
const ENDLESS: u64 = 512 << 20;

/// Bytes of a greeting, the first part of a hello.
const GREETING: usize = 64;

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Bytes that are no ZMTP, before the greeting or after it.
    Garbage,
    /// Greetings that end halfway, on connections that stay.
    HalfHandshakes,
    /// Connections that say who they are and nothing more.
    IdleConnections,
    /// The identity of somebody who is there.
    ClaimedIdentity,
    /// Peers that ask for more than may wait for them, and never read.
    StoppedReaders,
    /// A peer that writes as fast as it is read.
    GreedyWriter,
    /// Requests that are none, as fast as they are answered.
    Nonsense,
    /// A message whose every frame announces another one.
    EndlessMessage,
}

impl Abuse {
    /// All of them.
    pub const ALL: [Abuse; 8] = [
        Abuse::Garbage,
        Abuse::HalfHandshakes,
        Abuse::IdleConnections,
        Abuse::ClaimedIdentity,
        Abuse::StoppedReaders,
        Abuse::GreedyWriter,
        Abuse::Nonsense,
        Abuse::EndlessMessage,
    ];

    /// As tables name it.
    pub fn name(self) -> String {
        match self {
            Abuse::Garbage => "garbage on new connections".to_owned(),
            Abuse::HalfHandshakes => format!("{HALF} half handshakes, renewed"),
            Abuse::IdleConnections => format!("{} idle connections", idle()),
            Abuse::ClaimedIdentity => "an identity claimed again and again".to_owned(),
            Abuse::StoppedReaders => format!("{READERS} readers that stop, {ASKED} MiB each, renewed"),
            Abuse::GreedyWriter => format!("SETs of {} KiB, faster than the disk", WRITTEN >> 10),
            Abuse::Nonsense => "bad commands and hostile pickles".to_owned(),
            Abuse::EndlessMessage => format!("a message without end, anew after {} MiB", ENDLESS >> 20),
        }
    }

    /// Somebody who does it to this server, and has begun.
    ///
    /// # Errors
    /// The server is gone.
    pub fn begin(self, server: &Server) -> io::Result<Box<dyn Abuser>> {
        let protocol = server.kind.protocol();
        let hello = protocol.hello();
        // Without a greeting of the server's: what is said takes its place, or nothing follows it.
        let stranger =
            |sayings, hold, pause| Caller::new(server, false, sayings, hold, pause).map(|it| Box::new(it) as Box<_>);
        let talker = |again, most, reads| {
            let habits = Habits { reads, most, starts_over: true };
            Talker::new(server, again, habits).map(|it| Box::new(it) as Box<_>)
        };
        match self {
            Abuse::Garbage => stranger(garbage(&hello), PASSING, Some(AFTER_EACH)),
            Abuse::HalfHandshakes => {
                let halves = (0..64).map(|length| hello[..length].to_vec()).collect();
                stranger(halves, HALF, Some(AFTER_EACH))
            }
            Abuse::IdleConnections => stranger(vec![hello], idle() as usize, None),
            Abuse::ClaimedIdentity => stranger(vec![hello_as(hello, b"claimed")], PASSING, Some(AFTER_EACH)),
            Abuse::StoppedReaders => {
                server.connect()?.ask(&[b"SET", b"long", &vec![b'v'; LONG_VALUE]])?;
                let mut asked = Vec::new();
                (0..ASKED).for_each(|_| protocol.request(&[b"GET", b"long"], &mut asked));
                Ok(Box::new(Caller::new(server, true, vec![asked], READERS, Some(AFTER_A_READER))?))
            }
            Abuse::GreedyWriter => {
                let (value, mut written) = (vec![b'v'; WRITTEN], Vec::new());
                (0..WRITTEN_KEYS)
                    .for_each(|n| protocol.request(&[b"SET", format!("greedy:{n}").as_bytes(), &value], &mut written));
                talker(written, u64::MAX, true)
            }
            Abuse::Nonsense => talker(nonsense(protocol), u64::MAX, true),
            Abuse::EndlessMessage => talker(endless(FRAME), ENDLESS, false),
        }
    }
}

/// Connections of [`Abuse::IdleConnections`]: fewer where the limit of descriptors is low.
fn idle() -> u64 {
    getrlimit(Resource::Nofile).maximum.map_or(IDLE, |most| IDLE.min(most.saturating_sub(OTHERS)))
}

/// What is said in place of a greeting, or after one.
fn garbage(hello: &[u8]) -> Vec<Vec<u8>> {
    let mut random = Random::seeded(1);
    let greeting = &hello[..GREETING];
    vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        random.bytes(4096),
        [greeting, &[0xff; 4096]].concat(),
        [greeting, &b"\x04\x02XY"[..]].concat(),
        [greeting, &random.bytes(4096)].concat(),
        [hello, &[0xff; 4096]].concat(),
    ]
}

/// The hello of somebody with a name.
fn hello_as(mut hello: Vec<u8>, name: &[u8]) -> Vec<u8> {
    let property = [b"\x08Identity", &(name.len() as u32).to_be_bytes()[..], name].concat();
    // READY is a short frame: flags, and a length of one byte.
    hello[GREETING + 1] += property.len() as u8;
    hello.extend(property);
    hello
}

/// Messages that are refused, each for another reason.
fn nonsense(protocol: &dyn Protocol) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (marks, too_long) = ([b'('; 4096], vec![b'k'; 70_000]);
    let requests: [&[&[u8]]; 12] = [
        &[b"NOSUCH", b"key"],
        &[b"GET"],
        &[b"SET", b"", b"value"],
        &[b"INCR", b"key", b"many"],
        &[b"SET", b"key", b"value", b"TTL", b"-1"],
        &[b"GET", &too_long],
        &[b"\x01\xff\xff\xff\xff\xff\xff\xff\xff"],
        &[b"cos\nsystem\n(Vtrue\ntR."],
        &[b"(cos\nsystem\n(Vtrue\ntRVk\nVv\nt."],
        &[b"\x80\x04(\x8c\x03set\x8d\0\0\0\0\0\x01\0\0t."],
        &[b"(Vset\nr\xff\xff\xff\xffVk\nVv\nt."],
        &[&marks],
    ];
    for request in requests {
        protocol.request(request, &mut bytes);
    }
    // No empty frame, and so no envelope.
    put_header(0, 4, &mut bytes);
    bytes.extend(b"PING");
    bytes
}
