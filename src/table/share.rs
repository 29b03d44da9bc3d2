//! How the shards of a table are shared out among threads, while a start works on all of them.
//!
//! Knows how many shards there are, and nothing of what is done with them.

use super::slot::SHARDS;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

/// Shards that each of so many threads gets, at most.
pub fn share(threads: usize) -> usize {
    SHARDS.div_ceil(threads.max(1))
}

/// Does the same work on each part at once, on this thread and one more for each part but one, or as many as can be made, and
/// returns what came of it, in the order of the parts.
pub fn share_out<P: Send, R: Send>(parts: impl Iterator<Item = P>, work: impl Fn(P) -> R + Sync) -> Vec<R> {
    let parts: Vec<P> = parts.collect();
    let others = parts.len().saturating_sub(1);
    let queue = Mutex::new(parts.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work_off = || std::iter::from_fn(next).map(|(index, part)| (index, work(part))).collect::<Vec<_>>();
    let mut done = thread::scope(|scope| {
        let make = |_| Builder::new().spawn_scoped(scope, work_off);
        // What one that can't be made would have done is left to the others.
        let threads: Vec<_> = (0..others).map(make).take_while(Result::is_ok).flatten().collect();
        let mut done = work_off();
        for thread in threads {
            done.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_parts() {
        for count in [0, 1, 2, 50] {
            let done = share_out(0..count, |part| part * 2);
            assert_eq!(done, (0..count).map(|part| part * 2).collect::<Vec<_>>());
        }
    }
}
