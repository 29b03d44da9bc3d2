//! kvd: a persistent key/value cache spoken to over ZeroMQ.
//!
//! ```text
//!   peers       REQ and DEALER sockets
//!     |  ^
//!     v  |      server/router      whole messages in, whole replies out; never blocks
//!   server      server/reception   whose message, what does it ask, may the answer leave
//!     |  ^      server/peers       a peer's replies, in order, until they are durable and there is room
//!     v  |
//!   wire        bytes -> Command, Reply -> bytes; one file a dialect
//!     |  ^
//!     v  |
//!   engine      (table + overlay, Command, now) -> (Reply, mutations)
//!     |  ^
//!     |  +----- table    the durable state in memory: entries in shards, one map a shard
//!     v
//!   log         mutations -> batches -> segments on disk, on a thread of its own;
//!               at a start, segments -> mutations -> table
//! ```
//!
//! The engine's thread owns the socket, the engine and the table. A command is evaluated once, when it
//! arrives. Its reply says what it waits for, and leaves when that is durable and the peer's earlier replies
//! have left. `server/store` is the only place that knows both the engine and the log.
//!
//! The modules stand in the order in which data flows down; one may use those below it, never those above.

pub mod cli;
pub mod tools;

pub mod server;
pub mod wire;

pub mod command;
pub mod engine;
pub mod table;

pub mod log;

pub mod fault;

mod decimal;
pub mod descriptors;
pub mod mutation;
mod threads;
pub mod timeline;
