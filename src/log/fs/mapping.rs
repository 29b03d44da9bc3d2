//! A file mapped for reading, and what happens when the disk under it can't be read.
//!
//! Knows memory maps, holes and SIGBUS. This file holds the log's only `unsafe` code.
//!
//! The promise that a map needs, that nobody changes the file meanwhile, is kept by the lock on the data
//! directory, and by replay running before the first write. A medium that can't be read shows itself as
//! SIGBUS in whichever thread touches the page; there is nothing to go on with then, so the handler names the
//! file and ends the process.

use super::Contents;
use memmap2::{Advice, Mmap};
use rustix::fs::{SeekFrom, seek};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// Maps that can be named at the same time; more are mapped just the same, but not named.
const NAMED_MAPS: usize = 64;
/// Exit status after a SIGBUS: `EX_IOERR` of sysexits.h.
const EXIT_IO_ERROR: i32 = 74;

/// A mapped file.
pub struct Mapping {
    map: Option<Mmap>,
    file_len: u64,
    slot: Option<&'static Slot>,
}

impl Mapping {
    /// Maps a file up to its last data. `path` is what to call it where it can't be read.
    pub fn of(file: &File, path: &Path) -> io::Result<Mapping> {
        let file_len = file.metadata()?.len();
        let data_end = end_of_data(file, file_len)?;
        if data_end == 0 {
            return Ok(Mapping { map: None, file_len, slot: None });
        }
        let length = usize::try_from(data_end).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: the file is not changed while it is mapped: its directory is locked by this process, which
        // writes to it only after every mapping was dropped. Who has no lock reads by `Disk::unlocked`, which copies.
        let map = unsafe { memmap2::MmapOptions::new().len(length).map(file)? };
        // Advice only: without it replay is slower, not wrong.
        let _ = map.advise(Advice::Sequential);
        let slot = Slot::claim(&map, path);
        Ok(Mapping { map: Some(map), file_len, slot })
    }
}

impl Contents for Mapping {
    fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    fn file_len(&self) -> u64 {
        self.file_len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.release();
        }
    }
}

/// Where the last data of the file ends: what was only sized ahead behind it need not be read to be known as zeros.
fn end_of_data(file: &File, file_len: u64) -> io::Result<u64> {
    let mut end = 0;
    while end < file_len {
        let data = match seek(file, SeekFrom::Data(end)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(end),
            // A file system without holes: all of it is data.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => return Ok(file_len),
            Err(errno) => return Err(errno.into()),
        };
        end = seek(file, SeekFrom::Hole(data))?;
    }
    Ok(end.min(file_len))
}

/// One mapped range and the name to say when it can't be read. Plain atomics: a signal handler reads them.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    name: AtomicPtr<u8>,
    name_length: AtomicUsize,
}

static SLOTS: [Slot; NAMED_MAPS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        name: AtomicPtr::new(std::ptr::null_mut()),
        name_length: AtomicUsize::new(0),
    }
}; NAMED_MAPS];
static CLAIMING: Mutex<()> = Mutex::new(());
static HANDLER: Once = Once::new();

impl Slot {
    fn claim(map: &Mmap, path: &Path) -> Option<&'static Slot> {
        HANDLER.call_once(install_handler);
        let _claiming = CLAIMING.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = SLOTS.iter().find(|slot| slot.end.load(Ordering::Relaxed) == 0)?;
        // The name is leaked, a few dozen bytes a segment replayed: a handler may be reading the last one.
        let name: &'static [u8] = Vec::leak(path.as_os_str().as_bytes().to_vec());
        slot.name.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
        slot.name_length.store(name.len(), Ordering::Relaxed);
        slot.start.store(map.as_ptr() as usize, Ordering::Relaxed);
        slot.end.store(map.as_ptr() as usize + map.len(), Ordering::Release);
        Some(slot)
    }

    fn release(&self) {
        let _claiming = CLAIMING.lock().unwrap_or_else(PoisonError::into_inner);
        self.end.store(0, Ordering::Release);
    }

    fn holds(&self, address: usize) -> bool {
        address < self.end.load(Ordering::Acquire) && address >= self.start.load(Ordering::Relaxed)
    }
}

fn install_handler() {
    // SAFETY: the handler calls only what POSIX lists as safe in a signal handler (write, _exit) and reads atomics.
    let installed = unsafe { signal_hook_registry::register_sigaction(signal_hook::consts::SIGBUS, on_bus_error) };
    if let Err(error) = installed {
        tracing::warn!("no SIGBUS handler: a disk error during replay would not name its file: {error}");
    }
}

fn on_bus_error(info: &libc::siginfo_t) {
    // SAFETY: the kernel fills in the address for SIGBUS.
    let address = unsafe { info.si_addr() } as usize;
    say(b"kvd: the disk can't be read under ");
    match SLOTS.iter().find(|slot| slot.holds(address)) {
        Some(slot) => {
            let (name, length) = (slot.name.load(Ordering::Relaxed), slot.name_length.load(Ordering::Relaxed));
            // SAFETY: `claim` stored a leaked slice in these two before it made the slot findable.
            say(unsafe { std::slice::from_raw_parts(name, length) });
        }
        None => say(b"a memory map"),
    }
    say(b" (SIGBUS)\n");
    signal_hook::low_level::exit(EXIT_IO_ERROR);
}

fn say(text: &[u8]) {
    // There is nobody to tell if standard error is gone.
    let _ = rustix::io::write(rustix::stdio::stderr(), text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn open(path: &Path) -> io::Result<Mapping> {
        Mapping::of(&File::open(path)?, path)
    }

    #[test]
    fn what_is_only_sized_ahead_is_not_read() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("sized");
        let file = File::create_new(&path).expect("a file");
        file.set_len(64 << 20).expect("room");
        file.write_at(b"data", 8192).expect("written");
        let mapping = open(&path).expect("mapped");
        assert_eq!(mapping.file_len(), 64 << 20);
        assert!(mapping.bytes().len() < 1 << 20, "holes are left out: {}", mapping.bytes().len());
        assert_eq!(&mapping.bytes()[8192..8196], b"data");
    }

    /// Run again as a process of its own, this test is the one that dies.
    #[test]
    fn a_page_that_can_not_be_read_ends_the_process_and_names_the_file() {
        const VICTIM: &str = "KVD_TEST_UNREADABLE_FILE";
        if let Some(path) = std::env::var_os(VICTIM) {
            let path = Path::new(&path);
            let mapping = open(path).expect("mapped");
            // Pages beyond the end of a file can't be read, just as pages on a bad disk can't.
            File::options().write(true).open(path).expect("opened").set_len(0).expect("cut");
            println!("survived: {}", mapping.bytes()[4096]);
            return;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("segment");
        std::fs::write(&path, [1; 8192]).expect("written");
        let this_test = "log::fs::mapping::tests::a_page_that_can_not_be_read_ends_the_process_and_names_the_file";
        let ended = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", this_test, "--nocapture"])
            .env(VICTIM, &path)
            .output()
            .expect("run");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(EXIT_IO_ERROR), "{said}");
        assert!(said.contains(&*path.to_string_lossy()), "{said}");
    }

    #[test]
    fn an_empty_file_is_no_map() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("empty");
        File::create_new(&path).expect("a file");
        assert_eq!(open(&path).expect("opened").bytes(), b"");
    }

    #[test]
    fn a_map_can_be_named_from_its_first_byte_to_its_last_and_no_longer_than_it_lives() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("segment");
        std::fs::write(&path, [1; 8192]).expect("written");
        // More of them, one after the other, than can be named at a time.
        for _ in 0..2 * NAMED_MAPS {
            let mapping = open(&path).expect("mapped");
            let (slot, start) = (mapping.slot.expect("a free slot"), mapping.bytes().as_ptr() as usize);
            assert!(slot.holds(start) && slot.holds(start + 8191));
            assert!(!slot.holds(start - 1) && !slot.holds(start + 8192));
        }
    }
}
