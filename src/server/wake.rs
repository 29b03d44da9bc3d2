//! How another thread ends the engine thread's wait: a counter in the kernel that the poll listens to.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Wakes the engine thread; clones wake the same one.
#[derive(Clone, Debug)]
pub(super) struct Wake(Arc<OwnedFd>);

impl Wake {
    /// A new one, not rung.
    pub fn new() -> io::Result<Wake> {
        Ok(Wake(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends the wait, or the next one if none is going on.
    pub fn ring(&self) {
        // This fails only where the counter is about to overflow, and then the poll wakes anyway.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Readable once rung.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Whether it was rung since this was last asked.
    pub fn rung(&self) -> bool {
        rustix::io::read(&*self.0, &mut [0; 8]).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rings_are_one_wake() {
        let wake = Wake::new().expect("an eventfd can be made");
        assert!(!wake.rung());
        wake.ring();
        wake.clone().ring();
        assert!(wake.rung());
        assert!(!wake.rung());
    }
}
