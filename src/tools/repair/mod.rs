//! `kvd repair`: what can be saved of a damaged log is saved, and what can't is told.
//!
//! Without `--write` it only tells. Knows the order of the steps; what is wrong is for `plan`, what is lost for `lost`,
//! what is done for `write`, and how it is told for `report`.

pub mod lost;
pub mod plan;
pub mod report;
mod write;

use super::check;
use super::survivors::Survivors;
use crate::log::fs::Fs;
use crate::log::recovery::refuse_in_the_way;
use crate::log::salvage::OwnedKey;
use crate::log::{DataDir, LogError, Shortage, open_unlocked};
use crate::mutation::Key;
use clap::ValueEnum;
use plan::{Plan, plan};
use report::Report;
use std::path::Path;

/// What becomes of keys that may be stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// They keep the newest value that is left
    #[default]
    KeepStale,
    /// They are removed
    DropSuspects,
}

/// Why nothing can be repaired. Displays as a sentence.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A file that does not belong here, a newer format, or what the system refuses.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No header tells which store it is.
    #[error(
        "no segment has a header that can be read, so nothing tells which store this is: restore the directory from a copy"
    )]
    NoIdentity,
    /// No room for what is written.
    #[error("{0}: nothing that was there before is lost. Make room, and begin again")]
    Full(Shortage),
    /// What was written is not what it should be.
    #[error("what was written is not sound: {0}. The damaged files are kept beside it")]
    Unsound(String),
}

/// Looks at a log and tells what is to be done; does it if `writes`.
///
/// # Errors
/// A [`RepairError`]. Nothing that was there before is lost by it.
pub fn repair(directory: &Path, policy: Policy, writes: bool) -> Result<Report, RepairError> {
    if !writes {
        let (plan, suspects) = look(&open_unlocked(directory)?)?;
        return Ok(Report::of(&plan, suspects, policy));
    }
    let lock = DataDir::open_existing(directory)?;
    let disk = lock.disk();
    let (plan, suspects) = look(disk.as_ref())?;
    let mut report = Report::of(&plan, suspects, policy);
    if plan.is_empty() {
        return Ok(report);
    }
    refuse_in_the_way(disk.as_ref())?;
    let kept = write::write(&plan, disk.as_ref())?;
    let time = plan.time;
    // Files that are mapped must not be replaced under those who read them.
    drop(plan);
    if policy == Policy::DropSuspects && !report.suspects.is_empty() {
        write::remove(lock.disk(), &report.suspects, time)?;
    }
    let after = check::check_disk(disk.as_ref());
    if after.finding() > check::Finding::TornTail {
        let flaw = after.flaws.first().map(|flaw| flaw.what.clone());
        return Err(RepairError::Unsound(flaw.unwrap_or_default()));
    }
    report.written = Some(kept);
    Ok(report)
}

/// What is to be done, and the keys that may be stale then.
fn look(disk: &dyn Fs) -> Result<(Plan, Vec<OwnedKey>), RepairError> {
    let mut survivors = Survivors::default();
    let plan = plan(disk, &mut |record| survivors.meet(record.version, &record.mutation, 0))?;
    let may_be_stale = survivors.kept(plan.time.now).filter(|(_, version)| plan.losses.may_hide(*version));
    let mut suspects: Vec<_> = may_be_stale.map(|(Key { space, bytes }, _)| (space, bytes.into())).collect();
    suspects.sort();
    Ok((plan, suspects))
}
