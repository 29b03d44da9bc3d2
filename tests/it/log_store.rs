//! A log on the fake disk, with a memory of what was written: what the log tests share.
//!
//! Without compaction a log that is read back holds exactly the groups that were written, in order, up to some point. That is
//! stronger than comparing tables, so it is what these tests compare.

use kvd::log::fs::{FakeDisk, Fs};
use kvd::log::recovery::{CHUNK, survey};
use kvd::log::{AppendError, Batch, LogError, LogOptions, Progress, Recovered, SyncPolicy, Unread, Writer};
use kvd::mutation::{Key, Mutation, Value};
use std::sync::{Arc, Mutex};

/// Small, so that a handful of batches rotates.
pub const SEGMENT_SIZE: u64 = 8192;

/// A mutation with its version, owned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    pub version: u64,
    pub put: Option<Vec<u8>>,
    pub key: Vec<u8>,
}

/// The records of one command.
pub type Group = Vec<Written>;

impl Written {
    pub fn put(version: u64, key: &[u8], value: &[u8]) -> Self {
        Written { version, put: Some(value.to_vec()), key: key.to_vec() }
    }

    pub fn remove(version: u64, key: &[u8]) -> Self {
        Written { version, put: None, key: key.to_vec() }
    }

    fn of(version: u64, mutation: &Mutation<'_>) -> Self {
        match mutation {
            Mutation::Put { key, value } => Written::put(version, key.bytes, value.bytes),
            Mutation::Remove { key } | Mutation::Evict { key } => Written::remove(version, key.bytes),
            Mutation::Flush { prefix } => Written { version, put: None, key: prefix.unwrap_or(b"*").to_vec() },
        }
    }

    fn mutation(&self) -> Mutation<'_> {
        let key = Key::bytes(&self.key);
        match &self.put {
            Some(bytes) => Mutation::Put { key, value: Value { bytes, flags: 0, deadline: 0 } },
            None => Mutation::Remove { key },
        }
    }
}

/// A batch of these groups, stamped.
pub fn batch_of(groups: &[Group]) -> Batch {
    let mut batch = Batch::default();
    let mut next_version = 1;
    for group in groups {
        for written in group {
            batch.push(written.version, &written.mutation());
            next_version = written.version + 1;
        }
        batch.end_group();
    }
    batch.stamp(1_000, next_version);
    batch
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened {
    pub writer: Writer,
    pub recovered: Recovered,
    /// Every record of the log, by version.
    pub records: Vec<Written>,
}

/// Opens the log of a disk.
pub fn open(disk: &FakeDisk) -> Result<Opened, LogError> {
    open_with(disk, SEGMENT_SIZE)
}

/// Opens the log of a disk, with segments of this size.
pub fn open_with(disk: &FakeDisk, segment_size: u64) -> Result<Opened, LogError> {
    let options = LogOptions { segment_size, sync: SyncPolicy::Always, threads: 2 };
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let seen = Mutex::new(Vec::new());
    let (ready, recovered) = Unread::open(fs, options)?.replay(&Progress::default(), &|chunk| {
        seen.lock().unwrap().extend(chunk.iter().map(|(version, mutation)| Written::of(*version, mutation)));
    })?;
    let mut records = seen.into_inner().unwrap();
    records.sort();
    Ok(Opened { writer: ready.into_writer(), recovered, records })
}

/// Appends and syncs, as `--fsync always` does.
pub fn commit(writer: &mut Writer, groups: &[Group]) -> Result<(), AppendError> {
    writer.append(&mut batch_of(groups))?;
    writer.sync()?;
    Ok(())
}

/// Five commands' worth of groups a batch: single puts, a group of three, a removal; enough batches to rotate twice.
pub fn workload(batches: u64) -> Vec<Vec<Group>> {
    let mut version = 0;
    let mut next = || {
        version += 1;
        version
    };
    (0..batches)
        .map(|batch| {
            let value = format!("value-{batch}-").repeat(20 + batch as usize % 30);
            vec![
                vec![Written::put(next(), b"single", value.as_bytes())],
                ["a", "b", "c"].iter().map(|key| Written::put(next(), key.as_bytes(), value.as_bytes())).collect(),
                vec![Written::remove(next(), b"single")],
            ]
        })
        .collect()
}

/// How many whole batches of `written` these records are. Panics unless they are exactly a prefix of whole groups, and says
/// what differs.
pub fn prefix_groups(records: &[Written], written: &[Vec<Group>]) -> usize {
    let groups: Vec<&Group> = written.iter().flatten().collect();
    let mut rest = records;
    for (count, group) in groups.iter().enumerate() {
        if rest.is_empty() {
            return count;
        }
        let (head, tail) = rest.split_at(group.len().min(rest.len()));
        assert_eq!(head, group.as_slice(), "group {count} came back otherwise, or in part");
        rest = tail;
    }
    assert!(rest.is_empty(), "records that were never written: {rest:?}");
    groups.len()
}

/// Chunks go on across batches, and end where they are full or the segment ends.
#[test]
fn a_replay_is_given_full_chunks_and_the_rest_of_each_segment() {
    const BATCHES: u64 = 6;
    const RECORDS: u64 = CHUNK as u64 - 500;
    let disk = FakeDisk::new();
    let mut writer = open_with(&disk, 128 << 10).unwrap().writer;
    for batch in 0..BATCHES {
        let versions = batch * RECORDS + 1..=(batch + 1) * RECORDS;
        let groups: Vec<Group> = versions.map(|version| vec![Written::put(version, b"key", b"value")]).collect();
        commit(&mut writer, &groups).unwrap();
    }
    let segments = survey(&disk).unwrap().segments.len();
    assert!((2..BATCHES as usize).contains(&segments), "{segments} segments: some batches share one");

    let options = LogOptions { segment_size: 128 << 10, sync: SyncPolicy::Always, threads: 1 };
    let chunks = Mutex::new(Vec::new());
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let apply = |chunk: &[(u64, Mutation<'_>)]| {
        chunks.lock().unwrap().push(chunk.iter().map(|(version, _)| *version).collect::<Vec<_>>());
    };
    Unread::open(fs, options).unwrap().replay(&Progress::default(), &apply).unwrap();
    let chunks = chunks.into_inner().unwrap();
    assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK));
    assert!(chunks.iter().any(|chunk| chunk.len() == CHUNK), "no chunk went on into the next batch");
    assert_eq!(chunks.iter().filter(|chunk| chunk.len() < CHUNK).count(), segments, "one rest a segment");
    assert!(chunks.concat().into_iter().eq(1..=BATCHES * RECORDS), "each record once, in order");
}
