//! A real file system of a few megabytes, to be filled up: mounted for one test, unmounted whatever becomes of it.
//!
//! tmpfs needs the right to mount; ext4 and xfs need their mkfs and a loop device too. Where something is missing there is
//! no disk, and standard error says which test went without.

use crate::daemon::Store;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug)]
pub enum FileSystem {
    Tmpfs,
    Ext4,
    Xfs,
}

impl FileSystem {
    /// What makes it on an image, and the least size that it takes; nothing where there is no image.
    fn maker(self) -> Option<(&'static str, &'static str, u64)> {
        match self {
            FileSystem::Tmpfs => None,
            FileSystem::Ext4 => Some(("mkfs.ext4", "-qF", 32 * MIB)),
            FileSystem::Xfs => Some(("mkfs.xfs", "-qf", 300 * MIB)),
        }
    }
}

/// A mounted file system, unmounted in the end.
pub struct SmallDisk {
    mount_point: PathBuf,
}

impl SmallDisk {
    /// Mounts one that has room for so many bytes. `None`, and a line on standard error, where that is not possible.
    pub fn mount(store: &Store, file_system: FileSystem, room: u64) -> Option<SmallDisk> {
        let disk = try_mount(&store.beside("small-disk"), &store.beside("image"), file_system, room);
        let disk = disk.map_err(|why| eprintln!("SKIPPED: a small {file_system:?} can't be had here: {why}")).ok()?;
        let surplus = disk.free().saturating_sub(room);
        if surplus > 0 {
            disk.take("surplus", surplus);
        }
        Some(disk)
    }

    /// Mounts a tmpfs that has room for so many bytes and so many files.
    pub fn mount_with_inodes(store: &Store, room: u64, inodes: u64) -> Option<SmallDisk> {
        let mount_point = store.beside("small-disk");
        fs::create_dir(&mount_point).expect("a mount point");
        let options = format!("size={room},nr_inodes={inodes}");
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "kvd-test"]).arg(&mount_point))
            .map_err(|why| eprintln!("SKIPPED: a disk with few inodes can't be had here: {why}"))
            .ok()?;
        Some(SmallDisk { mount_point })
    }

    pub fn data_dir(&self) -> PathBuf {
        self.beside("data")
    }

    /// A place on it beside the data.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.mount_point.join(name)
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let figures = statvfs(&self.mount_point).expect("a mounted file system");
        figures.f_bfree * figures.f_frsize
    }

    /// Takes so many bytes for a file beside the data, or all that there are.
    pub fn take(&self, name: &str, bytes: u64) {
        // It may be too full for a name.
        let Ok(file) = File::create(self.mount_point.join(name)) else { return };
        let mut size = 0;
        for step in [MIB, 64 * KIB, 4 * KIB] {
            while size + step <= bytes {
                match fallocate(&file, FallocateFlags::empty(), size, step) {
                    Ok(()) => size += step,
                    Err(Errno::NOSPC) => break,
                    Err(errno) => panic!("can't take room: {errno}"),
                }
            }
        }
    }

    /// Takes whatever is left.
    pub fn take_the_rest(&self, name: &str) {
        self.take(name, u64::MAX);
    }

    /// Gives back what was taken under this name.
    pub fn give_back(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.mount_point.join(name)) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let umount = |flags: &[&str]| Command::new("umount").args(flags).arg(&self.mount_point).output();
        // Lazily where a daemon of a failed test is still about to go.
        if !umount(&[]).is_ok_and(|output| output.status.success()) {
            let _ = umount(&["-l"]);
        }
    }
}

fn try_mount(mount_point: &Path, image: &Path, file_system: FileSystem, room: u64) -> Result<SmallDisk, String> {
    fs::create_dir(mount_point).expect("a mount point");
    let mut mount = Command::new("mount");
    match file_system.maker() {
        None => mount.args(["-t", "tmpfs", "-o", &format!("size={room}"), "kvd-test"]),
        Some((maker, flags, least)) => {
            // Sparse: what is not written takes no room.
            File::create(image).and_then(|file| file.set_len(least.max(2 * room))).expect("an image");
            succeed(Command::new(maker).arg(flags).arg(image))?;
            mount.args(["-o", "loop"]).arg(image)
        }
    };
    succeed(mount.arg(mount_point))?;
    Ok(SmallDisk { mount_point: mount_point.to_owned() })
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
