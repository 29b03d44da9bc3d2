//! Peers whose commands and replies are remembered, each in its turn, so that it can be told whether what they saw makes
//! sense. Knows neither sockets nor daemons: whoever drives them carries the messages.
//!
//! ```text
//! client   a peer: what it sent, and whether what comes back answers it
//! ask      commands, in frames and packed, and what a reply tells of each key
//! events   what happened to each key, and whether an order of it makes sense
//! ```

mod ask;
mod client;
mod events;

pub use ask::{Ask, Choice, keys};
pub use client::Client;
pub use events::Histories;

/// Frames of a message.
pub type Frames = Vec<Vec<u8>>;
