//! A disk whose power can fail, served as a file system by the test process, so that kvd's own binary runs on it.
//!
//! The [`Disk`] is in memory and keeps apart what is live (what reads see) and what is durable (what was synced). A
//! power failure leaves what is durable, and of the rest whatever a real disk might: each sector, size and directory
//! entry by itself. A [`Mount`] puts it into the file tree by way of FUSE, without a cache for writes: every system call
//! that changes something is a call to the disk.
//!
//! The fault model is that of the fake disk in `src/log/fs/fake.rs`, written a second time: what the log's unit tests
//! take for granted is held here by another hand, and every system call of the real process is in between.

mod contents;
mod disk;
mod entries;
mod fate;
mod file_system;
mod mount;
/// What the disk keeps and what it forgets, asked directly and through a mount.
mod promises;
mod synced;

pub use disk::Disk;
pub use fate::Unsynced;
pub use mount::Mount;
