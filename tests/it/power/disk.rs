//! The disk: one directory of files, in memory, with faults on demand and a power supply that can be cut.
//!
//! A power failure takes the machine down with the disk: the process that [`Disk::powers`] names is killed before the
//! disk refuses its next request, so that it never learns of the failure, as no process does.

use super::contents::Contents;
use super::entries::Entries;
use super::fate::{Fate, Sync, Unsynced};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

/// A disk. Clones share it.
#[derive(Clone, Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Files stay in their place for as long as the power is on, also without a name: they may be open.
    files: Vec<Contents>,
    entries: Entries,
    /// Bytes that all files with a name may hold together.
    capacity: usize,
    /// Syncs that succeed before one fails.
    syncs_left: Option<usize>,
    power: Power,
    /// The process that runs on the same power.
    process: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug)]
enum Power {
    On,
    /// It fails at the change after this many.
    FailsAfter(usize),
    Off,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk::with(Vec::new(), Entries::default())
    }
}

impl Disk {
    fn with(files: Vec<Contents>, entries: Entries) -> Disk {
        let state = State { files, entries, capacity: usize::MAX, syncs_left: None, power: Power::On, process: None };
        Disk { state: Arc::new(Mutex::new(state)) }
    }

    /// Names the process that runs on the same power: a child that was not waited for yet.
    pub fn powers(&self, process: Pid) {
        self.state().process = Some(pidfd_open(process, PidfdFlags::empty()).expect("a child not yet waited for"));
    }

    /// Cuts the power now, unless it is off.
    pub fn cut_power(&self) {
        self.state().cut_power();
    }

    /// Cuts the power in the middle of a change to come, after so many others.
    pub fn cut_power_after(&self, changes: usize) {
        self.state().power = Power::FailsAfter(changes);
    }

    /// Lets one sync fail, after so many that succeed.
    pub fn fail_sync_after(&self, syncs: usize) {
        self.state().syncs_left = Some(syncs);
    }

    /// Limits the bytes that all files may hold together.
    pub fn set_capacity(&self, bytes: usize) {
        self.state().capacity = bytes;
    }

    /// Bytes that all files hold together.
    pub fn held(&self) -> usize {
        self.state().held()
    }

    /// What a power failure may take: sectors and sizes of files, and changes of names.
    pub fn unsynced(&self) -> (usize, usize) {
        let state = self.state();
        (state.files.iter().map(Contents::unsynced).sum(), state.entries.unsynced())
    }

    /// Cuts the power, and returns the disk as it is found when the power is back, faults and limits gone.
    #[must_use]
    pub fn power_off(&self, unsynced: Unsynced) -> Disk {
        let mut state = self.state();
        state.cut_power();
        let mut fate = Fate::new(unsynced);
        let files = state.files.iter().map(|file| file.after_power_failure(&mut fate)).collect();
        Disk::with(files, state.entries.after_power_failure(&mut fate))
    }

    /// The file of this name.
    pub fn find(&self, name: &str) -> Result<usize, Errno> {
        self.powered()?.find(name)
    }

    /// Every name and its file.
    pub fn names(&self) -> Result<Vec<(String, usize)>, Errno> {
        let state = self.powered()?;
        Ok(state.entries.live().iter().map(|(name, file)| (name.clone(), *file)).collect())
    }

    /// Length of a file, and whether it has a name.
    pub fn look(&self, file: usize) -> Result<(usize, bool), Errno> {
        let state = self.powered()?;
        let length = state.files.get(file).ok_or(Errno::NOENT)?.live().len();
        Ok((length, state.is_named(file)))
    }

    /// At most `length` bytes from `offset` on, fewer at the end of the file.
    pub fn read(&self, file: usize, offset: usize, length: usize) -> Result<Vec<u8>, Errno> {
        let state = self.powered()?;
        let bytes = state.files[file].live().get(offset..).unwrap_or_default();
        Ok(bytes[..length.min(bytes.len())].to_vec())
    }

    pub fn create(&self, name: &str) -> Result<usize, Errno> {
        self.change(|state| {
            if state.find(name).is_ok() {
                return Err(Errno::EXIST);
            }
            if state.room() == 0 {
                return Err(Errno::NOSPC);
            }
            let file = state.files.len();
            state.files.push(Contents::default());
            state.entries.add(name, file);
            Ok(file)
        })
    }

    pub fn remove(&self, name: &str) -> Result<(), Errno> {
        self.change(|state| {
            state.find(name)?;
            state.entries.remove(name);
            Ok(())
        })
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        self.change(|state| {
            let file = state.find(from)?;
            state.entries.rename(from, to, file);
            Ok(())
        })
    }

    /// Writes as much as there is room for, and returns how much that was.
    pub fn write(&self, file: usize, offset: usize, bytes: &[u8]) -> Result<usize, Errno> {
        self.change(|state| {
            let within = state.files[file].live().len().saturating_sub(offset);
            let fits = bytes.len().min(within.saturating_add(state.room()));
            if fits == 0 && !bytes.is_empty() {
                return Err(Errno::NOSPC);
            }
            state.files[file].write(offset, &bytes[..fits]);
            Ok(fits)
        })
    }

    /// fallocate(2): the file is at least this long, and there is room for all of it.
    pub fn allocate(&self, file: usize, length: usize) -> Result<(), Errno> {
        self.change(|state| {
            let has = state.files[file].live().len();
            if length > has { state.resize(file, length) } else { Ok(()) }
        })
    }

    /// ftruncate(2). A hole takes its room as bytes do.
    pub fn resize(&self, file: usize, length: usize) -> Result<(), Errno> {
        self.change(|state| state.resize(file, length))
    }

    pub fn sync(&self, file: usize) -> Result<(), Errno> {
        self.sync_with(|state, outcome| state.files[file].sync(outcome))
    }

    /// Makes names durable, which no sync of a file does.
    pub fn sync_names(&self) -> Result<(), Errno> {
        self.sync_with(|state, outcome| state.entries.sync(outcome))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics in here")
    }

    fn powered(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = self.state();
        if matches!(state.power, Power::Off) { Err(Errno::IO) } else { Ok(state) }
    }

    /// Carries out a change. If the power fails in the middle of it, it is as unsynced as any before it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.powered()?;
        let is_last = state.is_last_change();
        let outcome = change(&mut state);
        if is_last {
            state.cut_power();
            return Err(Errno::IO);
        }
        outcome
    }

    /// Carries out a sync, or fails it. If the power fails in the middle of it, it has made nothing durable for sure.
    fn sync_with(&self, sync: impl FnOnce(&mut State, Sync)) -> Result<(), Errno> {
        let mut state = self.powered()?;
        if state.is_last_change() {
            state.cut_power();
            return Err(Errno::IO);
        }
        let outcome = state.next_sync();
        sync(&mut state, outcome);
        if outcome == Sync::Fails { Err(Errno::IO) } else { Ok(()) }
    }
}

impl State {
    fn cut_power(&mut self) {
        self.power = Power::Off;
        if let Some(process) = self.process.take() {
            // It may have ended by itself.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    fn find(&self, name: &str) -> Result<usize, Errno> {
        self.entries.live().get(name).copied().ok_or(Errno::NOENT)
    }

    fn is_named(&self, file: usize) -> bool {
        self.entries.live().values().any(|named| *named == file)
    }

    fn held(&self) -> usize {
        self.entries.live().values().map(|file| self.files[*file].live().len()).sum()
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.held())
    }

    fn resize(&mut self, file: usize, length: usize) -> Result<(), Errno> {
        if length.saturating_sub(self.files[file].live().len()) > self.room() {
            return Err(Errno::NOSPC);
        }
        self.files[file].resize(length);
        Ok(())
    }

    /// Counts a change, and tells whether the power fails in the middle of it.
    fn is_last_change(&mut self) -> bool {
        match &mut self.power {
            Power::FailsAfter(0) => true,
            Power::FailsAfter(changes) => {
                *changes -= 1;
                false
            }
            Power::On | Power::Off => false,
        }
    }

    /// Counts a sync, and tells what becomes of it.
    fn next_sync(&mut self) -> Sync {
        match self.syncs_left {
            None => Sync::Succeeds,
            Some(0) => {
                self.syncs_left = None;
                Sync::Fails
            }
            Some(left) => {
                self.syncs_left = Some(left - 1);
                Sync::Succeeds
            }
        }
    }
}
