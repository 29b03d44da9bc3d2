//! `kvd bench`: a load generator that costs little beside the server that it drives.
//!
//! ```text
//!   session     what the tool does: look whether it is kvd, fill, load, tell
//!      |  \
//!      |   report, progress      for people and for programs
//!      v
//!    load ----- schedule, tally  when a request is due; what came of it
//!      |  \
//!      |   requests              what is asked: mix, keys (zipf, random), values; copied from template
//!      v
//!    pool --> connection         many sockets of one thread; one of them, its outbox and its address
//!                  |
//!               protocol         bytes of a request and of a reply: frames, packed, pickle over zmtp
//! ```
//!
//! Everything below `session` drives any server that speaks a [`protocol::Protocol`]; the project's benchmarks add
//! those of other servers. Never a part of the daemon, and knows nothing of it.

pub mod address;
pub mod connection;
pub mod frames;
pub mod keys;
pub mod load;
pub mod mix;
pub mod outbox;
pub mod packed;
mod peer;
pub mod pickle;
pub mod pool;
mod progress;
pub mod protocol;
pub mod random;
mod report;
mod requests;
pub mod schedule;
pub mod session;
pub mod tally;
pub mod template;
pub mod values;
pub mod zipf;
pub mod zmtp;
