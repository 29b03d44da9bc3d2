//! How the shards of a table are shared out among threads, while a start works on all of them.
//!
//! Knows how many shards there are, and nothing of what is done with them.

use super::slot::SHARDS;
use std::thread;

/// Shards that each of so many threads gets, at most.
pub fn share(threads: usize) -> usize {
    SHARDS.div_ceil(threads.max(1))
}

/// Does the same work on each part at once, on a thread of its own but for the first one, which is done on this thread, and
/// returns what came of it, in the order of the parts.
pub fn share_out<P: Send, R: Send>(mut parts: impl Iterator<Item = P>, work: impl Fn(P) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let Some(first) = parts.next() else { return Vec::new() };
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let first = work(first);
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        let others = joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        std::iter::once(first).chain(others).collect()
    })
}
