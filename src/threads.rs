//! Whether another thread can be made, and which limit is in the way where it can't.
//!
//! Knows the limits of tasks that a system has. Knows nothing of what threads are for.

use rustix::process::{Resource, getrlimit};
use std::fmt;
use std::fs;
use std::io;
use std::sync::mpsc::channel;
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

/// How long threads that have ended are waited for, until the system has forgotten them.
const LONGEST_END: Duration = Duration::from_secs(1);
/// Bytes of stack for a thread that only waits.
const SMALL_STACK: usize = 64 << 10;

/// A thread that could not be made. Displays as a sentence that names the limits.
#[derive(Debug, thiserror::Error)]
pub struct NoThread(#[from] pub io::Error);

impl fmt::Display for NoThread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = getrlimit(Resource::Nproc).current.map_or("unlimited".to_owned(), |limit| limit.to_string());
        let group = pids_max().unwrap_or("unlimited".to_owned());
        write!(
            formatter,
            "no more threads can be made ({}): the limits are {user} tasks of this user (RLIMIT_NPROC: `ulimit -u`, or \
             LimitNPROC= of the unit) and {group} of this control group (pids.max, or TasksMax= of the unit)",
            self.0
        )
    }
}

/// Makes sure that so many threads can be made now, by making them: for a library that ends the process where it can't make its
/// own.
///
/// # Errors
/// [`NoThread`].
pub fn can_make(count: usize) -> Result<(), NoThread> {
    let before = tasks();
    let made = thread::scope(|scope| {
        let mut made = Vec::new();
        for _ in 0..count {
            // Each waits until it is told that the last one was made, or could not be.
            let (release, wait) = channel::<()>();
            let thread = Builder::new().stack_size(SMALL_STACK).spawn_scoped(scope, move || {
                // Either it is told, or nobody is left to tell it.
                let _ = wait.recv();
            });
            made.push(thread.map(|_| release)?);
        }
        Ok(())
    });
    made.map_err(NoThread)?;
    // A thread that was joined counts until the system has taken note of its end.
    let until = Instant::now() + LONGEST_END;
    while tasks() > before && Instant::now() < until {
        thread::yield_now();
    }
    Ok(())
}

/// Threads of this process.
fn tasks() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// What the control group allows, in its own words.
fn pids_max() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let at = match controllers {
            "" => format!("/sys/fs/cgroup{path}/pids.max"),
            _ if controllers.split(',').any(|name| name == "pids") => format!("/sys/fs/cgroup/pids{path}/pids.max"),
            _ => return None,
        };
        let limit = fs::read_to_string(at).ok()?;
        Some(limit.trim().to_owned()).filter(|limit| limit != "max")
    })
}
