//! The fake disk does as the real one: whatever is asked of both, in whatever order, the answers are the same.

use crate::random::{Random, seed};
use kvd::log::fs::{Disk, FakeDisk, File, Fs, create_anew};
use std::io;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Where writes and sizes lie, in bytes.
const EXTENT: usize = 20_000;

/// What came of something, in words that two disks can agree on.
fn told<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// A disk, and the files that are open on it, in the order in which they were opened.
struct Subject {
    fs: Box<dyn Fs>,
    files: Vec<Box<dyn File>>,
}

impl Subject {
    fn opened(&mut self, file: io::Result<Box<dyn File>>) -> String {
        told(file.map(|file| self.files.push(file)))
    }

    /// One step, chosen by this; what it answers.
    fn step(&mut self, random: &mut Random) -> String {
        let name = NAMES[random.below(NAMES.len())];
        let (at, size) = (random.below(EXTENT) as u64, random.below(EXTENT) as u64);
        let filling = random.below(256) as u8;
        let chosen = random.below(self.files.len().max(1));
        let step = random.below(17);
        let doing = format!("{step} {name} {chosen} {at} {size}");
        let answer = match (step, self.files.get(chosen)) {
            (0, _) => {
                let file = self.fs.create(name);
                self.opened(file)
            }
            (1, _) => {
                let file = self.fs.open(name);
                self.opened(file)
            }
            (2, _) => {
                let file = create_anew(&*self.fs, name);
                self.opened(file)
            }
            (3, _) => told(self.fs.remove(name)),
            (4, _) => told(self.fs.rename(name, NAMES[random.below(NAMES.len())])),
            (5, _) => told(self.fs.file_len(name)),
            (6, _) => told(self.fs.beginning(name, size as usize)),
            (7, _) => told(self.fs.contents(name).map(|contents| {
                let (mut bytes, file_len) = (contents.bytes().to_vec(), contents.file_len());
                assert!(bytes.len() as u64 <= file_len);
                bytes.resize(file_len as usize, 0);
                bytes
            })),
            (16, _) => told(self.fs.link(name, NAMES[random.below(NAMES.len())])),
            (8, _) => told(self.fs.sync_dir()),
            (9, _) => told(self.fs.list().map(|mut names| {
                names.sort();
                names
            })),
            (_, None) => String::new(),
            (10, Some(file)) => told(file.len()),
            (11, Some(file)) => told(file.is_named()),
            (12, Some(file)) => {
                let mut bytes = vec![filling; size as usize];
                let count = file.read_at(&mut bytes, at);
                if let Ok(count) = count {
                    bytes.truncate(count);
                }
                told(count.map(|_| bytes))
            }
            (13, Some(file)) => told(file.write_at(&vec![filling; size as usize], at)),
            (14, Some(file)) => told(file.allocate(size)),
            (_, Some(file)) => told(file.set_len(size).and_then(|()| file.sync())),
        };
        format!("{doing}: {answer}")
    }
}

#[test]
fn the_fake_disk_does_as_the_real_one() {
    let seed = seed();
    for round in 0..20 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        let real: Box<dyn Fs> = if round % 2 == 0 {
            Box::new(Disk::new(path).expect("a disk"))
        } else {
            Box::new(Disk::unlocked(path).expect("a disk"))
        };
        let mut real = Subject { fs: real, files: Vec::new() };
        let mut fake = Subject { fs: Box::new(FakeDisk::new()), files: Vec::new() };
        let (mut one, mut other) = (Random::seeded(seed + round), Random::seeded(seed + round));
        for step in 0..300 {
            assert_eq!(fake.step(&mut one), real.step(&mut other), "step {step} of round {round}; KVD_SEED={seed}");
        }
    }
}
