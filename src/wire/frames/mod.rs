//! The frames dialect: a verb and its arguments, a frame each, for people and for new languages.
//!
//! Knows the spelling of requests and replies; knows neither sockets and envelopes nor what a command does.
//! `docs/protocol.md` describes the dialect for those who write clients.
//!
//! [`decode()`] borrows the keys and values of a [`crate::command::Command`] from the message. Nothing it does or says grows with what a
//! message merely claims: numbers are checked before use, and an error repeats at most 32 bytes of the message.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod arguments;
mod decode;
mod encode;
mod options;

pub use decode::decode;
pub use encode::encode;
