//! SIGTERM and SIGINT as a descriptor that becomes readable.
//!
//! The first signal asks for a clean stop; a second one, while that stop goes on, ends the process at once,
//! which is always safe. Knows nothing of what a stop takes.

use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Exit code when a second signal cuts the clean stop short.
const CUT_SHORT: i32 = 1;

/// The signals that ask for a stop, listened to from here on.
pub(super) struct Signals {
    arrived: UnixStream,
}

impl Signals {
    /// Listens.
    pub fn listen() -> io::Result<Signals> {
        let (arrived, writer) = UnixStream::pair()?;
        arrived.set_nonblocking(true)?;
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag down and raises it, the second finds it up.
            signal_hook::flag::register_conditional_shutdown(signal, CUT_SHORT, Arc::clone(&asked))?;
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Signals { arrived })
    }

    /// Readable once a signal arrived.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }

    /// Whether one arrived since this was last asked.
    pub fn arrived(&mut self) -> bool {
        matches!(self.arrived.read(&mut [0; 8]), Ok(bytes) if bytes > 0)
    }
}
