//! The names in the directory: those that a lookup finds, and those that a power failure can't reach.

use super::fate::{Fate, Sync};
use super::synced::{Change, Synced};
use std::collections::BTreeMap;

/// Which file has which name. A file is known by its place among the files of the disk.
pub type Names = BTreeMap<String, usize>;

#[derive(Clone, Debug, Default)]
pub struct Entries(Synced<Names, Step>);

#[derive(Clone, Debug)]
enum Step {
    Add { name: String, file: usize },
    Remove { name: String },
    Rename { from: String, to: String, file: usize },
}

impl Change<Names> for Step {
    fn apply(&self, to: &mut Names) {
        match self {
            Step::Add { name, file } => {
                to.insert(name.clone(), *file);
            }
            Step::Remove { name } => {
                to.remove(name);
            }
            Step::Rename { from, to: name, file } => {
                // One step: whoever finds the new name does not find the old one, which may never have been durable.
                to.remove(from);
                to.insert(name.clone(), *file);
            }
        }
    }
}

impl Entries {
    /// What a lookup finds.
    pub fn live(&self) -> &Names {
        self.0.live()
    }

    /// Changes that a power failure may take.
    pub fn unsynced(&self) -> usize {
        self.0.unsynced().len()
    }

    pub fn add(&mut self, name: &str, file: usize) {
        self.0.change(Step::Add { name: name.to_owned(), file });
    }

    pub fn remove(&mut self, name: &str) {
        self.0.change(Step::Remove { name: name.to_owned() });
    }

    pub fn rename(&mut self, from: &str, to: &str, file: usize) {
        self.0.change(Step::Rename { from: from.to_owned(), to: to.to_owned(), file });
    }

    /// fsync(2) of the directory.
    pub fn sync(&mut self, outcome: Sync) {
        self.0.sync(outcome);
    }

    /// The directory as it is found when the power is back.
    pub fn after_power_failure(&self, fate: &mut Fate) -> Entries {
        Entries(self.0.after_power_failure(fate.surviving(self.0.unsynced())))
    }
}
