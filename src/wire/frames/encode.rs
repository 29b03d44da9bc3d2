//! A [`Reply`] to frames: the status first, then what belongs to it.
//!
//! Knows no command: a reply says by itself how it is spelled. Values and keys are copied here, once.

use crate::command::{PROTOCOL_VERSION, Reply, StoredValue};
use crate::wire::ReplyFrames;

/// Appends the frames of a reply: a status, and what belongs to it.
///
/// ```
/// use kvd::command::Reply;
/// use kvd::wire::{Frame, ReplyFrames, frames};
/// let mut reply = ReplyFrames::default();
/// frames::encode(&Reply::Conflict(7), &mut reply);
/// assert!(reply.parcel().eq([Frame::Small(b"CONFLICT"), Frame::Small(b"7")]));
/// ```
pub fn encode(reply: &Reply<'_>, into: &mut ReplyFrames) {
    let status: &[u8] = match reply {
        Reply::Miss => b"MISS",
        Reply::Exists => b"EXISTS",
        Reply::Conflict(_) => b"CONFLICT",
        Reply::Error(..) => b"ERR",
        Reply::Pong
        | Reply::Done
        | Reply::Stored(_)
        | Reply::Number(_)
        | Reply::Value(_)
        | Reply::Values(_)
        | Reply::Entries(_)
        | Reply::Page { .. }
        | Reply::Stats(_)
        | Reply::Version => b"OK",
    };
    into.push(status);
    match reply {
        Reply::Done | Reply::Miss | Reply::Exists => {}
        Reply::Pong => into.push(b"PONG"),
        Reply::Stored(version) | Reply::Conflict(version) => into.push_number(*version),
        Reply::Number(number) => into.push_number(*number),
        Reply::Value(value) => push_value(value, into),
        Reply::Values(values) => {
            for value in values {
                into.push(if value.is_some() { b"1" } else { b"0" });
                into.push(value.unwrap_or_default());
            }
        }
        Reply::Entries(entries) => {
            for entry in entries {
                into.push(if entry.is_some() { b"1" } else { b"0" });
                match entry {
                    Some(value) => push_value(value, into),
                    None => (0..3).for_each(|_| into.push(b"")),
                }
            }
        }
        Reply::Page { cursor, keys } => {
            into.push_number(*cursor);
            for key in keys {
                into.push(key);
            }
        }
        Reply::Stats(figures) => {
            for (name, value) in figures {
                into.push(name.as_bytes());
                into.push(value.as_bytes());
            }
        }
        Reply::Version => {
            into.push(env!("CARGO_PKG_VERSION").as_bytes());
            into.push_number(PROTOCOL_VERSION);
        }
        Reply::Error(code, message) => {
            into.push(code.name().as_bytes());
            into.push(message.as_bytes());
        }
    }
}

fn push_value(value: &StoredValue<'_>, into: &mut ReplyFrames) {
    into.push(value.bytes);
    into.push_number(value.version);
    into.push_number(value.flags);
}
