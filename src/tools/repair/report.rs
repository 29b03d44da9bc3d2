//! What a repair would do or has done, and what is lost, in words for people and as JSON for programs.

use super::Policy;
use super::lost::Loss;
use super::plan::Plan;
use crate::log::salvage::{Lost, OwnedKey};
use crate::mutation::Space;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{self, Write};

/// The version of the JSON object; it changes when a name in it changes its meaning.
const SCHEMA: u32 = 1;
/// Keys that are named to people.
const NAMED: usize = 20;

/// What a repair comes to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Segments that are sound.
    pub sound: usize,
    /// Each segment that is replaced: its file, why, and how many records are kept of it.
    pub replaced: Vec<(String, String, u64)>,
    /// The journal that is begun, if one has to be.
    pub journal: Option<String>,
    /// What is lost.
    pub losses: Vec<Loss>,
    /// Keys whose values may be stale, since a later change of theirs may be among what is lost.
    pub suspects: Vec<OwnedKey>,
    /// What becomes of them.
    pub policy: Policy,
    /// The names under which damaged files are kept, if it was done and not only told.
    pub written: Option<Vec<String>>,
}

impl Report {
    pub(super) fn of(plan: &Plan, suspects: Vec<OwnedKey>, policy: Policy) -> Report {
        Report {
            sound: plan.sound,
            replaced: plan.patches.iter().map(|patch| (patch.name(), patch.why.clone(), patch.records)).collect(),
            journal: plan.journal.map(|header| crate::log::segment::file_name(header.number)),
            losses: plan.losses.iter().filter(|loss| !loss.is_harmless()).cloned().collect(),
            suspects,
            policy,
            written: None,
        }
    }

    /// Whether there is nothing to repair.
    pub fn is_sound(&self) -> bool {
        self.replaced.is_empty() && self.journal.is_none()
    }

    /// Writes sentences.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if self.is_sound() {
            return writeln!(out, "{} segments, none damaged: nothing to repair", self.sound);
        }
        let done = self.written.is_some();
        for (file, why, records) in &self.replaced {
            let verb = if done { "was" } else { "would be" };
            writeln!(out, "{file} {verb} replaced: {why}. {records} records of it are kept")?;
        }
        if let Some(journal) = &self.journal {
            writeln!(out, "{journal} {} begun, for what comes next", if done { "was" } else { "would be" })?;
        }
        for loss in &self.losses {
            let place = loss.bytes.map_or(String::new(), |(from, to)| format!(", bytes {from} to {to}"));
            let versions = match loss.end_version {
                Some(end) if end <= loss.first_version => "no version".to_owned(),
                Some(end) => format!("versions {} to {}", loss.first_version, end - 1),
                None => format!("versions from {} on", loss.first_version),
            };
            writeln!(out, "lost: {}{place}: {versions}, as far as there were such changes", loss.file)?;
            for lost in &loss.given_up {
                writeln!(out, "  given up, since its group is not whole: version {} of {}", lost.version, named(lost))?;
            }
        }
        if self.losses.is_empty() {
            writeln!(out, "no change of the store is lost")?;
        }
        if !self.suspects.is_empty() {
            let (count, fate) = (
                self.suspects.len(),
                match (self.policy, done) {
                    (Policy::KeepStale, _) => "they keep the newest value that is left (--policy keep-stale)",
                    (Policy::DropSuspects, true) => "they were removed (--policy drop-suspects)",
                    (Policy::DropSuspects, false) => "they would be removed (--policy drop-suspects)",
                },
            );
            writeln!(
                out,
                "{count} keys may be stale, since a later change of theirs may be among what is lost; {fate}:"
            )?;
            for (space, key) in self.suspects.iter().take(NAMED) {
                writeln!(out, "  {}", spelled(*space, key))?;
            }
            if count > NAMED {
                writeln!(out, "  and {} more: --json names all", count - NAMED)?;
            }
        }
        match &self.written {
            None => {
                writeln!(out, "nothing was changed: --write does it, and keeps the damaged files under other names")
            }
            Some(kept) if kept.is_empty() => writeln!(out, "repaired"),
            Some(kept) => writeln!(out, "repaired; the damaged files are kept as {}", kept.join(", ")),
        }
    }

    /// Writes one JSON object.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let replaced = self
            .replaced
            .iter()
            .map(|(file, why, records)| json!({ "file": file, "why": why, "records_kept": records }));
        let losses = self.losses.iter().map(|loss| {
            json!({
                "file": loss.file,
                "from": loss.bytes.map(|(from, _)| from),
                "to": loss.bytes.map(|(_, to)| to),
                "first_version": loss.first_version,
                "end_version": loss.end_version,
                "given_up": loss.given_up.iter().map(|lost| {
                    json!({ "version": lost.version, "key": lost.key.as_ref().map(|(space, key)| object(*space, key)) })
                }).collect::<Vec<_>>(),
            })
        });
        let report = json!({
            "schema": SCHEMA,
            "sound": self.sound,
            "replaced": replaced.collect::<Vec<_>>(),
            "journal": self.journal,
            "losses": losses.collect::<Vec<_>>(),
            "suspects": self.suspects.iter().map(|(space, key)| object(*space, key)).collect::<Vec<_>>(),
            "policy": match self.policy { Policy::KeepStale => "keep-stale", Policy::DropSuspects => "drop-suspects" },
            "written": self.written.is_some(),
            "kept": self.written,
        });
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)
    }
}

fn named(lost: &Lost) -> String {
    lost.key.as_ref().map_or("a flush".to_owned(), |(space, key)| spelled(*space, key))
}

fn spelled(space: Space, key: &[u8]) -> String {
    let prefix = if space == Space::Python { "python:" } else { "" };
    format!("{prefix}{}", key.escape_ascii())
}

/// A key as `kvd dump` tells it.
fn object(space: Space, key: &[u8]) -> Value {
    match (space, str::from_utf8(key)) {
        (Space::Bytes, Ok(text)) => json!({ "key": text }),
        (Space::Bytes, Err(_)) => json!({ "key_base64": STANDARD.encode(key) }),
        (Space::Python, _) => json!({ "space": "python", "key_base64": STANDARD.encode(key) }),
    }
}
