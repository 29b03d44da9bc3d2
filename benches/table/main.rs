//! The table alone, without a server: memory a key, and the longest that anybody is kept waiting by it.
//!
//! `cargo bench --bench table` runs all parts, `cargo bench --bench table -- growth` one. Each part runs in a process of
//! its own, since an allocator does not forget the part before. Times are told twice: as the clock saw them, and
//! as this thread was charged for them, which leaves out what other programs on the machine took.

#![allow(clippy::cast_precision_loss)]

#[path = "../cargo_bench/mod.rs"]
mod cargo_bench;

use kvd::mutation::{Key, Value};
use kvd::table::{Entry, Table};
use rustix::time::{ClockId, clock_gettime};
use std::process::Command;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MILLION: u64 = 1_000_000;
const VALUE: [u8; 100] = [7; 100];
/// Slots that a step of a sweep looks at, as in the server.
const EFFORT: usize = 64;

type Part = (&'static str, fn());
const PARTS: [Part; 5] =
    [("memory", memory), ("growth", growth), ("flush", flush), ("expiry", expiry), ("probe", probe)];

fn main() {
    if !cargo_bench::runs_this("table") {
        return;
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let parts = PARTS.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|asked| asked == name));
    let parts: Vec<&Part> = parts.collect();
    if let [(_, part)] = parts[..] {
        kvd::table::avoid_pauses();
        return part();
    }
    for (name, _) in parts {
        let this = std::env::current_exe().expect("this program");
        assert!(
            Command::new(this).args([name, "--bench"]).status().expect("this program runs").success(),
            "{name} failed"
        );
    }
}

/// What a key of 16 bytes with a value of 100 takes beyond these, as the kernel and as the table count it.
fn memory() {
    let before = resident();
    let mut table = Table::new(7);
    for keys in [1, 2, 5, 10].map(|millions| millions * MILLION) {
        let held = table.len() as u64;
        fill(&mut table, held..keys, 0);
        let beyond = |bytes: usize| bytes as f64 / keys as f64 - 116.0;
        println!(
            "memory   {keys:>9} keys: {:.1} B a key beyond key and value resident, {:.1} B by the table's own count",
            beyond(resident() - before),
            beyond(table.memory()),
        );
    }
}

/// The longest put on the way to ten million keys.
fn growth() {
    let mut table = Table::new(7);
    let mut puts = Longest::default();
    // A warm-up: the first touch of memory that the host has yet to find is the host's pause.
    fill(&mut table, 0..10 * MILLION, 0);
    table.begin_flush(None, 10 * MILLION);
    while table.sweep(EFFORT, &mut |_, _| ()).is_none() {}
    let began = Instant::now();
    for number in 0..10 * MILLION {
        puts.time(|| put(&mut table, number, 0));
    }
    println!("growth   10 million keys in {:.1} s; longest put {puts}", began.elapsed().as_secs_f64());
}

/// The longest step of the sweep after a flush of everything, and after one of a prefix that is every other key.
fn flush() {
    for (what, prefix) in [("all", None), ("every second key", Some(&b"even"[..]))] {
        let mut table = Table::new(7);
        fill(&mut table, 0..5 * MILLION, 0);
        let full = resident();
        let mut steps = Longest::default();
        let began = Instant::now();
        steps.time(|| table.begin_flush(prefix, 5 * MILLION));
        let mut removed = 0;
        while table.sweeping().is_some() {
            let swept = steps.time(|| table.sweep(EFFORT, &mut |_, _| ()));
            removed += swept.map_or(0, |swept| swept.removed);
        }
        let took = began.elapsed().as_millis();
        println!(
            "flush    {what} of 5 million keys: {removed} swept in {took} ms; longest step {steps}; resident {} MB, {} MB before",
            resident() >> 20,
            full >> 20
        );
    }
}

/// The longest step of removing five million keys that expire at once; and of looking for what has expired where nothing
/// has, which is what keys with deadlines cost from then on.
fn expiry() {
    let mut table = Table::new(7);
    fill(&mut table, 0..5 * MILLION, 1_000_000);
    let probe = table.probe(Key::bytes(b"soon"));
    for (what, now) in [("none of", 999_999), ("all of", 1_000_000 + 10_000)] {
        if now < 1_000_000 {
            // One key a shard, more or less, that is due, so that every shard is looked through.
            for number in 0..20_000_u64 {
                let bytes = number.to_le_bytes();
                let probe = table.probe(Key::bytes(&bytes));
                table.put(probe.hash, entry(number, probe.key, 1), &mut |_, _| ());
            }
        }
        let mut steps = Longest::default();
        let before = table.len();
        let began = Instant::now();
        while steps.time(|| table.expire(now, EFFORT, &mut |_, _| ())) {}
        let took = began.elapsed().as_millis();
        println!("expiry   {what} 5 million keys: {} removed in {took} ms; longest step {steps}", before - table.len());
    }
    assert!(table.get(probe).is_none() && table.is_empty());
}

/// What it takes to hash a key, by its length: the part of a GET, a SET and a record of a replay that a keyed hash makes dearer.
fn probe() {
    let table = Table::new(7);
    for length in [8, 16, 32, 64, 250, 65_536] {
        let mut key = vec![b'k'; length];
        let rounds = 64 * MILLION / (length as u64 + 16);
        let (mut seen, began) = (0, charged_time());
        for round in 0..rounds {
            key[..8].copy_from_slice(&round.to_le_bytes());
            seen ^= table.probe(Key::bytes(std::hint::black_box(&key))).hash;
        }
        std::hint::black_box(seen);
        let took = charged_time().saturating_sub(began).as_secs_f64() * 1e9 / rounds as f64;
        println!("probe    a key of {length:>5} B: {took:.1} ns");
    }
}

fn fill(table: &mut Table, numbers: std::ops::Range<u64>, deadline: u64) {
    numbers.for_each(|number| put(table, number, deadline));
}

fn put(table: &mut Table, number: u64, deadline: u64) {
    let mut key = *b"even000000000000";
    key[..4].copy_from_slice(if number.is_multiple_of(2) { b"even" } else { b"odd:" });
    key[8..].copy_from_slice(&number.to_be_bytes());
    let probe = table.probe(Key::bytes(&key));
    table.put(probe.hash, entry(number, probe.key, deadline), &mut |_, _| ());
}

fn entry(version: u64, key: Key<'_>, deadline: u64) -> Entry {
    Entry::new(version, key, &Value { bytes: &VALUE, flags: 0, deadline })
}

/// The longest of many.
#[derive(Default)]
struct Longest {
    wall: Duration,
    charged: Duration,
    /// How many were charged more than a millisecond.
    above: u32,
}

impl Longest {
    fn time<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (began, charged) = (Instant::now(), charged_time());
        let result = work();
        let charged = charged_time().saturating_sub(charged);
        self.above += u32::from(charged > Duration::from_millis(1));
        self.charged = self.charged.max(charged);
        self.wall = self.wall.max(began.elapsed());
        result
    }
}

impl std::fmt::Display for Longest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.2} ms ({:.2} ms charged, {} above 1 ms)",
            self.wall.as_secs_f64() * 1e3,
            self.charged.as_secs_f64() * 1e3,
            self.above
        )
    }
}

fn charged_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("the kernel tells");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * rustix::param::page_size()
}
