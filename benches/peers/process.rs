//! A server's process, seen from outside: started, looked at in `/proc`, stopped.
//!
//! Knows nothing of what the process serves. Only a process that was started here is ever signalled.

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a server may take to stop; it may have much to sync.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// Processes that have not been waited for, by number. A descriptor means the process even when its number is another's.
static RUNNING: Mutex<Vec<(u32, OwnedFd)>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<(u32, OwnedFd)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on a signal that ends this program kills what it has started first.
///
/// # Errors
/// The system refuses.
pub fn end_together() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // Held to the end, so that nothing is started meanwhile.
            let running = running();
            for (_, process) in running.iter() {
                // It fails if the process has ended, which is as well.
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// A running process, killed when dropped.
pub struct Process {
    child: Child,
    name: &'static str,
    /// Where its standard error goes, to be shown if it fails.
    log: PathBuf,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that ever was resident.
    pub peak: u64,
    /// Address space now: what was asked for, touched or not.
    pub address_space: u64,
}

impl Process {
    /// Starts `command` with its standard error going to the file `log`.
    ///
    /// # Errors
    /// There is no such program, or `log` can't be made.
    pub fn start(name: &'static str, command: &mut Command, log: PathBuf) -> io::Result<Process> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut running = running();
        let child = command.spawn();
        let child = child.map_err(|error| io::Error::new(error.kind(), format!("{name} does not start: {error}")))?;
        let process = Process { child, name, log };
        let opened = process.pid().and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        let known = opened.map(|descriptor| running.push((process.child.id(), descriptor)));
        // Before the process may be dropped, which asks for it.
        drop(running);
        known.map(|()| process)
    }

    /// Its standard output; once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// An error if it has ended, with the last it said.
    pub fn check(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.failure(&status.to_string())),
        }
    }

    /// An error that says what went wrong, and the last that the process said.
    pub fn failure(&self, what: &str) -> io::Error {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let last = said.lines().rev().take(5).collect::<Vec<_>>();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        io::Error::other(format!("{}: {what}\n  {last}", self.name))
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// It ended with a failure, or not in time (then it is killed).
    pub fn stop(mut self) -> io::Result<()> {
        kill_process(self.pid()?, Signal::TERM)?;
        let deadline = Instant::now() + STOPS_WITHIN;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failure(&format!("stopped with {status}"))),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        Err(self.failure("does not stop"))
    }

    /// Processor time of all its threads so far. The kernel counts it in ticks of mostly 10 ms.
    pub fn processor_time(&self) -> io::Result<Duration> {
        let stat = self.proc("stat")?;
        // The second field is the name in parentheses, which may hold spaces; the fields are numbered from 1.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        let ticks: u64 = fields.skip(14 - 3).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// What memory it holds.
    pub fn memory(&self) -> io::Result<Memory> {
        let status = self.proc("status")?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let kib = line.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        Ok(Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:"), address_space: bytes("VmSize:") })
    }

    fn proc(&self, file: &str) -> io::Result<String> {
        let mut text = String::new();
        File::open(format!("/proc/{}/{file}", self.child.id()))?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn pid(&self) -> io::Result<Pid> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        id.ok_or_else(|| io::Error::other("a process without an id"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        running().retain(|(number, _)| *number != self.child.id());
        // Both fail if it has ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
