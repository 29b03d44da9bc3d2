//! What signals mean to the daemon, and a descriptor that becomes readable when one arrives.
//!
//! SIGTERM and SIGINT ask for a clean stop; a second one, while that stop goes on, ends the process at once, as it would end
//! any other, which is always safe. SIGHUP is kept for reloading, SIGUSR1 and SIGUSR2 for what may come: a log rotation or a
//! habit sends them, and by default each would end the process, which a supervisor takes for a clean end after SIGHUP. They
//! do nothing but a log line. SIGPIPE is ignored, by Rust's runtime, since every write tells of it by itself. SIGQUIT, SIGABRT
//! and those that tell of a fault end the process with a core dump, which is what they are sent for; SIGBUS first names the
//! file, while the log is read. Nothing else is sent without being asked for. Knows nothing of what a stop takes.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Those that do nothing.
const IGNORED: [(i32, &str); 3] = [(SIGHUP, "SIGHUP"), (SIGUSR1, "SIGUSR1"), (SIGUSR2, "SIGUSR2")];

/// What is said beside to whoever rotates logs.
const LOG_OUTPUT: &str = ", which has no log file to open anew (its log output is standard error)";

/// The signals that are listened to from here on.
pub(super) struct Signals {
    arrived: UnixStream,
    stop: Arc<AtomicBool>,
    ignored: [(Arc<AtomicBool>, &'static str); IGNORED.len()],
}

impl Signals {
    /// Listens.
    pub fn listen() -> io::Result<Signals> {
        let (arrived, writer) = UnixStream::pair()?;
        arrived.set_nonblocking(true)?;
        // Signals in their thousands fill it, and then need no more bytes in it.
        writer.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag down and raises it, the second finds it up.
            flag::register_conditional_default(signal, Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
            low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        let ignored = IGNORED.map(|(_, name)| (Arc::new(AtomicBool::new(false)), name));
        for ((signal, _), (flag, _)) in IGNORED.iter().zip(&ignored) {
            flag::register(*signal, Arc::clone(flag))?;
            low_level::pipe::register(*signal, writer.try_clone()?)?;
        }
        Ok(Signals { arrived, stop, ignored })
    }

    /// Readable once a signal arrived.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }

    /// Takes notice of those that arrived since this was last called, and tells whether a stop has been asked for.
    pub fn heed(&mut self) -> bool {
        while matches!(self.arrived.read(&mut [0; 64]), Ok(1..)) {}
        for (flag, name) in &self.ignored {
            if flag.swap(false, Ordering::Relaxed) {
                let log = if *name == "SIGHUP" { LOG_OUTPUT } else { "" };
                tracing::info!("{name} means nothing to kvd{log}: SIGTERM or SIGINT stops it");
            }
        }
        self.stop.load(Ordering::Relaxed)
    }
}
