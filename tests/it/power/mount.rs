//! A disk in the file tree, for as long as the mount lives.

use super::disk::Disk;
use super::file_system::FileSystem;
use fuser::{BackgroundSession, Config, MountOption};
use rustix::mount::UnmountFlags;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

pub struct Mount {
    session: Option<BackgroundSession>,
    directory: tempfile::TempDir,
}

impl Mount {
    /// Mounts a disk, where this machine and the rights of who runs the tests allow it: if not, that is said.
    pub fn of(disk: &Disk) -> Option<Mount> {
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            eprintln!("SKIPPED: /dev/fuse can't be used: {error}");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("kvd-power-").tempdir().expect("a temporary directory");
        let mut config = Config::default();
        config.mount_options.push(MountOption::FSName("kvd-test".to_owned()));
        match fuser::spawn_mount(FileSystem { disk: disk.clone() }, directory.path(), &config) {
            Ok(session) => Some(Mount { session: Some(session), directory }),
            // Not being root, it was tried by way of fusermount3, which may not be installed.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => {
                eprintln!("SKIPPED: a file system can't be mounted: {error}");
                None
            }
            Err(error) => panic!("no mount: {error}"),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let session = self.session.take().expect("mounted until now");
        if session.umount_and_join().is_err() {
            // A daemon of a failed test is still about to go: out of sight now, and gone with its last open file.
            let _ = rustix::mount::unmount(self.directory.path(), UnmountFlags::DETACH);
        }
    }
}
