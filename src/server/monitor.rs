//! The socket's monitor: which connections have ended.
//!
//! libzmq tells it through a socket within the process. What it says about a connection's end is sent before
//! a next connection can take over the identity, so whoever reads it after having received a message knows
//! of every end that came before that message. Knows no peers.

use super::router::{descriptor_of, uninterrupted};
use std::os::fd::BorrowedFd;
use zmq::{Context, Message, Socket, SocketEvent};

const ADDRESS: &str = "inproc://kvd-monitor";

/// Hears of the ends of connections.
pub(super) struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// Listens to what becomes of a socket's connections.
    pub fn of(watched: &Socket, context: &Context) -> zmq::Result<Monitor> {
        watched.monitor(ADDRESS, i32::from(SocketEvent::DISCONNECTED.to_raw()))?;
        let socket = context.socket(zmq::PAIR)?;
        // No high-water mark: an end that goes unheard of would leave its peer's replies waiting.
        socket.set_rcvhwm(0)?;
        socket.set_linger(0)?;
        socket.connect(ADDRESS)?;
        Ok(Monitor { socket })
    }

    /// The descriptor of the next connection that ended, if there is one.
    pub fn ended(&mut self) -> Option<i32> {
        let mut frame = Message::new();
        while uninterrupted(|| self.socket.recv(&mut frame, zmq::DONTWAIT)).is_ok() {
            let ended = parse(&frame);
            while frame.get_more() {
                uninterrupted(|| self.socket.recv(&mut frame, 0)).ok()?;
            }
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    /// Readable when there may be something to hear, until [`Monitor::ended`] has said that there is nothing more.
    pub fn descriptor(&self) -> zmq::Result<BorrowedFd<'_>> {
        descriptor_of(&self.socket)
    }
}

/// An event's first frame: 16 bits of event and 32 bits of value, as the machine orders them.
fn parse(frame: &[u8]) -> Option<i32> {
    let (event, value) = frame.split_first_chunk::<2>()?;
    let value = i32::from_ne_bytes(value.try_into().ok()?);
    (u16::from_ne_bytes(*event) == SocketEvent::DISCONNECTED.to_raw()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_disconnections_count() {
        let event = |raw: u16| [&raw.to_ne_bytes()[..], &17i32.to_ne_bytes()].concat();
        assert_eq!(parse(&event(SocketEvent::DISCONNECTED.to_raw())), Some(17));
        assert_eq!(parse(&event(SocketEvent::ACCEPTED.to_raw())), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(&[0; 5]), None);
    }
}
