//! The parts that a run is made of, and which of them were asked for.

use clap::Args;

/// A part of a run, with a heading of its own in what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Throughput and latency.
    Loads,
    /// The same with values of other sizes.
    Sizes,
    /// The same with packed messages.
    Packed,
    /// Latency below saturation.
    Half,
    /// GETs beside writers.
    Reads,
    /// Starts on nothing.
    Start,
    /// Rates by the number of keys.
    Scale,
    /// Starts on a full log.
    Replay,
    /// Ill-behaved clients.
    Memory,
    /// Hits of caches.
    HitRatio,
    /// Latency beside compaction.
    Compaction,
    /// The longest waits.
    Pauses,
    /// Ordinary peers beside ill-behaved clients.
    Abuse,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Sections {
    /// Throughput and latency under the loads (this is what runs if nothing is named)
    #[arg(long)]
    loads: bool,
    /// The same with values of 16 B to 1 MiB, and what the disk and loopback can do at all
    #[arg(long)]
    sizes: bool,
    /// The same with many commands a message, beside Redis's pipelines
    #[arg(long)]
    packed: bool,
    /// Latency at half of what the slowest server reaches, open loop
    #[arg(long)]
    half: bool,
    /// How long a start takes on an empty directory
    #[arg(long)]
    start: bool,
    /// Rates and cost of a command with 10,000 to 20 million keys
    #[arg(long)]
    scale: bool,
    /// How long GETs take while others write
    #[arg(long)]
    reads: bool,
    /// How long a start takes on a full log
    #[arg(long)]
    replay: bool,
    /// What ill-behaved clients cost in memory
    #[arg(long)]
    memory: bool,
    /// How often caches of equal memory hold what they are asked for
    #[arg(long)]
    hit_ratio: bool,
    /// Latency of a steady load while the log is compacted
    #[arg(long)]
    compaction: bool,
    /// The longest waits of a steady reader while millions of keys come, expire and are flushed
    #[arg(long)]
    pauses: bool,
    /// How long ordinary peers wait while others break the rules, and what that costs in memory
    #[arg(long)]
    abuse: bool,
}

impl Sections {
    /// Those asked for, in the order in which they run; all of them if `all`.
    pub fn chosen(self, all: bool) -> Vec<Section> {
        let asked = [
            (self.loads, Section::Loads),
            (self.sizes, Section::Sizes),
            (self.packed, Section::Packed),
            (self.half, Section::Half),
            (self.reads, Section::Reads),
            (self.start, Section::Start),
            (self.scale, Section::Scale),
            (self.replay, Section::Replay),
            (self.memory, Section::Memory),
            (self.hit_ratio, Section::HitRatio),
            (self.compaction, Section::Compaction),
            (self.pauses, Section::Pauses),
            (self.abuse, Section::Abuse),
        ];
        let mut chosen: Vec<_> = asked.into_iter().filter(|(asked, _)| all || *asked).map(|(_, part)| part).collect();
        if chosen.is_empty() {
            chosen.push(Section::Loads);
        }
        chosen
    }
}
