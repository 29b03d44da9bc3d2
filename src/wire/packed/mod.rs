//! The packed dialect: one frame, a list of commands; its reply one frame, the list of replies.
//!
//! ```text
//!   request   01  count  command …      each an index, then its fields
//!   reply     01  count  reply …        one for each command, in order
//! ```
//!
//! Everything behind the mark is bincode in its standard configuration, of types that `request` and `reply` declare and
//! nothing else uses. `docs/protocol.md` gives every byte, so that a client needs no bincode, and kvd could do without it.
//! Knows neither sockets nor what a command does.
//!
//! Half a list is never executed: [`decode()`] looks over the whole message first, and holds nothing of it. Then it gives
//! one [`crate::command::Command`] after the other, which borrow their keys and values from the message.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod decode;
mod reply;
mod request;

pub use decode::{Commands, decode};
pub use reply::{begin, encode};

/// The byte that begins requests and replies of this dialect.
pub const MARK: u8 = 0x01;

/// The one configuration of bincode that the dialect is made of: little-endian, numbers as short as they go.
const CONFIG: bincode::config::Configuration = bincode::config::standard();
