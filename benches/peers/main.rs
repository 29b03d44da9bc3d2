//! kvd beside Redis, memcached and a bare ROUTER of libzmq: throughput, latency, time to start, memory, hits.
//!
//! `cargo bench --bench peers -- --help` lists what it can do; `docs/benchmarks.md` says what the tables mean.
//!
//! ```text
//!   options --> sections: compare, reads, pauses, replay, …        what is measured, and in which order
//!                  |                                 |
//!            cache, server              load, trace, lookaside      the process measured; what it is asked
//!                  |                                 |
//!               process                 kvd::tools::bench           /proc and signals; the load generator
//!                                                    |
//!                                            resp, memcached        what other servers speak
//! ```
//!
//! The load generator is that of `kvd bench`.

#![allow(clippy::cast_precision_loss, reason = "counts become rates that are shown in three digits")]

mod abuse;
mod abusers;
mod abuses;
mod bandwidth;
mod bare;
mod cache;
mod compaction;
mod compare;
mod half;
mod hits;
mod load;
mod lookaside;
mod machine;
mod memcached;
mod memory;
mod options;
mod pauses;
mod process;
mod reads;
mod replay;
mod resp;
mod results;
mod scale;
mod sections;
mod server;
mod start;
mod stats;
mod table;
mod trace;

use clap::Parser;
use compare::Contest;
use machine::Clock;
use options::Options;
use results::Results;
use sections::Section;
use server::Kind;
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // `cargo nextest` asks every test program for its tests before anything else; there are none here.
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some("--list") => Ok(()),
        Some(server::SERVE_BARE) => bare::serve(),
        _ => run(&Options::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    if !options.wanted() {
        println!("run it with: cargo bench --bench peers");
        return Ok(());
    }
    process::end_together()?;
    let mut servers = options.servers();
    if options.smoke() {
        servers.retain(|server| options.programs().has(*server));
    }
    // On the disk of the build, not on a tmpfs, where a sync costs nothing.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let clock = Clock::now()?;
    let mut results = Results::default();
    for section in options.sections() {
        match section {
            Section::Loads | Section::Sizes | Section::Packed => {
                compare::run(options, &contest(options, section, &servers), scratch, &mut results)?;
                if section == Section::Sizes {
                    bandwidth::run(options, scratch, &mut results)?;
                }
            }
            Section::Half => half::run(options, &servers, scratch, &mut results)?,
            Section::Start => start::run(options, &servers, scratch, &mut results)?,
            Section::Scale => scale::run(options, &servers, scratch, &mut results)?,
            Section::Reads => reads::run(options, &servers, scratch)?,
            Section::Replay => replay::run(options, &servers, scratch)?,
            Section::Memory => memory::run(options, &servers, scratch)?,
            Section::HitRatio => hits::run(options, &options.caches(), scratch)?,
            Section::Compaction => compaction::run(options, &servers, scratch)?,
            Section::Abuse => abuse::run(options, &servers, scratch, &mut results)?,
            Section::Pauses => pauses::run(options, &servers, scratch, &mut results)?,
        }
    }
    if let Some(file) = options.results() {
        results.write(file)?;
    }
    println!("\nThe hypervisor gave {:.1}% of the processor time to others meanwhile.", clock.stolen_since()?);
    Ok(())
}

/// Servers beside each other, as this section wants it.
fn contest(options: &Options, section: Section, servers: &[Kind]) -> Contest<'static> {
    let (heading, section, loads) = match section {
        Section::Sizes => ("Values of other sizes", "sizes", Options::sizes()),
        Section::Packed => ("Packed messages and pipelines", "packed", Options::packed()),
        _ => ("Loads", "loads", options.loads()),
    };
    // The bare ROUTER holds no values and reads no packed messages.
    let kinds = servers.iter().copied().filter(|kind| section == "loads" || *kind != Kind::Bare).collect();
    Contest { heading, section, loads, kinds }
}
