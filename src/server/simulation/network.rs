//! Wires in the place of a socket: what was sent arrives when somebody takes it in, and a reply when its peer reads.
//!
//! Knows no commands. A connection is told apart by its number, which never comes again.

use super::history::Frames;
use crate::command::Limits;
use crate::server::peer::Outlet;
use crate::server::reception::Socket;
use crate::server::request::Request;
use crate::server::router::{Held, Sent};
use crate::wire::Frame;
use crate::wire::reply_frames::Parcel;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;
use zmq::Message;

#[derive(Default)]
struct Wire {
    replies: VecDeque<Frames>,
    /// There is no room for another one.
    is_full: bool,
}

#[derive(Default)]
struct Wires {
    /// What has arrived, and was not taken in yet.
    arrived: VecDeque<(u32, Frames)>,
    connected: BTreeMap<u32, Wire>,
}

/// All wires. Clones share them.
#[derive(Clone, Default)]
pub struct Network(Rc<RefCell<Wires>>);

impl Network {
    pub fn connect(&self, connection: u32) {
        self.0.borrow_mut().connected.insert(connection, Wire::default());
    }

    /// The connection ends. What was sent through it arrives all the same, or what nobody had taken in is lost with it.
    pub fn disconnect(&self, connection: u32, loses: bool) {
        let mut wires = self.0.borrow_mut();
        wires.connected.remove(&connection);
        if loses {
            wires.arrived.retain(|(sender, _)| *sender != connection);
        }
    }

    pub fn send(&self, connection: u32, message: Frames) {
        self.0.borrow_mut().arrived.push_back((connection, message));
    }

    /// The next reply.
    pub fn read(&self, connection: u32) -> Option<Frames> {
        self.0.borrow_mut().connected.get_mut(&connection)?.replies.pop_front()
    }

    /// Whether a reply is there to be read.
    pub fn holds_for(&self, connection: u32) -> bool {
        self.0.borrow().connected.get(&connection).is_some_and(|wire| !wire.replies.is_empty())
    }

    /// Whether something was sent and not taken in yet.
    pub fn is_underway(&self, connection: u32) -> bool {
        self.0.borrow().arrived.iter().any(|(sender, _)| *sender == connection)
    }

    pub fn is_full(&self, connection: u32) -> bool {
        self.0.borrow().connected.get(&connection).is_some_and(|wire| wire.is_full)
    }

    pub fn set_full(&self, connection: u32, is_full: bool) {
        if let Some(wire) = self.0.borrow_mut().connected.get_mut(&connection) {
            wire.is_full = is_full;
        }
    }
}

/// As libzmq makes them up.
fn identity(connection: u32) -> [u8; 5] {
    let [a, b, c, d] = connection.to_be_bytes();
    [0, a, b, c, d]
}

impl Outlet for Network {
    type Error = Infallible;

    fn send(&mut self, to: &[u8], reply: Parcel<'_>, _: &Held) -> Result<Sent, Infallible> {
        let connection = to.last_chunk().map_or(0, |number| u32::from_be_bytes(*number));
        let mut wires = self.0.borrow_mut();
        let Some(wire) = wires.connected.get_mut(&connection) else { return Ok(Sent::Gone) };
        if wire.is_full {
            return Ok(Sent::Full);
        }
        let bytes = |frame| match frame {
            Frame::Small(bytes) => bytes.to_vec(),
            Frame::Large(bytes) => bytes,
        };
        wire.replies.push_back(reply.map(bytes).collect());
        Ok(Sent::Whole)
    }
}

impl Socket for Network {
    fn receive(&mut self, into: &mut Request) -> Result<bool, Infallible> {
        let Some((connection, message)) = self.0.borrow_mut().arrived.pop_front() else { return Ok(false) };
        let mut frames = std::iter::once(identity(connection).to_vec()).chain(message).peekable();
        into.fill(Limits::default(), |frame| {
            *frame = Message::from(frames.next().unwrap_or_default());
            Ok(frames.peek().is_some())
        })
    }

    fn ended(&mut self) -> Option<i32> {
        None
    }
}
