//! A request with room for a key: copied and overwritten, never built anew.

use super::keys::{KeyShape, overwrite};
use super::outbox::Outbox;
use super::protocol::Protocol;
use crate::command::Expiry;

/// Values from this length on are not copied.
const SHARED: usize = 16 * 1024;

/// The bytes of a request, and where in them the key stands.
pub struct Template {
    shape: KeyShape,
    key: usize,
    /// What stands before a shared value; all of the request where there is none.
    head: Vec<u8>,
    /// Bytes of the shared value.
    shared: usize,
    tail: Vec<u8>,
}

impl Template {
    /// A request to read.
    pub fn get(protocol: &dyn Protocol, shape: KeyShape) -> Template {
        let mut head = Vec::new();
        let places = protocol.get(&shape.key(0), &mut head);
        Template { shape, key: places.key, head, shared: 0, tail: Vec::new() }
    }

    /// A request to write a value, the first `length` bytes of the payload.
    pub fn set(protocol: &dyn Protocol, shape: KeyShape, length: usize, payload: &[u8], expiry: Expiry) -> Template {
        let mut head = Vec::new();
        let places = protocol.set(&shape.key(0), length, expiry, &mut head);
        let mut tail = head.split_off(places.value);
        let shared = if length < SHARED { 0 } else { length };
        if shared == 0 {
            head.extend_from_slice(&payload[..length]);
            head.append(&mut tail);
        }
        Template { shape, key: places.key, head, shared, tail }
    }

    /// Appends the request for the key with this number. Returns how many bytes of it are shared.
    pub fn put(&self, key: u64, into: &mut Outbox) -> usize {
        let bytes = into.bytes();
        let start = bytes.len() + self.key;
        bytes.extend_from_slice(&self.head);
        overwrite(key, &mut bytes[start..start + self.shape.size()]);
        if self.shared > 0 {
            into.share(self.shared);
            into.bytes().extend_from_slice(&self.tail);
        }
        self.shared
    }
}

/// A request to write a value whose length changes from one to the next, so that each is built anew.
pub struct Builder {
    blank: Vec<u8>,
    shape: KeyShape,
    expiry: Expiry,
    tail: Vec<u8>,
}

impl Builder {
    /// Requests for keys of this shape.
    pub fn new(shape: KeyShape, expiry: Expiry) -> Builder {
        Builder { blank: shape.key(0), shape, expiry, tail: Vec::new() }
    }

    /// Appends the request for the key with this number and a value of this length. Returns how many bytes of it are
    /// shared.
    pub fn put(&mut self, protocol: &dyn Protocol, key: u64, length: usize, into: &mut Outbox) -> usize {
        let bytes = into.bytes();
        let start = bytes.len();
        let places = protocol.set(&self.blank, length, self.expiry, bytes);
        overwrite(key, &mut bytes[start + places.key..][..self.shape.size()]);
        self.tail.clear();
        self.tail.extend(bytes.drain(start + places.value..));
        let shared = if length < SHARED { 0 } else { length };
        if shared == 0 {
            into.copy(length);
        } else {
            into.share(length);
        }
        into.bytes().extend_from_slice(&self.tail);
        shared
    }
}
