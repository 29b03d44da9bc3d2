//! The socket of an `ipc://` endpoint: made where there is nothing, or the socket of a process that is gone; and at the end
//! its file is removed, if it is still this one.
//!
//! libzmq unlinks whatever is at the path, before it binds and when it closes, even `./@name` for the abstract `@name`. So
//! the socket is made here, and libzmq is given it listening. Knows no messages.

use super::refusal::may_pass;
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, open, statat, unlink};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long somebody else may hold the lock of the directory: a start that binds there holds it for a moment.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stop waits for it. Without it the file stays, and the next start takes it over.
const LOCK_TIMEOUT_AT_STOP: Duration = Duration::from_millis(200);
/// How often it is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// Why a place can't be listened on. Displays as the end of a sentence that names the place.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error(
        "{0} is there, and kvd replaces nothing but the socket of a process that is gone. Move it, or choose another path"
    )]
    Occupied(&'static str),
    #[error("another process listens there. Stop it, or choose another place")]
    InUse,
    #[error("{0}, which this start has bound before, takes that as well. Leave one of them out")]
    Overlap(String),
    #[error(
        "a socket is there, and it can't be found out whether a process listens on it: {0}. Remove it if none does"
    )]
    Unknown(Errno),
    #[error("another process holds a lock on its directory")]
    DirectoryLocked,
    #[error("its directory is not there")]
    NoDirectory,
    #[error("kvd may not make a file in its directory, or not enter it: {0}")]
    Forbidden(Errno),
    #[error("another process listens on that port. Stop it, or choose another port")]
    PortInUse,
    #[error("no interface of this machine has that address now")]
    NoAddress,
    #[error("only root, or a process with CAP_NET_BIND_SERVICE, may listen on a port below 1024")]
    PortForbidden,
    #[error("{0}")]
    System(#[from] io::Error),
}

impl ListenError {
    /// What the system said when a TCP port was bound.
    pub fn of_tcp(error: io::Error) -> ListenError {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::ADDRINUSE) => ListenError::PortInUse,
            Some(Errno::ADDRNOTAVAIL | Errno::NODEV) => ListenError::NoAddress,
            Some(Errno::ACCESS | Errno::PERM) => ListenError::PortForbidden,
            _ => ListenError::System(error),
        }
    }

    /// Whether it may be otherwise at a later start.
    pub fn may_pass(&self) -> bool {
        match self {
            ListenError::InUse | ListenError::DirectoryLocked | ListenError::PortInUse | ListenError::NoAddress => true,
            ListenError::Occupied(_)
            | ListenError::Overlap(_)
            | ListenError::Unknown(_)
            | ListenError::NoDirectory
            | ListenError::Forbidden(_)
            | ListenError::PortForbidden => false,
            ListenError::System(error) => may_pass(error),
        }
    }
}

impl From<Errno> for ListenError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => ListenError::Forbidden(errno),
            errno => ListenError::System(errno.into()),
        }
    }
}

/// The file of a socket that listens. Removes it when dropped, if it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    directory: Directory,
    /// Device and number.
    is: (u64, u64),
    /// Keeps the number from being given to another file.
    _socket: OwnedFd,
}

impl SocketFile {
    /// Whether it is what this path leads to.
    pub fn is_at(&self, path: &str) -> bool {
        find(Path::new(path)).is_ok_and(|found| found.is_some_and(|found| identity(&found) == self.is))
    }

    /// The path that it was made at.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A socket that listens on a path, or on an abstract name behind an `@`, which has no file. `locked` is a directory that
/// this process has locked by another descriptor.
pub(super) fn listen_on(
    path: &str,
    backlog: i32,
    locked: Option<&Path>,
) -> Result<(OwnedFd, Option<SocketFile>), ListenError> {
    let socket = new_socket()?;
    if let Some(name) = path.strip_prefix('@') {
        return match bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?) {
            Ok(()) => {
                listen(&socket, backlog)?;
                Ok((socket, None))
            }
            Err(Errno::ADDRINUSE) => Err(ListenError::InUse),
            Err(errno) => Err(errno.into()),
        };
    }
    let path = Path::new(path);
    let directory = Directory::of(path, locked)?;
    let lock = directory.lock(LOCK_TIMEOUT)?;
    let address = SocketAddrUnix::new(path)?;
    if let Some(stale) = stale(path, &address)? {
        // Nobody who heeds the lock can have put another one there meanwhile.
        if find(path)?.is_some_and(|found| identity(&found) == stale) {
            unlink(path)?;
        }
    }
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => return Err(ListenError::InUse),
        bound => bound?,
    }
    listen(&socket, backlog)?;
    let is = identity(&statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?);
    drop(lock);
    let file = SocketFile { path: path.to_owned(), directory, is, _socket: socket.try_clone()? };
    Ok((socket, Some(file)))
}

fn new_socket() -> Result<OwnedFd, Errno> {
    // libzmq accepts when it is told that somebody has come, who may be gone again by then.
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
}

/// What is at a path, not following a link.
fn find(path: &Path) -> Result<Option<Stat>, Errno> {
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn identity(file: &Stat) -> (u64, u64) {
    (file.st_dev, file.st_ino)
}

/// Which file is the socket of a process that is gone, if one is in the way.
fn stale(path: &Path, address: &SocketAddrUnix) -> Result<Option<(u64, u64)>, ListenError> {
    let Some(found) = find(path)? else { return Ok(None) };
    let what = match FileType::from_raw_mode(found.st_mode) {
        FileType::Socket => "",
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        _ => "a device",
    };
    if !what.is_empty() {
        return Err(ListenError::Occupied(what));
    }
    match connect(&new_socket()?, address) {
        Err(Errno::CONNREFUSED) => Ok(Some(identity(&found))),
        Err(Errno::NOENT) => Ok(None),
        // The last two: more want to connect than it lets wait; it is no stream.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(ListenError::InUse),
        Err(errno) => Err(ListenError::Unknown(errno)),
    }
}

/// The directory that a socket is in, whose lock keeps two starts from taking each other's socket for a stale one: one that
/// is bound and does not listen yet refuses connections just as one of the dead does.
#[derive(Debug)]
struct Directory {
    /// None where it can't be locked, or needs no lock.
    open: Option<OwnedFd>,
}

impl Directory {
    fn of(path: &Path, locked: Option<&Path>) -> Result<Directory, ListenError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let open = match open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(ListenError::NoDirectory),
            Err(errno @ Errno::ACCESS) => {
                warn_unlocked(errno);
                return Ok(Directory { open: None });
            }
            Err(errno) => return Err(errno.into()),
        };
        let is_ours = locked.and_then(|locked| statat(CWD, locked, AtFlags::empty()).ok());
        let is_ours = is_ours.is_some_and(|ours| fstat(&open).is_ok_and(|this| identity(&this) == identity(&ours)));
        Ok(Directory { open: (!is_ours).then_some(open) })
    }

    /// Takes the lock until what is returned is dropped.
    fn lock(&self, timeout: Duration) -> Result<Option<Lock<'_>>, ListenError> {
        let Some(directory) = &self.open else { return Ok(None) };
        let until = Instant::now() + timeout;
        loop {
            match flock(directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Lock(directory))),
                Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(LOCK_INTERVAL),
                Err(Errno::WOULDBLOCK) => return Err(ListenError::DirectoryLocked),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    warn_unlocked(errno);
                    return Ok(None);
                }
            }
        }
    }
}

fn warn_unlocked(errno: Errno) {
    tracing::warn!(
        "the directory of an ipc:// endpoint can't be locked, so two starts at the same moment may take each other's \
         socket: {errno}"
    );
}

struct Lock<'d>(&'d OwnedFd);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // It goes with the descriptor at the latest.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Ok(_lock) = self.directory.lock(LOCK_TIMEOUT_AT_STOP) else { return };
        match find(&self.path) {
            Ok(Some(found)) if identity(&found) == self.is => {
                if let Err(errno) = unlink(&self.path) {
                    tracing::warn!("can't remove the socket {}: {errno}", self.path.display());
                }
            }
            Ok(Some(_)) => tracing::warn!("what is at {} now is not kvd's socket, and stays", self.path.display()),
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, symlink};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Place {
            Place { directory: tempfile::tempdir().unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("socket")
        }

        fn listen(&self) -> Result<(OwnedFd, Option<SocketFile>), ListenError> {
            listen_on(self.path().to_str().unwrap(), 10, None)
        }
    }

    #[test]
    fn the_socket_of_a_process_that_is_gone_is_taken_over() {
        let place = Place::new();
        drop(UnixListener::bind(place.path()).unwrap());
        let (socket, file) = place.listen().unwrap();
        UnixStream::connect(place.path()).unwrap();
        drop(socket);
        drop(file);
        assert!(!place.path().exists());
    }

    #[test]
    fn whatever_is_no_socket_stays_and_is_named() {
        let place = Place::new();
        let path = place.path();
        let make: [(&str, &dyn Fn()); 5] = [
            ("a file", &|| fs::write(&path, "mine").unwrap()),
            ("a file", &|| fs::write(&path, "").unwrap()),
            ("a directory", &|| fs::create_dir(&path).unwrap()),
            ("a symbolic link", &|| symlink("nowhere", &path).unwrap()),
            ("a FIFO", &|| rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap()),
        ];
        for (what, make) in make {
            make();
            let before = identity(&find(&path).unwrap().unwrap());
            let refusal = place.listen().unwrap_err();
            assert!(refusal.to_string().starts_with(what) && !refusal.may_pass(), "{what}: {refusal}");
            assert_eq!(identity(&find(&path).unwrap().unwrap()), before, "{what}");
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    }

    #[test]
    fn a_link_to_a_stale_socket_stays_as_well() {
        let place = Place::new();
        let other = place.directory.path().join("other");
        drop(UnixListener::bind(&other).unwrap());
        symlink(&other, place.path()).unwrap();
        assert!(matches!(place.listen(), Err(ListenError::Occupied(_))));
        assert!(fs::symlink_metadata(&other).unwrap().file_type().is_socket());
    }

    #[test]
    fn whoever_lives_keeps_its_socket_also_where_its_queue_is_full() {
        let place = Place::new();
        // One connection may wait, and none is accepted.
        let living = listen_on(place.path().to_str().unwrap(), 0, None).unwrap();
        let mut waiting = Vec::new();
        while let socket = new_socket().unwrap()
            && connect(&socket, &SocketAddrUnix::new(place.path()).unwrap()).is_ok()
        {
            waiting.push(socket);
        }
        let refusal = place.listen().unwrap_err();
        assert!(matches!(refusal, ListenError::InUse) && refusal.may_pass());
        drop(living);
        let datagram = UnixDatagram::bind(place.path()).unwrap();
        assert!(matches!(place.listen(), Err(ListenError::InUse)), "of another kind");
        drop(datagram);
        place.listen().unwrap();
    }

    #[test]
    fn what_took_the_place_of_the_socket_stays() {
        let place = Place::new();
        let (_socket, file) = place.listen().unwrap();
        fs::remove_file(place.path()).unwrap();
        let _other = UnixListener::bind(place.path()).unwrap();
        drop(file);
        UnixStream::connect(place.path()).unwrap();
    }

    #[test]
    fn of_many_that_start_at_one_time_over_a_stale_socket_one_has_it() {
        for _ in 0..20 {
            let place = Place::new();
            drop(UnixListener::bind(place.path()).unwrap());
            let together = std::sync::Barrier::new(4);
            let has_it = || {
                together.wait();
                place.listen().inspect(|_| drop(UnixStream::connect(place.path()).unwrap()))
            };
            let results: Vec<_> = thread::scope(|scope| {
                let threads = [(); 4].map(|()| scope.spawn(has_it));
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        }
    }

    #[test]
    fn an_abstract_name_leaves_the_file_of_that_name_alone() {
        let name = format!("@kvd-test-{}", std::process::id());
        let (_socket, file) = listen_on(&name, 10, None).unwrap();
        assert!(file.is_none());
        assert!(matches!(listen_on(&name, 10, None), Err(ListenError::InUse)));
    }

    #[test]
    fn a_directory_that_this_process_has_locked_itself_is_no_obstacle() {
        let place = Place::new();
        let lock = fs::File::open(place.directory.path()).unwrap();
        lock.lock().unwrap();
        let path = place.path();
        let (_socket, file) = listen_on(path.to_str().unwrap(), 10, Some(place.directory.path())).unwrap();
        drop(file);
        assert!(!path.exists());
        let refusal = place.listen().unwrap_err();
        assert!(matches!(refusal, ListenError::DirectoryLocked) && refusal.may_pass());
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        assert!(matches!(listen_on("/nowhere/socket", 10, None), Err(ListenError::NoDirectory)));
    }
}
