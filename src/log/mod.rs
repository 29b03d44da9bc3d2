//! Bytes on disk: an append-only log of mutations, in segments, checksummed and chained.
//!
//! Knows the format (`docs/format.md`) and the order of operations that makes it safe (`docs/durability.md`). Never
//! knows commands, replies or the table: it is given mutations and gives mutations back.
//!
//! ```text
//!  mutations -> record -> batch -> thread -> committer -> writer -> fs -> disk
//!                                                                          |
//!  mutations <------------------- scan <- recovery (all cores) <- segment -+
//!                                             |
//!                                           mend (cuts what recovery decided to cut)
//! ```
#![deny(clippy::unwrap_used, clippy::expect_used)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod batch;
pub mod budget;
mod bytes;
pub mod checksum;
mod committer;
pub mod compaction;
pub mod compactor;
mod directory;
mod error;
pub mod fs;
mod ledger;
mod mend;
mod open;
mod policy;
pub mod record;
pub mod recovery;
pub mod salvage;
pub mod scan;
mod secret;
pub mod segment;
mod shortage;
mod thread;
pub mod verified;
pub mod victims;
mod writer;

pub use batch::{Batch, Tally};
pub use committer::Event;
pub use directory::{DataDir, open_unlocked};
pub use error::{LogError, Mismatch, Unknown};
pub use ledger::{Ledger, Usage};
pub use open::{LogOptions, Ready, Recovered, UNCLEAN_SKIP, Unread};
pub use policy::SyncPolicy;
pub use recovery::Progress;
pub use secret::Secret;
pub use shortage::Shortage;
pub use thread::Log;
pub use writer::{AppendError, Writer};

#[cfg(test)]
pub use thread::Stepper;
