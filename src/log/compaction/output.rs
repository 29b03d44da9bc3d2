//! What is kept of the victims: which of their records may be dropped, by what the table says of them.
//!
//! Knows what becomes of a record. Does not know where it comes from, nor how a segment is written.

use super::questions::{Fate, QUESTIONS, Questions};
use super::writer::CompactedWriter;
use super::{CompactionError, Steward, Stopped};
use crate::fault;
use crate::log::batch::{Dependency, Tally};
use crate::log::fs::Fs;
use crate::log::record::Record;
use crate::log::segment::SegmentHeader;
use crate::log::verified::VerifiedBatch;
use crate::mutation::Mutation;

/// The new segment on its way.
pub struct Output {
    segment: CompactedWriter,
    questions: Questions,
}

impl Output {
    /// Makes its file. Which older segments it relies on is the first thing in it.
    pub fn create(
        fs: &dyn Fs,
        header: SegmentHeader,
        relied_on: &[Dependency],
        name: &str,
    ) -> Result<Output, CompactionError> {
        let mut segment = CompactedWriter::create(fs, header, name)?;
        segment.rely_on(relied_on)?;
        Ok(Output { segment, questions: Questions::default() })
    }

    /// Takes in what is to be kept of a batch.
    pub fn take(
        &mut self,
        batch: &VerifiedBatch<'_>,
        keep_removals: bool,
        steward: &mut dyn Steward,
    ) -> Result<(), CompactionError> {
        self.segment.at(batch.header.time);
        let mut records = batch.records().peekable();
        let mut chunk: Vec<Record<'_>> = Vec::new();
        while records.peek().is_some() {
            chunk.clear();
            chunk.extend(records.by_ref().take(QUESTIONS));
            self.questions.clear();
            for record in &chunk {
                if let Mutation::Put { key, .. } | Mutation::Remove { key } | Mutation::Evict { key } = record.mutation
                {
                    self.questions.push(key, record.version);
                }
            }
            if !self.questions.is_empty() {
                steward.ask(&mut self.questions)?;
                fault::at("compaction-answered").map_err(|_| Stopped)?;
            }
            let fates = std::mem::take(&mut self.questions.fates);
            let mut next = fates.iter().copied();
            for record in &chunk {
                // A flush is not asked about.
                let fate = if matches!(record.mutation, Mutation::Flush { .. }) { None } else { next.next() };
                if let Some(mutation) = survivor(&record.mutation, fate, keep_removals) {
                    self.segment.push(record.version, &mutation);
                }
            }
            self.questions.fates = fates;
            let written = self.segment.write_if_full()?;
            steward.moved(written)?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub fn write(&mut self, steward: &mut dyn Steward) -> Result<(), CompactionError> {
        let written = self.segment.write()?;
        Ok(steward.moved(written)?)
    }

    /// Writes the header, and syncs. All that the answers rest on is durable up to this version. Returns the segment's
    /// length and its records.
    pub fn finish(self, durable_version: u64) -> Result<(u64, Tally), CompactionError> {
        self.segment.finish(Some(durable_version))
    }
}

/// What is kept of a record; `fate` is `None` for a flush.
fn survivor<'a>(mutation: &Mutation<'a>, fate: Option<Fate>, keep_removals: bool) -> Option<Mutation<'a>> {
    match (*mutation, fate) {
        (Mutation::Put { .. }, Some(Fate::Live)) => Some(*mutation),
        (Mutation::Put { key, value }, Some(Fate::Absent)) => {
            (value.deadline != 0 && keep_removals).then_some(Mutation::Remove { key })
        }
        (Mutation::Remove { .. } | Mutation::Evict { .. }, Some(Fate::Absent)) | (Mutation::Flush { .. }, _) => {
            keep_removals.then_some(*mutation)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};

    #[test]
    fn what_is_kept_of_a_record() {
        let key = Key::bytes(b"k");
        let put = |deadline| Mutation::Put { key, value: Value { bytes: b"v", flags: 1, deadline } };
        let (remove, flush) = (Mutation::Remove { key }, Mutation::Flush { prefix: None });
        // What may be left of an expired value in an older segment must stay hidden.
        for (record, fate, with_removals, without) in [
            (put(0), Some(Fate::Live), Some(put(0)), Some(put(0))),
            (put(5), Some(Fate::Live), Some(put(5)), Some(put(5))),
            (put(0), Some(Fate::Superseded), None, None),
            (put(5), Some(Fate::Superseded), None, None),
            (put(0), Some(Fate::Absent), None, None),
            (put(5), Some(Fate::Absent), Some(remove), None),
            (remove, Some(Fate::Absent), Some(remove), None),
            (Mutation::Evict { key }, Some(Fate::Absent), Some(Mutation::Evict { key }), None),
            (remove, Some(Fate::Superseded), None, None),
            (remove, Some(Fate::Live), None, None),
            (flush, None, Some(flush), None),
        ] {
            assert_eq!(survivor(&record, fate, true), with_removals, "{record:?}, {fate:?}");
            assert_eq!(survivor(&record, fate, false), without, "{record:?}, {fate:?}");
        }
    }
}
