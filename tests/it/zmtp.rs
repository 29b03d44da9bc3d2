//! A peer that speaks ZMTP 3.0 (NULL) over a plain TCP stream, without libzmq.
//!
//! It exists for what libzmq hides: it sees end of file the moment the daemon dies, so that every reply that
//! left the daemon has been read when `recv` fails; and it can lie, stop in the middle of a frame or never read.

use crate::daemon::PATIENCE;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// One connection, past the handshake, in the part of a DEALER.
pub struct Peer {
    stream: TcpStream,
    incoming: BufReader<TcpStream>,
    outgoing: Vec<u8>,
}

/// The 64 bytes that open every ZMTP connection.
pub fn greeting() -> Vec<u8> {
    let mut greeting = vec![0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// All that a DEALER says of its own accord before its first message: a greeting and who it is.
pub fn opening(identity: &[u8]) -> Vec<u8> {
    let property =
        |name: &[u8], value: &[u8]| [&[name.len() as u8], name, &(value.len() as u32).to_be_bytes(), value].concat();
    let ready = [&b"\x05READY"[..], &property(b"Socket-Type", b"DEALER"), &property(b"Identity", identity)].concat();
    [greeting(), vec![COMMAND, ready.len() as u8], ready].concat()
}

/// Connects without saying anything. `endpoint` is `tcp://HOST:PORT`.
pub fn connect_silently(endpoint: &str) -> io::Result<TcpStream> {
    let address = endpoint.strip_prefix("tcp://").expect("a TCP endpoint");
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl Peer {
    /// Connects and shakes hands.
    pub fn connect(endpoint: &str) -> io::Result<Peer> {
        Peer::connect_as(endpoint, b"")
    }

    /// The same under a name of one's own.
    pub fn connect_as(endpoint: &str, identity: &[u8]) -> io::Result<Peer> {
        let stream = connect_silently(endpoint)?;
        let incoming = BufReader::new(stream.try_clone()?);
        let mut peer = Peer { stream, incoming, outgoing: Vec::new() };
        peer.outgoing.extend(opening(identity));
        peer.flush()?;
        peer.incoming.read_exact(&mut [0; 64])?;
        let (flags, command) = peer.read_frame()?;
        assert!(flags & COMMAND != 0 && command.starts_with(b"\x05READY"), "no READY but {command:?}");
        Ok(peer)
    }

    /// Connects as ZMTP 2.0 does, of whose peers libzmq tells no properties: type and identity in place of a READY.
    pub fn connect_as_older(endpoint: &str) -> io::Result<Peer> {
        const DEALER: u8 = 5;
        let stream = connect_silently(endpoint)?;
        let incoming = BufReader::new(stream.try_clone()?);
        let mut peer = Peer { stream, incoming, outgoing: Vec::new() };
        let revision = 1;
        peer.outgoing.extend([&greeting()[..10], &[revision, DEALER]].concat());
        peer.queue_frame(0, b"");
        peer.flush()?;
        // Signature, revision, type.
        peer.incoming.read_exact(&mut [0; 12])?;
        let (_, identity) = peer.read_frame()?;
        assert!(identity.is_empty(), "an identity of the server: {identity:?}");
        Ok(peer)
    }

    /// Adds a request to what the next [`Peer::flush`] sends.
    pub fn queue<B: AsRef<[u8]>>(&mut self, body: &[B]) {
        self.queue_frame(MORE, b"");
        for (index, frame) in body.iter().enumerate() {
            self.queue_frame(if index + 1 < body.len() { MORE } else { 0 }, frame.as_ref());
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        let outgoing = std::mem::take(&mut self.outgoing);
        self.stream.write_all(&outgoing)
    }

    pub fn send<B: AsRef<[u8]>>(&mut self, body: &[B]) -> io::Result<()> {
        self.queue(body);
        self.flush()
    }

    /// Sends bytes as they are, whatever they mean.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The body of the next reply. An error once the daemon is gone.
    pub fn recv(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut body = None;
        loop {
            let (flags, bytes) = self.read_frame()?;
            if flags & COMMAND != 0 {
                // A heartbeat: `PING`, two bytes of time to live, and a context to send back.
                if let Some(rest) = bytes.strip_prefix(b"\x04PING") {
                    let context = rest.get(2..).unwrap_or_default();
                    self.queue_frame(COMMAND, &[b"\x04PONG", context].concat());
                    self.flush()?;
                }
                continue;
            }
            match &mut body {
                None if bytes.is_empty() => body = Some(Vec::new()),
                None => {}
                Some(frames) => frames.push(bytes),
            }
            if flags & MORE == 0 {
                return body.ok_or_else(|| io::Error::other("a reply without its empty frame"));
            }
        }
    }

    pub fn call<B: AsRef<[u8]>>(&mut self, body: &[B]) -> io::Result<Vec<Vec<u8>>> {
        self.send(body)?;
        self.recv()
    }

    /// How long [`Peer::recv`] waits from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a read timeout");
    }

    /// Reads until the daemon has closed the connection.
    pub fn wait_for_close(mut self) {
        let mut rest = Vec::new();
        match self.incoming.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection is still open: {error}"),
        }
    }

    fn queue_frame(&mut self, flags: u8, bytes: &[u8]) {
        if let Ok(length) = u8::try_from(bytes.len()) {
            self.outgoing.extend([flags, length]);
        } else {
            self.outgoing.push(flags | LONG);
            self.outgoing.extend((bytes.len() as u64).to_be_bytes());
        }
        self.outgoing.extend(bytes);
    }

    fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut start = [0; 2];
        self.incoming.read_exact(&mut start)?;
        let [flags, short] = start;
        let length = if flags & LONG == 0 {
            u64::from(short)
        } else {
            let mut long = [0; 8];
            long[0] = short;
            self.incoming.read_exact(&mut long[1..])?;
            u64::from_be_bytes(long)
        };
        let mut bytes = vec![0; length as usize];
        self.incoming.read_exact(&mut bytes)?;
        Ok((flags, bytes))
    }
}
