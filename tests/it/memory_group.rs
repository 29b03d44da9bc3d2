//! A cgroup with a limit of memory, as a service manager gives one to a service: made for one test, removed whatever
//! becomes of it.
//!
//! Knows both versions of cgroups. Making one needs the right to, mostly root's; where it can't be had there is none, and
//! standard error says which test went without.

use crate::daemon::eventually;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the two versions call the same things.
struct Version {
    root: &'static str,
    limit: &'static str,
    /// What keeps memory from going to a swap instead, and what to write there.
    swap: &'static str,
    swap_limit: fn(u64) -> u64,
    /// Holds a line `oom_kill NUMBER`.
    events: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        root: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        // Memory and swap together.
        swap: "memory.memsw.limit_in_bytes",
        swap_limit: |bytes| bytes,
        events: "memory.oom_control",
    },
    Version {
        root: "/sys/fs/cgroup",
        limit: "memory.max",
        swap: "memory.swap.max",
        swap_limit: |_| 0,
        events: "memory.events",
    },
];

pub struct MemoryGroup {
    directory: PathBuf,
    version: &'static Version,
}

impl MemoryGroup {
    /// Makes one. `None`, and a line on standard error, where that is not possible.
    pub fn with_limit(bytes: u64) -> Option<MemoryGroup> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = VERSIONS.iter().find_map(|version| make(version, &own, bytes));
        if group.is_none() {
            eprintln!("SKIPPED: this test needs the right to make a cgroup that limits memory: run it as root");
        }
        group
    }

    /// What has to stand before a program, to run it in this group: a shell that joins it and becomes the program.
    pub fn wrapper(&self) -> Vec<OsString> {
        let join = format!("echo $$ > '{}' && exec \"$@\"", self.directory.join("cgroup.procs").display());
        ["sh", "-c", &join, "sh"].map(OsString::from).into()
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub fn kills(&self) -> u64 {
        let events = fs::read_to_string(self.directory.join(self.version.events)).expect("a file of the group's");
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("a count of kills");
        count.trim().parse().expect("a number")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // A process that has ended may be counted among its members for a moment more.
            eventually("the group can be removed", || fs::remove_dir(&self.directory).is_ok());
        } else if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("{} stays behind: {error}", self.directory.display());
        }
    }
}

/// Makes a group as deep in the tree as the tree allows, so that it counts for the groups that this process is in.
fn make(version: &'static Version, own: &str, bytes: u64) -> Option<MemoryGroup> {
    let paths = own.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let above = paths.flat_map(|path| Path::new(path.trim_start_matches('/')).ancestors());
    let mut above: Vec<_> = above.map(|path| Path::new(version.root).join(path)).collect();
    above.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    above.iter().find_map(|parent| make_below(version, parent, bytes).ok())
}

fn make_below(version: &'static Version, parent: &Path, bytes: u64) -> io::Result<MemoryGroup> {
    let directory = parent.join(format!("kvd-test-{}", std::process::id()));
    fs::create_dir(&directory)?;
    // Fails where this tree has no say in memory, as every file but those of the system does.
    let limited = fs::write(directory.join(version.limit), bytes.to_string()).and_then(|()| {
        let swap = directory.join(version.swap);
        if swap.exists() { fs::write(swap, (version.swap_limit)(bytes).to_string()) } else { Ok(()) }
    });
    if let Err(error) = limited {
        fs::remove_dir(&directory)?;
        return Err(error);
    }
    Ok(MemoryGroup { directory, version })
}
