//! A disk in memory that keeps live and durable bytes apart, and fails on demand. For tests.
//!
//! Knows what a real disk may do to whoever does not sync: after a [`FakeDisk::crash`] any subset of what was
//! not synced may be there, sector by sector and directory entry by directory entry. After a failed sync
//! the pages count as clean, as on Linux: they read back, and never reach the disk. A name only waits for the next sync of
//! the directory. Knows nothing of logs.

use super::{Contents, Copied, File, Fs};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The unit in which a write tears, in bytes.
const SECTOR: usize = 512;

/// What of the unsynced a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    LoseAll,
    /// All of it: a process kill.
    KeepAll,
    /// Any subset of sectors, sizes and directory entries, chosen by this seed.
    Random(u64),
}

/// What goes wrong, by the number of the changing operation (from 0) since the plan was set.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    /// From this operation on, nothing works any more: the power is gone.
    pub power_off_at: Option<u64>,
    /// This operation fails with this error. A sync that fails forgets what it was to make durable.
    pub fail: Option<(u64, io::ErrorKind)>,
    /// This operation, if it is a write, writes only half of what it is given.
    pub short: Option<u64>,
    /// Bytes that all files together may hold.
    pub capacity: Option<u64>,
    /// Reading from the file of this name fails.
    pub unreadable: Option<String>,
    /// Nothing can be opened or made: this error of the operating system, by its number, is all that comes of it.
    pub unopenable: Option<i32>,
}

/// The disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    operations: u64,
    plan: FaultPlan,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, usize),
    Remove(String),
    Rename { from: String, to: String, inode: usize },
}

impl FakeDisk {
    /// An empty disk on which everything works.
    pub fn new() -> Self {
        FakeDisk::default()
    }

    /// Sets what goes wrong from here on, and counts operations from 0 again.
    pub fn plan(&self, plan: FaultPlan) {
        let mut state = self.state();
        state.plan = plan;
        state.operations = 0;
    }

    /// Changing operations since the last [`FakeDisk::plan`].
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The disk as it is found after the power went.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> FakeDisk {
        let state = self.state();
        let mut dice = Dice(match crash {
            Crash::Random(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            Crash::LoseAll | Crash::KeepAll => 1,
        });
        let mut keeps = |what: Crash| match what {
            Crash::LoseAll => false,
            Crash::KeepAll => true,
            Crash::Random(_) => dice.flip(),
        };
        let inodes: Vec<Inode> = state
            .inodes
            .iter()
            .map(|inode| {
                let found =
                    if crash == Crash::KeepAll { inode.live.clone() } else { inode.after_crash(|| keeps(crash)) };
                Inode { live: found.clone(), durable: found, unsynced: Vec::new() }
            })
            .collect();
        let mut names = state.durable.clone();
        for change in &state.unsynced_names {
            if keeps(crash) {
                apply_name(&mut names, change);
            }
        }
        let state = State { inodes, live: names.clone(), durable: names, ..State::default() };
        FakeDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// What a file holds at this moment, if it is there.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.live.get(name).and_then(|&inode| state.inodes.get(inode)).map(|inode| inode.live.clone())
    }

    /// Puts a file there, durable at once.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let number = state.inodes.len();
        state.inodes.push(Inode { live: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() });
        state.live.insert(name.to_owned(), number);
        state.durable.insert(name.to_owned(), number);
    }

    /// Removes a file, durably at once.
    pub fn erase(&self, name: &str) {
        let mut state = self.state();
        state.live.remove(name);
        state.durable.remove(name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inode {
    fn after_crash(&self, mut keep: impl FnMut() -> bool) -> Vec<u8> {
        let mut found = self.durable.clone();
        for change in &self.unsynced {
            match change {
                Change::Resize(size) if keep() => found.resize(*size, 0),
                Change::Resize(_) => {}
                Change::Write { offset, bytes } => {
                    let mut start = 0;
                    while start < bytes.len() {
                        // Sectors lie on the file's own grid, wherever the write began.
                        let end = bytes.len().min(start + SECTOR - (offset + start) % SECTOR);
                        if keep() {
                            write_into(&mut found, offset + start, &bytes[start..end]);
                        }
                        start = end;
                    }
                }
            }
        }
        found
    }

    fn change(&mut self, change: Change) {
        apply_change(&mut self.live, &change);
        self.unsynced.push(change);
    }
}

fn apply_change(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes: written } => write_into(bytes, *offset, written),
        Change::Resize(size) => bytes.resize(*size, 0),
    }
}

fn write_into(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

fn apply_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Add(name, inode) => names.insert(name.clone(), *inode),
        NameChange::Remove(name) => names.remove(name),
        NameChange::Rename { from, to, inode } => {
            // The old name may not have been durable either.
            names.remove(from);
            names.insert(to.clone(), *inode)
        }
    };
}

impl State {
    /// Counts a changing operation and fails it where the plan says so.
    fn operation(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        if self.plan.power_off_at.is_some_and(|at| number >= at) {
            return Err(io::Error::other("the power is off"));
        }
        match self.plan.fail {
            Some((at, kind)) if at == number => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// Whether the power is gone. A sync that it cuts short has made any part durable, and forgets nothing.
    fn is_off(&self) -> bool {
        self.plan.power_off_at.is_some_and(|at| self.operations > at)
    }

    fn may_open(&self) -> io::Result<()> {
        self.plan.unopenable.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.live, &change);
        self.unsynced_names.push(change);
    }

    /// Bytes that may still be added.
    fn room(&self) -> usize {
        let held: usize = self.live.values().map(|&inode| self.inodes[inode].live.len()).sum();
        self.plan.capacity.map_or(usize::MAX, |capacity| (capacity as usize).saturating_sub(held))
    }
}

impl Fs for FakeDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().live.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.operation()?;
        state.may_open()?;
        if state.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change_name(NameChange::Add(name.to_owned(), inode));
        Ok(Box::new(FakeFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let state = self.state();
        state.may_open()?;
        let inode = *state.live.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FakeFile { disk: self.clone(), inode }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        if !state.live.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let inode = *state.live.get(from).ok_or(io::ErrorKind::NotFound)?;
        if state.live.get(to) == Some(&inode) {
            // Two names of one file: POSIX has it that nothing happens.
            return Ok(());
        }
        state.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn link(&self, name: &str, second: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let inode = *state.live.get(name).ok_or(io::ErrorKind::NotFound)?;
        if state.live.contains_key(second) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change_name(NameChange::Add(second.to_owned(), inode));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        let done = state.operation();
        if state.is_off() {
            return done;
        }
        // Names are in the file system's journal: where that fails they stay to be synced, or nothing can be changed any more.
        done?;
        for change in std::mem::take(&mut state.unsynced_names) {
            apply_name(&mut state.durable, &change);
        }
        Ok(())
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        Ok(self.read(name).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn beginning(&self, name: &str, bytes: usize) -> io::Result<Vec<u8>> {
        let mut beginning = self.read(name).ok_or(io::ErrorKind::NotFound)?;
        beginning.truncate(bytes);
        Ok(beginning)
    }

    fn contents(&self, name: &str) -> io::Result<Box<dyn Contents>> {
        let bytes = self.read(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Copied(bytes)))
    }
}

#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    inode: usize,
}

impl File for FakeFile {
    fn is_named(&self) -> io::Result<bool> {
        Ok(self.disk.state().live.values().any(|inode| *inode == self.inode))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].live.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        if state.plan.unreadable.as_ref().and_then(|name| state.live.get(name)) == Some(&self.inode) {
            return Err(io::Error::other("the medium can't be read"));
        }
        let held = state.inodes[self.inode].live.get(offset as usize..).unwrap_or_default();
        let count = held.len().min(bytes.len());
        bytes[..count].copy_from_slice(&held[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.operation()?;
        let is_short = state.plan.short.is_some_and(|operation| operation + 1 == state.operations);
        let bytes = if is_short { &bytes[..bytes.len() / 2] } else { bytes };
        let offset = offset as usize;
        let within = state.inodes[self.inode].live.len().saturating_sub(offset);
        let fits = bytes.len().min(within.saturating_add(state.room()));
        if fits == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.inodes[self.inode].change(Change::Write { offset, bytes: bytes[..fits].to_vec() });
        Ok(fits)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        let (size, have) = (size as usize, state.inodes[self.inode].live.len());
        if size > have {
            if size - have > state.room() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.inodes[self.inode].change(Change::Resize(size));
        }
        Ok(())
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        state.inodes[self.inode].change(Change::Resize(size as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let done = state.operation();
        if state.is_off() {
            return done;
        }
        let inode = &mut state.inodes[self.inode];
        let changes = std::mem::take(&mut inode.unsynced);
        done?;
        for change in &changes {
            apply_change(&mut inode.durable, change);
        }
        Ok(())
    }
}

/// Xorshift (Marsaglia, 2003): enough to choose what a crash keeps, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn flip(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 & 0x100 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_synced_survives_the_worst_crash() {
        let disk = FakeDisk::new();
        let file = disk.create("a").expect("made");
        file.write_at(b"synced", 0).expect("written");
        file.sync().expect("synced");
        file.write_at(b"UNSYNC", 0).expect("written");
        assert_eq!(disk.crash(Crash::LoseAll).read("a"), None, "its name was not synced");
        disk.sync_dir().expect("synced");
        assert_eq!(disk.crash(Crash::LoseAll).read("a"), Some(b"synced".to_vec()));
        assert_eq!(disk.crash(Crash::KeepAll).read("a"), Some(b"UNSYNC".to_vec()));
    }

    #[test]
    fn a_failed_sync_forgets_for_good() {
        let disk = FakeDisk::new();
        let file = disk.create("a").expect("made");
        disk.sync_dir().expect("synced");
        file.write_at(b"x", 0).expect("written");
        disk.plan(FaultPlan { fail: Some((0, io::ErrorKind::Other)), ..FaultPlan::default() });
        assert!(file.sync().is_err());
        file.sync().expect("the second one reports success");
        assert_eq!(disk.read("a"), Some(b"x".to_vec()), "the page cache shows it");
        assert_eq!(disk.crash(Crash::LoseAll).read("a"), Some(Vec::new()), "the disk never had it");
    }

    #[test]
    fn a_random_crash_tears_on_sectors() {
        let disk = FakeDisk::new();
        let file = disk.create("a").expect("made");
        file.set_len(4096).expect("sized");
        file.sync().expect("synced");
        disk.sync_dir().expect("synced");
        file.write_at(&[1; 4096], 0).expect("written");
        let torn = disk.crash(Crash::Random(3)).read("a").expect("there");
        let sectors: Vec<u8> = torn.chunks(SECTOR).map(|sector| sector[0]).collect();
        assert!(sectors.contains(&0) && sectors.contains(&1), "{sectors:?}");
        assert!(torn.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
    }

    /// What is found after each of many crashes: every outcome, and how often it came.
    fn outcomes<T: Ord>(disk: &FakeDisk, found: impl Fn(&FakeDisk) -> T) -> BTreeMap<T, usize> {
        let mut outcomes = BTreeMap::new();
        for seed in 0..1000 {
            *outcomes.entry(found(&disk.crash(Crash::Random(seed)))).or_default() += 1;
        }
        outcomes
    }

    #[test]
    fn every_sector_of_a_write_is_kept_or_lost_by_itself() {
        let disk = FakeDisk::new();
        let file = disk.create("a").expect("made");
        file.set_len(3 * SECTOR as u64).expect("sized");
        file.sync().expect("synced");
        disk.sync_dir().expect("synced");
        // Two sectors and a half, from the middle of the first one on.
        file.write_at(&[1; 5 * SECTOR / 2], SECTOR as u64 / 2).expect("written");
        let outcomes = outcomes(&disk, |disk| {
            let bytes = disk.read("a").expect("there");
            assert!(bytes[..SECTOR / 2].iter().all(|byte| *byte == 0));
            let pieces = [SECTOR / 2..SECTOR, SECTOR..2 * SECTOR, 2 * SECTOR..3 * SECTOR];
            pieces.map(|piece| {
                assert!(bytes[piece.clone()].iter().all(|byte| *byte == bytes[piece.start]), "{piece:?} is torn");
                bytes[piece.start]
            })
        });
        assert_eq!(outcomes.len(), 8, "{outcomes:?}");
        assert!(outcomes.values().all(|count| (60..200).contains(count)), "{outcomes:?}");
    }

    #[test]
    fn a_size_and_a_name_are_kept_or_lost_by_themselves() {
        let disk = FakeDisk::new();
        let file = disk.create("a").expect("made");
        file.sync().expect("synced");
        disk.sync_dir().expect("synced");
        file.set_len(100).expect("sized");
        disk.rename("a", "b").expect("renamed");
        let outcomes = outcomes(&disk, |disk| {
            assert_eq!(disk.list().expect("listed").len(), 1);
            (disk.read("a").map(|bytes| bytes.len()), disk.read("b").map(|bytes| bytes.len()))
        });
        let expected = [(None, Some(0)), (None, Some(100)), (Some(0), None), (Some(100), None)];
        assert!(outcomes.keys().eq(&expected) && outcomes.values().all(|count| *count > 150), "{outcomes:?}");
    }

    #[test]
    fn a_full_disk_takes_what_fits_to_the_byte() {
        let disk = FakeDisk::new();
        let (file, other) = (disk.create("a").expect("made"), disk.create("b").expect("made"));
        other.write_at(&[1; 100], 0).expect("written");
        disk.plan(FaultPlan { capacity: Some(300), ..FaultPlan::default() });
        let full = |result: io::Result<()>| result.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull);
        assert!(full(file.allocate(201)) && file.len().expect("known") == 0);
        file.allocate(150).expect("room");
        file.allocate(150).expect("it has them already");
        assert_eq!(file.write_at(&[2; 100], 120).expect("some of it"), 80);
        assert!(full(file.write_at(&[2; 1], 200).map(drop)));
        assert_eq!(file.write_at(&[], 200).expect("nothing needs no room"), 0);
        assert_eq!(file.write_at(&[3; 200], 0).expect("in place"), 200);
        disk.remove("b").expect("removed");
        assert_eq!(file.write_at(&[2; 1000], 200).expect("some of it"), 100);
    }

    #[test]
    fn without_power_nothing_happens() {
        let disk = FakeDisk::new();
        let file = disk.create("a").expect("made");
        disk.sync_dir().expect("synced");
        file.write_at(b"x", 0).expect("written");
        disk.plan(FaultPlan { power_off_at: Some(0), ..FaultPlan::default() });
        assert!(file.sync().is_err() && file.write_at(b"y", 0).is_err() && disk.sync_dir().is_err());
        assert_eq!(disk.read("a"), Some(b"x".to_vec()));
        assert_eq!(disk.crash(Crash::LoseAll).read("a"), Some(Vec::new()));
        let (lost, kept) = (Some(Vec::new()), Some(b"x".to_vec()));
        assert!(
            outcomes(&disk, |disk| disk.read("a")).into_keys().eq([lost, kept]),
            "a sync without power forgets nothing"
        );
    }
}
