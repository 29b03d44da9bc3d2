//! The whole store on a disk that fails: commands, commits, compaction, crashes at any operation and clocks in any order,
//! chosen by the input.
//!
//! After every start the rows are those of one batch, none before the last one that was synced: see `store_steps` and
//! `store_judge`, which the tests share. Whatever the log replays to is what the table held.
#![no_main]

use arbitrary::{Arbitrary as _, Result, Unstructured};
use kvd::log::fs::Crash;
use kvd::log::victims::Appetite;
use libfuzzer_sys::fuzz_target;
use store_steps::{Act, HOUR, Restart, SIZES, Step, run};

#[path = "../../tests/it/store_judge.rs"]
mod store_judge;
#[path = "../../tests/it/store_steps.rs"]
mod store_steps;
#[expect(dead_code, reason = "damage is the tests' affair")]
#[path = "../../tests/it/store_under_test.rs"]
mod store_under_test;

/// Most steps of one input: each start reads the whole log, so that more of them teach less a second.
const MOST_STEPS: usize = 100;

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < MOST_STEPS {
        let Ok(step) = step(&mut input) else { break };
        steps.push(step);
    }
    run(&steps);
});

fn step(input: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match input.int_in_range(0..=15_u8)? {
        0..=12 => Step::Do(act(input)?),
        13 | 14 => {
            let doomed = match input.int_in_range(0..=2_u8)? {
                0 => Act::Commit { synced: input.arbitrary()? },
                1 => compaction(input)?,
                _ => Act::Stop,
            };
            Step::Crash(input.int_in_range(0..=30)?, doomed, restart(input)?)
        }
        _ => Step::Stop(restart(input)?),
    })
}

fn act(input: &mut Unstructured<'_>) -> Result<Act> {
    Ok(match input.int_in_range(0..=15_u8)? {
        0..=6 => Act::Ask(line(input)?),
        7..=9 => Act::Commit { synced: input.arbitrary()? },
        10 | 11 => compaction(input)?,
        12 => Act::Wait(*input.choose(&[1, 50, 1_000, 7_000, 900_000])?),
        13 => Act::Expire,
        14 => {
            if input.arbitrary()? {
                Act::Sweep(*input.choose(&[1, 300, 5_000])?)
            } else {
                Act::Evict(input.int_in_range(1..=3)?)
            }
        }
        _ => Act::Room(if input.arbitrary()? { None } else { Some(input.int_in_range(0..=16_000)?) }),
    })
}

fn compaction(input: &mut Unstructured<'_>) -> Result<Act> {
    let appetite = *input.choose(&[None, Some(Appetite::Any), Some(Appetite::Quarter), Some(Appetite::Free)])?;
    let wide = input.arbitrary()?;
    let meanwhile = (0..input.int_in_range(0..=2)?).map(|_| Ok((line(input)?, bool::arbitrary(input)?)));
    Ok(Act::Compact { appetite, wide, meanwhile: meanwhile.collect::<Result<_>>()? })
}

fn restart(input: &mut Unstructured<'_>) -> Result<Restart> {
    Ok(Restart {
        crash: crash(input)?,
        cut_short: if input.arbitrary()? { Some((input.int_in_range(0..=10)?, crash(input)?)) } else { None },
        segment_size: *input.choose(&SIZES)?,
        step: if input.arbitrary()? { input.int_in_range(-HOUR..=HOUR)? } else { 0 },
    })
}

fn crash(input: &mut Unstructured<'_>) -> Result<Crash> {
    Ok(match input.int_in_range(0..=3_u8)? {
        0 => Crash::LoseAll,
        1 => Crash::KeepAll,
        _ => Crash::Random(input.arbitrary()?),
    })
}

/// A command in words, `x*3` is `xxx`.
fn line(input: &mut Unstructured<'_>) -> Result<String> {
    let ttl = |input: &mut Unstructured<'_>| input.choose(&[3_u64, 40, 700, 6_000, 600_000, 5_000_000]).copied();
    Ok(match input.int_in_range(0..=19_u8)? {
        0..=7 => {
            let (key, value) = (key(input)?, value(input)?);
            let expiry = if input.arbitrary()? { format!(" TTL {}", ttl(input)?) } else { String::new() };
            let condition = match input.int_in_range(0..=5_u8)? {
                0 => " NX".to_owned(),
                1 => format!(" IF {}", input.int_in_range(1..=40_u64)?),
                _ => String::new(),
            };
            format!("SET {key} {value}{expiry}{condition}")
        }
        8 | 9 => format!("DEL {} {}", key(input)?, key(input)?),
        10 => format!("GETDEL {}", key(input)?),
        11 => format!("INCR {} 1", key(input)?),
        12 => format!("APPEND {} {}", key(input)?, value(input)?),
        13 => format!("MSET {} {} {} {}", key(input)?, value(input)?, key(input)?, value(input)?),
        14 => format!("TOUCH {} {}", key(input)?, ttl(input)?),
        15 => format!("GETEX {} TTL {}", key(input)?, ttl(input)?),
        16 => format!("DELIF {} {}", key(input)?, input.int_in_range(1..=40_u64)?),
        17 => format!("INCR {} 1 {}", key(input)?, input.choose(&["XX", "INIT -5", "FLAGS 3 TTL 700"])?),
        18 => {
            let (one, other) = (key(input)?, key(input)?);
            format!("MSETS TTL {} KEYS {one} {} 1 {other} {} 0", ttl(input)?, value(input)?, value(input)?)
        }
        _ => (*input.choose(&["FLUSH", "FLUSH PREFIX a", "FLUSH PREFIX ab", "FLUSH PREFIX b1"])?).to_owned(),
    })
}

fn key(input: &mut Unstructured<'_>) -> Result<String> {
    Ok(format!("{}{}", input.choose(&["a", "ab", "b"])?, input.int_in_range(0..=3_u8)?))
}

fn value(input: &mut Unstructured<'_>) -> Result<String> {
    Ok(if input.ratio(4, 5)? {
        format!("{}*{}", input.choose(&["x", "y", "z"])?, input.int_in_range(100..=1500_usize)?)
    } else {
        input.int_in_range(0..=99_u8)?.to_string()
    })
}
