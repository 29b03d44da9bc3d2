//! The whole store without threads and sockets, on a disk that fails: engine, log, accounts and compaction together,
//! against a model that is told each mutation and keeps the rows as of each batch.
//!
//! Commands fill batches; batches are committed, synced or not; segments are compacted while that goes on; time passes, and
//! is stepped between two runs; the disk fills up; the power goes at any operation, and what was not synced is kept in any
//! part. After each of these a start must find the rows as of one batch, which the log itself names by its next version:
//! none before the last one that was synced, and after a kill the last one that was committed.
//!
//! The model needs to know nothing of commands: `engine_model` holds those. Nor does it expire anything, since the record of
//! a value tells when it ends: a row may be missing once its deadline came, must be missing while it is past, and nothing
//! older may stand in its place.
//!
//! `KVD_MODEL_CASES` sets the number of cases.

use crate::store_steps::{Act, HOUR, Restart, SIZES, Step, run};
use kvd::log::fs::Crash;
use kvd::log::victims::Appetite;
use proptest::prelude::*;

fn line() -> impl Strategy<Value = String> {
    let key = || (prop::sample::select(vec!["a", "ab", "b"]), 0..4_u8).prop_map(|(group, n)| format!("{group}{n}"));
    let value = || {
        let large =
            (prop::sample::select(vec!["x", "y", "z"]), 100..1500_usize).prop_map(|(text, n)| format!("{text}*{n}"));
        prop_oneof![4 => large, 1 => (0..99_u8).prop_map(|number| number.to_string())]
    };
    let ttl = || prop::sample::select(vec![3_u64, 40, 700, 6_000, 600_000, 5_000_000]);
    let option = prop_oneof![2 => Just(String::new()), 1 => ttl().prop_map(|ttl| format!(" TTL {ttl}"))];
    let condition = prop_oneof![
        4 => Just(String::new()),
        1 => Just(" NX".into()),
        1 => (1..40_u64).prop_map(|v| format!(" IF {v}"))
    ];
    prop_oneof![
        16 => (key(), value(), option, condition).prop_map(|(k, v, o, c)| format!("SET {k} {v}{o}{c}")),
        4 => (key(), key()).prop_map(|(k, l)| format!("DEL {k} {l}")),
        1 => key().prop_map(|k| format!("GETDEL {k}")),
        2 => key().prop_map(|k| format!("GET {k}")),
        1 => key().prop_map(|k| format!("INCR {k} 1")),
        1 => (key(), value()).prop_map(|(k, v)| format!("APPEND {k} {v}")),
        2 => (key(), value(), key(), value()).prop_map(|(k, v, l, w)| format!("MSET {k} {v} {l} {w}")),
        2 => (key(), ttl()).prop_map(|(k, t)| format!("TOUCH {k} {t}")),
        1 => prop::sample::select(vec!["FLUSH", "FLUSH PREFIX a", "FLUSH PREFIX ab", "FLUSH PREFIX b1"])
            .prop_map(Into::into),
    ]
}

fn commit() -> impl Strategy<Value = Act> {
    any::<bool>().prop_map(|synced| Act::Commit { synced })
}

fn compact() -> impl Strategy<Value = Act> {
    let appetite = prop_oneof![
        2 => Just(None),
        2 => Just(Some(Appetite::Any)),
        1 => Just(Some(Appetite::Quarter)),
        1 => Just(Some(Appetite::Free)),
    ];
    let meanwhile = prop::collection::vec((line(), any::<bool>()), 0..3);
    (appetite, any::<bool>(), meanwhile).prop_map(|(appetite, wide, meanwhile)| Act::Compact {
        appetite,
        wide,
        meanwhile,
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => line().prop_map(Act::Ask),
        14 => commit(),
        6 => compact(),
        2 => prop::sample::select(vec![1_u64, 50, 1_000, 7_000, 900_000]).prop_map(Act::Wait),
        1 => Just(Act::Expire),
        1 => prop::sample::select(vec![1_usize, 300, 5_000]).prop_map(Act::Sweep),
        1 => (1..3_usize).prop_map(Act::Evict),
        1 => prop_oneof![Just(None), (0..16_000_usize).prop_map(Some)].prop_map(Act::Room),
    ]
}

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![
        1 => Just(Crash::LoseAll),
        1 => Just(Crash::KeepAll),
        2 => any::<u64>().prop_map(Crash::Random),
    ]
}

fn restart() -> impl Strategy<Value = Restart> {
    let cut_short = prop::option::weighted(0.3, (0..8_u64, crash()));
    let segment_size = prop_oneof![2 => Just(SIZES[0]), 1 => prop::sample::select(SIZES.to_vec())];
    let step = prop_oneof![1 => Just(0), 1 => -HOUR..HOUR];
    (crash(), cut_short, segment_size, step).prop_map(|(crash, cut_short, segment_size, step)| Restart {
        crash,
        cut_short,
        segment_size,
        step,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let doomed = prop_oneof![4 => commit(), 3 => compact(), 1 => Just(Act::Stop)];
    let step = prop_oneof![
        45 => act().prop_map(Step::Do),
        3 => (0..24_u64, doomed, restart()).prop_map(|(at, act, restart)| Step::Crash(at, act, restart)),
        1 => restart().prop_map(Step::Stop),
    ];
    prop::collection::vec(step, 1..140)
}

fn cases() -> u32 {
    std::env::var("KVD_MODEL_CASES").map_or(1_000, |cases| cases.parse().expect("KVD_MODEL_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_start_finds_the_rows_of_one_batch(steps in steps()) {
        run(&steps);
    }
}
