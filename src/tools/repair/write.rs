//! Carries a plan out: what was salvaged is written first, the damaged file is kept under another name, and only then is it
//! replaced.
//!
//! Each step leaves a log of which nothing is missing that was there before it, so that a repair that was cut short is simply
//! begun again. But which keys are suspect is known from the damaged files alone: of a repair that was to drop them, and was
//! cut short when it had replaced all files, those have to be put back first.

use super::RepairError;
use super::plan::{Patch, Plan};
use crate::log::compaction::{CompactedWriter, CompactionError};
use crate::log::fs::{Fs, create_anew};
use crate::log::salvage::OwnedKey;
use crate::log::segment::{SegmentHeader, damaged_name, file_name, temporary_name};
use crate::log::{AppendError, Batch, LogError, LogOptions, Progress, Shortage, SyncPolicy, Unread};
use crate::mutation::{Key, Mutation};
use crate::timeline::Time;
use std::sync::Arc;

/// Bytes of removals that are written at a time.
const BATCH: usize = 1 << 20;
/// Bytes of a segment that a repair makes.
const SEGMENT: u64 = 64 << 10;

/// Does what the plan says, in the directory that is locked and whose disk this is. Returns the names under which damaged
/// files are kept.
pub(super) fn write(plan: &Plan, disk: &dyn Fs) -> Result<Vec<String>, RepairError> {
    let mut kept = Vec::new();
    for patch in &plan.patches {
        write_patch(patch, disk)?;
        if patch.damaged.is_some() {
            kept.push(keep(patch, disk)?);
        }
        install(disk, patch.header.number)?;
    }
    if let Some(header) = &plan.journal {
        write_journal(header, disk)?;
        install(disk, header.number)?;
    }
    Ok(kept)
}

fn write_patch(patch: &Patch, disk: &dyn Fs) -> Result<(), RepairError> {
    let name = temporary_name(patch.header.number);
    let mut writer = CompactedWriter::create(disk, patch.header, &name).map_err(written)?;
    writer.at(patch.header.time);
    writer.rely_on(&patch.dependencies).map_err(written)?;
    let mut failed = Ok(0);
    let salvaged = patch.each_record(&mut |record| {
        if failed.is_ok() {
            writer.push(record.version, &record.mutation);
            failed = writer.write_if_full();
        }
    });
    failed.map_err(written)?;
    writer.at(salvaged.time);
    writer.finish(None).map_err(written)?;
    Ok(())
}

/// An empty journal is a header and nothing else.
fn write_journal(header: &SegmentHeader, disk: &dyn Fs) -> Result<(), RepairError> {
    let name = temporary_name(header.number);
    let file = create_anew(disk, &name).map_err(LogError::io("create", &name))?;
    let bytes = header.encode();
    let count = file.write_at(&bytes, 0).map_err(LogError::io("write", &name))?;
    if count < bytes.len() {
        return Err(RepairError::Full(Shortage::Disk));
    }
    Ok(file.sync().map_err(LogError::io("sync", &name))?)
}

/// Gives the damaged file a second name, by which it stays when another takes its first.
fn keep(patch: &Patch, disk: &dyn Fs) -> Result<String, RepairError> {
    let name = patch.name();
    // Never the name of a file that was kept before.
    for attempt in 1.. {
        let kept = damaged_name(patch.header.number, attempt);
        match disk.link(&name, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(LogError::io("keep a copy of", &name)(error).into()),
        }
    }
    unreachable!("some number is free")
}

fn install(disk: &dyn Fs, number: u64) -> Result<(), RepairError> {
    let name = file_name(number);
    let sync = || disk.sync_dir().map_err(LogError::io("sync", "the data directory"));
    sync()?;
    disk.rename(&temporary_name(number), &name).map_err(LogError::io("rename", &name))?;
    Ok(sync()?)
}

/// Removes these keys from a log that a daemon could start on.
pub(super) fn remove(disk: Arc<dyn Fs>, keys: &[OwnedKey], time: Time) -> Result<(), RepairError> {
    let options = LogOptions { segment_size: SEGMENT, sync: SyncPolicy::Never, threads: 1 };
    let (ready, recovered) = Unread::open(disk, options)?.replay(&Progress::default(), &|_| ())?;
    let (mut writer, mut batch) = (ready.into_writer(), Batch::default());
    let mut next_version = recovered.next_version;
    let mut keys = keys.iter().peekable();
    while let Some((space, bytes)) = keys.next() {
        batch.push(next_version, &Mutation::Remove { key: Key { space: *space, bytes } });
        batch.end_group();
        next_version += 1;
        if batch.byte_len() >= BATCH || keys.peek().is_none() {
            batch.stamp(time, next_version);
            writer.append(&mut batch).map_err(|error| match error {
                AppendError::NoSpace(shortage) => RepairError::Full(shortage),
                AppendError::Fatal(error) => error.into(),
            })?;
            batch.clear();
        }
    }
    Ok(writer.finish(time, next_version)?)
}

fn written(error: CompactionError) -> RepairError {
    match error {
        CompactionError::Fatal(error) | CompactionError::Spoiled { why: error, .. } => error.into(),
        CompactionError::NoSpace(shortage) => RepairError::Full(shortage),
        // Nobody calls off a repair.
        CompactionError::Stopped => LogError::ThreadGone.into(),
    }
}
