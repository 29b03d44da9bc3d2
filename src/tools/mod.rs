//! Tools for the day they are needed. They are clients of the daemon, or work on a data directory and know the log.
//!
//! Never a part of the daemon, and know nothing of it.

mod bar;
pub mod bench;
pub mod check;
pub mod dump;
pub mod line;
pub mod load;
pub mod output;
pub mod repair;
pub mod survivors;
