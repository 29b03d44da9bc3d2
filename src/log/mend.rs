//! What a start changes on disk before the log is written again.
//!
//! Knows how to cut what recovery decided to cut, and keeps a copy of it. Decides nothing itself.

use super::batch::Durable;
use super::error::LogError;
use super::fs::{File, Fs};
use super::recovery::{Reading, Survey, Verdict};
use super::segment::{SEGMENT_HEADER, file_name, torn_header_name, torn_tail_name};
use crate::fault;
use tracing::{info, warn};

/// Removes what is left over of work that was cut short, and the files above the journal, but for the one that `keep` says: the
/// next segment's spare, whose room is the reserve of a full disk.
///
/// # Errors
/// What the disk refuses.
pub fn clear_left_overs(fs: &dyn Fs, survey: &Survey, keep: Option<u64>) -> Result<(), LogError> {
    for name in &survey.strangers {
        info!("{name:?} in the data directory is not kvd's; it is left alone");
    }
    for &number in &survey.torn_headers {
        let name = file_name(number);
        warn!("{name} was being made when the last run ended; it holds no data and is made anew");
        save(fs, &name, &|n| torn_header_name(number, n), 0)?;
    }
    // Before anything else is removed or made: what a later segment stands for must not outlive it.
    for segment in &survey.replaced {
        info!("{} was compacted into a later segment before the last run ended; it is removed", segment.name);
        fault::after("start-replaced-removed", fs.remove(&segment.name))
            .map_err(LogError::io("remove", &segment.name))?;
    }
    let spares = survey.spares.iter().filter(|number| Some(**number) != keep);
    let unused = spares.chain(&survey.torn_headers).map(|number| file_name(*number));
    for name in survey.temporary.iter().cloned().chain(unused) {
        fault::after("start-left-over-removed", fs.remove(&name)).map_err(LogError::io("remove", &name))?;
    }
    fault::after("start-left-overs-cleared", fs.sync_dir()).map_err(LogError::io("sync", "the data directory"))
}

/// Makes the active segment end where its last whole batch ends, and everything in it durable. Returns its file and what is
/// durable then.
///
/// # Errors
/// What the disk refuses.
pub fn settle(fs: &dyn Fs, active: &Reading) -> Result<(Box<dyn File>, Durable), LogError> {
    let name = &active.segment.name;
    let report = &active.report;
    let file = fs.open(name).map_err(LogError::io("open", name))?;
    if active.verdict == Verdict::TornTail {
        warn!(
            "{name}: what follows offset {} was being written when the last run ended, and was never acknowledged as durable; it is cut off",
            report.end
        );
        let number = active.segment.header.number;
        save(fs, name, &|n| torn_tail_name(number, report.end, n), report.end)?;
        fault::after("start-tail-cut", file.set_len(report.end)).map_err(LogError::io("cut", name))?;
    }
    rewrite_unproven(fs, file.as_ref(), active)?;
    fault::after("start-tail-synced", file.sync()).map_err(LogError::io("sync", name))?;
    fault::after("start-mended", fs.sync_dir()).map_err(LogError::io("sync", "the data directory"))?;
    let version = report.next_version.saturating_sub(1);
    Ok((file, Durable { batch: report.link.number.saturating_sub(1), version }))
}

/// Writes batches that no later one proves durable once more in place, and with the first one the segment's header. If
/// their first sync failed, the page cache shows them while the disk does not have them, and a sync alone would not write
/// pages that count as clean.
fn rewrite_unproven(fs: &dyn Fs, file: &dyn File, active: &Reading) -> Result<(), LogError> {
    let to = active.report.end;
    let from = if active.report.unproven == SEGMENT_HEADER as u64 { 0 } else { active.report.unproven };
    if from == to {
        return Ok(());
    }
    let name = &active.segment.name;
    let bytes = {
        let contents = fs.contents(name).map_err(LogError::io("read", name))?;
        contents.bytes().get(from as usize..to as usize).unwrap_or_default().to_vec()
    };
    write_whole(file, &bytes, from, name)?;
    fault::at("start-unproven-rewritten").map_err(LogError::io("write", name))
}

/// Copies a file's bytes from `from` on into a file beside it, if there is more than zeros. `kept` is what to call it, the n-th time.
fn save(fs: &dyn Fs, name: &str, kept: &dyn Fn(u64) -> String, from: u64) -> Result<(), LogError> {
    let bytes = {
        let contents = fs.contents(name).map_err(LogError::io("read", name))?;
        contents.bytes().get(from as usize..).unwrap_or_default().to_vec()
    };
    let Some(last) = bytes.iter().rposition(|&byte| byte != 0) else { return Ok(()) };
    // An earlier cut at the same place may have left its own copy: that one is kept too.
    let taken = fs.list().map_err(LogError::io("list", "the data directory"))?;
    let mut n = 1;
    while taken.contains(&kept(n)) {
        n += 1;
    }
    let copy = kept(n);
    let file = fs.create(&copy).map_err(LogError::io("create", &copy))?;
    write_whole(file.as_ref(), bytes.get(..=last).unwrap_or_default(), 0, &copy)?;
    fault::after("start-cut-copied", file.sync()).map_err(LogError::io("sync", &copy))?;
    fault::after("start-cut-kept", fs.sync_dir()).map_err(LogError::io("sync", "the data directory"))?;
    warn!("the bytes cut off {name} are kept in {copy}; kvd does not need them");
    Ok(())
}

fn write_whole(file: &dyn File, bytes: &[u8], offset: u64, name: &str) -> Result<(), LogError> {
    let written = file.write_at(bytes, offset).map_err(LogError::io("write", name))?;
    if written < bytes.len() {
        return Err(LogError::io("write", name)(std::io::ErrorKind::StorageFull.into()));
    }
    Ok(())
}
