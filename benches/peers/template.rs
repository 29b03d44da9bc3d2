//! A request with room for a key: copied and overwritten, never built anew.

use crate::keys::{KEY_LEN, Key, key};
use crate::protocol::Protocol;

/// The bytes of a request, and where in them the key stands.
pub struct Template {
    bytes: Vec<u8>,
    key_at: usize,
}

impl Template {
    /// A request to write `value`.
    pub fn set(protocol: &dyn Protocol, value: &[u8]) -> Template {
        let mut bytes = Vec::new();
        protocol.request(&[b"SET", &key(0), value], &mut bytes);
        Template::new(bytes)
    }

    /// A request to read.
    pub fn get(protocol: &dyn Protocol) -> Template {
        let mut bytes = Vec::new();
        protocol.request(&[b"GET", &key(0)], &mut bytes);
        Template::new(bytes)
    }

    fn new(bytes: Vec<u8>) -> Template {
        let place = key(0);
        let key_at = bytes.windows(KEY_LEN).position(|window| window == place).expect("a request holds its key");
        Template { bytes, key_at }
    }

    /// Appends the request for this key.
    pub fn put(&self, key: &Key, into: &mut Vec<u8>) {
        let start = into.len() + self.key_at;
        into.extend_from_slice(&self.bytes);
        into[start..start + KEY_LEN].copy_from_slice(key);
    }
}
