//! What is wrong with a log, and what would be put in its place. Changes nothing.
//!
//! Knows the rules by which segments belong together, as a start has them, and goes on where a start refuses. A damaged
//! segment is to be replaced by a compacted one that holds what was salvaged of it, a missing one by one that holds nothing.

use super::RepairError;
use super::lost::{Loss, Losses};
use crate::log::batch::{Dependency, Link};
use crate::log::fs::{Contents, Fs};
use crate::log::record::Record;
use crate::log::recovery::{Reading, Segment, Verdict, mismatches, read_segment, segment_numbers};
use crate::log::salvage::{Salvaged, first_batch, salvage};
use crate::log::segment::{
    Compacted, HeaderState, SEGMENT_HEADER, SegmentHeader, SegmentKind, file_name, unix_milliseconds,
};
use crate::log::{LogError, Mismatch, Progress, Secret, UNCLEAN_SKIP};
use crate::timeline::Time;
use crate::tools::bar::Bar;
use std::sync::atomic::Ordering;

/// Highest generation that is tried for a segment whose header can't be read.
const MOST_GENERATIONS: u32 = 4096;

/// What is to be done.
pub struct Plan {
    /// Segments to put in the place of others, oldest first.
    pub patches: Vec<Patch>,
    /// The journal to go on with, where the last segment is no journal any more.
    pub journal: Option<SegmentHeader>,
    /// What is known of the time line.
    pub time: Time,
    /// What was lost.
    pub losses: Losses,
    /// Segments that stay as they are.
    pub sound: usize,
    /// The store's secret.
    secret: Secret,
}

/// A segment to be put in the place of another.
pub struct Patch {
    /// The header that it gets.
    pub header: SegmentHeader,
    /// The file that it replaces, if that is there.
    pub damaged: Option<Box<dyn Contents>>,
    /// The header by which the damaged file is read.
    pub read_as: SegmentHeader,
    /// The older segments on which it relies, as the damaged one said.
    pub dependencies: Vec<Dependency>,
    /// Records that are kept.
    pub records: u64,
    /// Why.
    pub why: String,
}

impl Patch {
    /// The file's name.
    pub fn name(&self) -> String {
        file_name(self.header.number)
    }

    /// Gives every record that is kept to `visit`.
    pub fn each_record(&self, visit: &mut dyn FnMut(&Record<'_>)) -> Salvaged {
        let bytes = self.damaged.as_ref().map_or(&[][..], |contents| contents.bytes());
        salvage(&self.read_as, bytes, &mut |group| group.iter().for_each(&mut *visit))
    }
}

/// A segment's file, as far as its header can be read.
struct Found {
    segment: Segment,
    /// Whether the header is what stands in the file, and not what it must have been.
    header_is_right: bool,
    /// Whether it is known with what the segment before has to end.
    link_is_right: bool,
}

impl Plan {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty() && self.journal.is_none()
    }
}

/// Looks at every segment, and gives every record that is kept to `visit`, in the order of the log; those of a damaged segment
/// more than once.
///
/// # Errors
/// What can't be repaired: a file that belongs elsewhere or that this program can't know, or a directory that can't be read.
pub fn plan(disk: &dyn Fs, visit: &mut dyn FnMut(&Record<'_>)) -> Result<Plan, RepairError> {
    let found = belonging_together(find(disk)?)?;
    let segments: Vec<_> = found.iter().map(|found| found.segment.clone()).collect();
    let secret = segments.iter().rev().find_map(|segment| segment.header.secret).map_or_else(Secret::random, Ok)?;
    let mut plan = Plan::empty(secret);
    let mut course = Course::default();
    let mut readings = Vec::new();
    let bar = Bar::of_log("read", disk, &segments);
    let progress = Progress::default();
    for (index, segment) in found.iter().enumerate() {
        readings.extend(plan.look_at(disk, segment, found.get(index + 1), &mut course, &progress, visit)?);
        bar.at(progress.done.load(Ordering::Relaxed));
    }
    plan.part_moments(disk, &readings, &mut course, visit)?;
    plan.time = Time::at_start(course.time, unix_milliseconds());
    if let Some(last) = segments.last()
        && !course.ends_with_journal
    {
        plan.journal = Some(course.journal(last.header.identity, secret, course.number + 1));
    }
    Ok(plan)
}

/// What the log says of what comes next, as far as it was read.
struct Course {
    /// The number of the last segment; 0 before the first.
    number: u64,
    next_version: u64,
    next_batch: u64,
    time: Time,
    /// With what the last segment ends.
    link: Link,
    /// Whether the last segment can be appended to.
    ends_with_journal: bool,
}

impl Default for Course {
    fn default() -> Self {
        let link = Link { number: 1, chain: 0 };
        Course { number: 0, next_version: 1, next_batch: 1, time: Time::default(), link, ends_with_journal: false }
    }
}

impl Course {
    fn goes_on(&mut self, next_version: u64, next_batch: u64, time: Time) {
        self.next_version = self.next_version.max(next_version);
        self.next_batch = self.next_batch.max(next_batch);
        self.time = time;
    }

    /// The header of a journal of this number, with which the log goes on.
    fn journal(&self, identity: u128, secret: Secret, number: u64) -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Journal,
            identity,
            secret: Some(secret),
            number,
            epoch: 0,
            // Whatever was handed out and lost is not handed out again.
            next_version: self.next_version.saturating_add(UNCLEAN_SKIP),
            durable_version: self.next_version.saturating_sub(1),
            link: Link { number: self.next_batch, chain: 0 },
            time: Time::at_start(self.time, unix_milliseconds()),
        }
    }
}

impl Plan {
    /// Nothing was looked at yet. What is written has this secret.
    fn empty(secret: Secret) -> Plan {
        let (patches, losses) = (Vec::new(), Losses::default());
        Plan { patches, journal: None, time: Time::default(), losses, sound: 0, secret }
    }

    /// Looks at one segment, before which the log was read up to `course`, and behind which `next` was found. Returns what
    /// it holds, if it can stay as it is.
    fn look_at(
        &mut self,
        disk: &dyn Fs,
        found: &Found,
        next: Option<&Found>,
        course: &mut Course,
        progress: &Progress,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> Result<Option<Reading>, RepairError> {
        let Found { segment, header_is_right, link_is_right } = found;
        let contents = disk.contents(&segment.name).map_err(LogError::io("read", &segment.name))?;
        let mut header = segment.header;
        let newer = |what| LogError::Newer { name: segment.name.clone(), what };
        let mut begins = Some(header.next_version);
        if !header_is_right {
            header.link = if *link_is_right { header.link } else { course.link };
            (header.next_version, header.time) = (course.next_version, course.time);
            begins = first_version(&header, contents.as_ref());
        }
        if !link_is_right {
            // Whether the segment before it ends where it should nothing tells but versions.
            self.losses.add(Loss::of_versions(&segment.name, course.next_version, begins));
        }
        if header.first() > course.number + 1 {
            self.miss(course.number + 1, &header, course, begins);
        }
        let is_last = next.is_none();
        let next = next.filter(|next| next.segment.header.first() == header.number + 1);
        let successor = next.filter(|next| next.link_is_right).map(|next| next.segment.header.link);
        let reading = read_segment(segment, successor, contents.as_ref(), progress, &mut |record| visit(&record));
        let why = match reading.verdict {
            Verdict::Newer(what) => return Err(newer(what).into()),
            _ if !header_is_right => Some("the segment's header can't be read".to_owned()),
            Verdict::Damage(fault) => Some(fault.to_string()),
            // Only the last segment may end in a tear.
            Verdict::TornTail if !is_last => reading.report.fault.map(|fault| fault.to_string()),
            Verdict::Clean | Verdict::TornTail => None,
        };
        course.number = header.number;
        course.ends_with_journal = why.is_none() && header.kind == SegmentKind::Journal;
        if let Some(why) = why {
            let versions_end = next.filter(|next| next.header_is_right).map(|next| next.segment.header.next_version);
            let salvaged = self.patch(&header, reading.dependencies, contents, why, versions_end, visit);
            if let Some(what) = salvaged.unknown {
                return Err(newer(what).into());
            }
            course.goes_on(salvaged.next_version, salvaged.next_batch, salvaged.time);
            Ok(None)
        } else {
            self.sound += 1;
            course.goes_on(reading.report.next_version, reading.report.link.number, reading.report.time);
            course.link = reading.report.link;
            Ok(Some(reading))
        }
    }

    /// Plans for files that are sound each by itself, and of different moments. What a compacted segment had dropped, as it
    /// relied on a later state of an older one, is lost; so is what the log held up to where it relied on that. Both are
    /// written anew as what they are now.
    fn part_moments(
        &mut self,
        disk: &dyn Fs,
        readings: &[Reading],
        course: &mut Course,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> Result<(), RepairError> {
        let last = course.next_version.saturating_sub(1);
        let mut ends = 0;
        for (reading, why) in mismatches(readings, last) {
            let header = reading.segment.header;
            let torn = match why {
                Mismatch::Generation { .. } => {
                    let after = readings.iter().map(|reading| reading.segment.header);
                    let end = after.filter(|after| after.number > header.number).map(|after| after.next_version).min();
                    self.losses.add(Loss::of_versions(&reading.segment.name, header.next_version, end));
                    Some(reading)
                }
                // What is lost of the last segment is known: it was damaged.
                Mismatch::Ends { .. } if !course.ends_with_journal => None,
                Mismatch::Ends { durable, last } => {
                    self.losses.add(Loss::of_versions(&reading.segment.name, last + 1, Some(durable + 1)));
                    ends = ends.max(durable + 1);
                    readings.last().filter(|last| last.segment.header.kind == SegmentKind::Journal)
                }
            };
            let is_planned = |name: &str| self.patches.iter().any(|patch| patch.name() == name);
            if let Some(Reading { segment, .. }) = torn.filter(|torn| !is_planned(&torn.segment.name)) {
                let contents = disk.contents(&segment.name).map_err(LogError::io("read", &segment.name))?;
                self.patch(&segment.header, Vec::new(), contents, why.to_string(), None, visit);
                self.sound -= 1;
            }
        }
        if ends > course.next_version {
            // Nothing goes on behind the last one, whose versions would be handed out again.
            (course.next_version, course.ends_with_journal) = (ends, false);
        }
        self.reach_generations(readings);
        self.patches.sort_by_key(|patch| patch.header.number);
        Ok(())
    }

    /// What takes the place of a segment is of no earlier moment than others relied on, whatever is known of the one that was
    /// there.
    fn reach_generations(&mut self, readings: &[Reading]) {
        let of_sound = readings.iter().flat_map(|reading| &reading.dependencies);
        let of_patched = self.patches.iter().flat_map(|patch| &patch.dependencies);
        let listed: Vec<Dependency> = of_sound.chain(of_patched).copied().collect();
        for Patch { header: SegmentHeader { kind, number, .. }, .. } in &mut self.patches {
            let SegmentKind::Compacted(compacted) = kind else { continue };
            let of_this = listed.iter().filter(|dependency| (compacted.first..=*number).contains(&dependency.number));
            let least = of_this.map(|dependency| dependency.generation).max().unwrap_or(0);
            compacted.generation = compacted.generation.max(least);
        }
    }

    /// Plans for a segment, whose number is right, what is put in its place. Returns what was salvaged.
    fn patch(
        &mut self,
        read_as: &SegmentHeader,
        dependencies: Vec<Dependency>,
        contents: Box<dyn Contents>,
        why: String,
        versions_end: Option<u64>,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> Salvaged {
        let compacted = Compacted { first: read_as.first(), generation: read_as.generation() + 1, length: 0 };
        let kind = SegmentKind::Compacted(compacted);
        let header = SegmentHeader { kind, secret: Some(self.secret), ..*read_as };
        let damaged = Some(contents);
        let mut patch = Patch { header, damaged, read_as: *read_as, dependencies, records: 0, why };
        let salvaged = patch.each_record(visit);
        patch.records = salvaged.records;
        for gap in &salvaged.gaps {
            self.losses.add(Loss::of_gap(&patch.name(), gap, versions_end));
        }
        // Whole batches may be missing behind the last byte.
        let ends_in_gap = salvaged.gaps.last().is_some_and(|gap| gap.end_version.is_none());
        if let Some(end) = versions_end.filter(|end| *end > salvaged.next_version && !ends_in_gap)
            && read_as.kind == SegmentKind::Journal
        {
            self.losses.add(Loss::of_versions(&patch.name(), salvaged.next_version, Some(end)));
        }
        self.patches.push(patch);
        salvaged
    }

    /// Plans for segments that are missing before another, whose lowest version this is, if that is known.
    fn miss(&mut self, first: u64, before: &SegmentHeader, course: &Course, begins: Option<u64>) {
        let number = before.first() - 1;
        let kind = SegmentKind::Compacted(Compacted { first, generation: 1, length: 0 });
        let next_version = course.next_version;
        let (secret, durable_version) = (Some(self.secret), next_version.saturating_sub(1));
        // It carries on what is there, whatever came after that.
        let link = course.link;
        let header = SegmentHeader { kind, secret, number, next_version, durable_version, link, ..*before };
        let name = file_name(number);
        self.losses.add(Loss::of_versions(&name, next_version, begins));
        let why = if first == number {
            "it is missing".to_owned()
        } else {
            format!("{} to it are missing", file_name(first))
        };
        let dependencies = Vec::new();
        self.patches.push(Patch { header, damaged: None, read_as: header, dependencies, records: 0, why });
    }
}

/// Every segment's file, in the order of their numbers.
fn find(disk: &dyn Fs) -> Result<Vec<Found>, RepairError> {
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    for number in segment_numbers(disk)? {
        let name = file_name(number);
        let beginning = disk.beginning(&name, SEGMENT_HEADER).map_err(LogError::io("read", &name))?;
        match SegmentHeader::decode(&beginning) {
            HeaderState::Valid(header) if header.number != number => {
                return Err(LogError::Misplaced { name, says: header.number }.into());
            }
            HeaderState::Valid(header) => {
                found.push(Found { segment: Segment { name, header }, header_is_right: true, link_is_right: true });
            }
            HeaderState::Newer(what) => return Err(LogError::Newer { name, what }.into()),
            state @ (HeaderState::Blank | HeaderState::Broken | HeaderState::Foreign) => {
                broken.push((name, number, state == HeaderState::Foreign));
            }
        }
    }
    let Some(identity) = found.first().map(|found| found.segment.header.identity) else {
        return if broken.is_empty() { Ok(found) } else { Err(RepairError::NoIdentity) };
    };
    for (name, number, is_foreign) in broken {
        let contents = disk.contents(&name).map_err(LogError::io("read", &name))?;
        // Without anything behind the header it is a spare, or one that was being made.
        let body = contents.bytes().get(SEGMENT_HEADER..).unwrap_or_default();
        if is_foreign || body.iter().any(|byte| *byte != 0) {
            let (header, begins) = guess(contents.as_ref(), identity, number, &found);
            // Its magic may be what is damaged, if what is in it belongs here.
            if is_foreign && begins.is_none() {
                return Err(LogError::Foreign { name }.into());
            }
            // The first batch of a journal tells with what the segment before it has to end, if it is there.
            let is_journal = header.kind == SegmentKind::Journal;
            let link = begins.filter(|(at, _)| is_journal && *at == SEGMENT_HEADER).map(|(_, link)| link);
            let segment = Segment { name, header: SegmentHeader { link: link.unwrap_or(header.link), ..header } };
            found.push(Found { segment, header_is_right: false, link_is_right: link.is_some() });
        }
    }
    found.sort_by_key(|found| found.segment.header.number);
    Ok(found)
}

/// The header that a segment must have had, and the first batch that is right for its place by it; that of a journal where no
/// batch is.
fn guess(
    contents: &dyn Contents,
    identity: u128,
    number: u64,
    others: &[Found],
) -> (SegmentHeader, Option<(usize, Link)>) {
    let before = others.iter().map(|found| found.segment.header).filter(|header| header.number < number);
    let before = before.max_by_key(|header| header.number);
    let journal = SegmentHeader {
        kind: SegmentKind::Journal,
        identity,
        secret: None,
        number,
        epoch: 0,
        next_version: before.map_or(1, |before| before.next_version),
        durable_version: 0,
        link: Link { number: 1, chain: 0 },
        time: Time::default(),
    };
    let compacted = (1..=MOST_GENERATIONS).map(move |generation| {
        // Which others it stood for nothing tells: those that are not there are called missing, rather than passed over.
        let kind = SegmentKind::Compacted(Compacted { first: number, generation, length: 0 });
        SegmentHeader { kind, ..journal }
    });
    let of_format_1 = std::iter::once(journal).chain(compacted);
    // Of the version it was of, nothing tells but its batches.
    let secret = others.iter().find_map(|found| found.segment.header.secret);
    let headers = of_format_1.flat_map(|header| [SegmentHeader { secret, ..header }, header]);
    let told = first_batch(headers, contents.bytes());
    told.map_or((journal, None), |(header, at, link)| (header, Some((at, link))))
}

/// The lowest version in a segment.
fn first_version(header: &SegmentHeader, contents: &dyn Contents) -> Option<u64> {
    let mut first = None;
    salvage(header, contents.bytes(), &mut |group| first = first.or(group.first().map(|record| record.version)));
    first
}

/// Leaves out what a later segment stands for.
fn belonging_together(found: Vec<Found>) -> Result<Vec<Found>, RepairError> {
    let Some(identity) = found.first().map(|found| found.segment.header.identity) else { return Ok(found) };
    let mut kept: Vec<Found> = Vec::new();
    for found in found.into_iter().rev() {
        let header = found.segment.header;
        if header.identity != identity {
            let (name, other) = (found.segment.name, header.identity);
            return Err(LogError::OtherStore { name, expected: identity, found: other }.into());
        }
        if kept.last().is_none_or(|later| later.segment.header.first() > header.number) {
            kept.push(found);
        }
    }
    kept.reverse();
    Ok(kept)
}
