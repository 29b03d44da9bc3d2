//! Tools for the day they are needed: they work on a data directory, and know the log alone.
//!
//! Never a part of the daemon, and know nothing of it.

pub mod check;
