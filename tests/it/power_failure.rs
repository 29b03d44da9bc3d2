//! The power fails, over and over, while many peers write: what was acknowledged is there when it is back, whatever
//! became of what was not synced. So it is where a sync has failed or the disk was full before.
//!
//! The real daemon runs on the disk of [`crate::power`], which is cut off at a random moment or at a random change, in the
//! middle of a sync too, and with it the daemon.
//!
//! `KVD_POWER_FAILURES` sets the number of power failures, `KVD_SEED` repeats a run's choices (not the scheduler's).

use crate::check::check;
use crate::daemon::{Daemon, Launch, PATIENCE, eventually};
use crate::faults::{assert_as_told, fill, write_until_it_ends};
use crate::oracle::{Verdict, show};
use crate::power::{Disk, Mount, Unsynced};
use crate::random::{Random, seed};
use crate::workload::{Oracle, Replies};
use crate::zmtp::Peer;
use rustix::process::{Pid, Signal};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// A disk, and a directory by which kvd reaches it.
struct Machine {
    disk: Disk,
    mount: Mount,
    /// Small ones are rotated and compacted all the time, large ones leave time to fail in the middle of a batch.
    segment_size: &'static str,
}

impl Machine {
    /// With an empty disk; none where that can't be mounted.
    fn new() -> Option<Machine> {
        Machine::on(Disk::default(), "64KiB")
    }

    fn on(disk: Disk, segment_size: &'static str) -> Option<Machine> {
        Some(Machine { mount: Mount::of(&disk)?, disk, segment_size })
    }

    fn spawn(&self) -> Daemon {
        let daemon = Launch::on(self.mount.path()).segment_size(self.segment_size).spawn();
        self.disk.powers(Pid::from_raw(daemon.number().cast_signed()).expect("a process"));
        daemon
    }

    fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.wait_ready();
        daemon
    }

    /// The same machine when the power is back. Its daemon has ended.
    fn after_power_failure(self, unsynced: Unsynced) -> Machine {
        let disk = self.disk.power_off(unsynced);
        // The old mount goes first: there is one machine.
        drop(self.mount);
        Machine::on(disk, self.segment_size).expect("it was mounted before")
    }

    /// The power fails while kvd starts, or right after that.
    fn fail_in_a_start(self, random: &mut Random) -> Machine {
        let mut daemon = self.spawn();
        self.disk.cut_power_after(random.below(12));
        daemon.comes_up();
        self.disk.cut_power();
        daemon.kill();
        self.after_power_failure(some_fate(random))
    }
}

fn some_fate(random: &mut Random) -> Unsynced {
    match random.below(8) {
        0 => Unsynced::Lost,
        1 => Unsynced::Kept,
        _ => Unsynced::Torn(random.next()),
    }
}

/// What a run has seen, to be told in the end.
#[derive(Debug, Default)]
struct Tally {
    failures: usize,
    in_a_start: usize,
    replies: usize,
    /// Failures that found something unsynced.
    with_unsynced: usize,
    torn_tails: usize,
    compactions: u64,
}

/// Lets the power fail at a moment like any other: under load, or in a stop.
fn end_by_power_failure(disk: &Disk, daemon: Daemon, replies: &mut Replies, random: &mut Random, tally: &mut Tally) {
    replies.wait_for(1 + random.below(400));
    let client = daemon.client();
    tally.compactions += client.figure("compactions");
    assert_eq!(client.figure("compactions_given_up"), 0, "{}", daemon.stderr());
    if random.one_in(8) {
        disk.cut_power_after(random.below(6));
        daemon.signal(Signal::TERM);
        drop(daemon.wait());
    } else if random.one_in(3) {
        let moment = Instant::now() + Duration::from_micros(random.below(3_000) as u64);
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        disk.cut_power();
        daemon.kill();
    } else {
        disk.cut_power_after(random.below(300));
        // It has ended once no peer has anything to read any more.
        replies.wait_for(usize::MAX);
        disk.cut_power();
        daemon.kill();
    }
}

/// Starts the daemon, and has what it recovered judged.
fn start_and_judge(machine: &Machine, oracle: &mut Oracle) -> Verdict<Daemon> {
    let daemon = machine.start();
    oracle.judge(&daemon)?;
    Ok(daemon)
}

#[test]
fn power_failures_lose_nothing_that_was_acknowledged() {
    let failures = std::env::var("KVD_POWER_FAILURES").map_or(30, |text| text.parse().expect("a number"));
    let seed = seed();
    let mut random = Random::seeded(seed);
    let Some(mut machine) = Machine::new() else { return };
    let mut oracle = Oracle::new();
    let mut tally = Tally::default();
    while tally.failures < failures {
        let again = format!("after {tally:?}; to have this run again: KVD_SEED={seed}");
        tally.failures += 1;
        if random.one_in(5) {
            tally.in_a_start += 1;
            machine = machine.fail_in_a_start(&mut random);
            continue;
        }
        machine.segment_size = ["64KiB", "1MiB"][random.below(2)];
        let daemon = start_and_judge(&machine, &mut oracle);
        let daemon = daemon.unwrap_or_else(|wrong| panic!("{wrong}\n{again}"));
        let (mut choices, life) = (random.split(), tally.failures);
        let end = |daemon, replies: &mut Replies| {
            end_by_power_failure(&machine.disk, daemon, replies, &mut choices, &mut tally);
        };
        let replies = oracle.live(daemon, life, &mut random, end);
        tally.replies += replies.unwrap_or_else(|wrong| panic!("{wrong}\n{again}"));
        tally.with_unsynced += usize::from(machine.disk.unsynced() != (0, 0));
        machine = machine.after_power_failure(some_fate(&mut random));
        let (code, said) = check(machine.mount.path());
        assert!(matches!(code, Some(0 | 1)), "clean or a torn tail: {said}\n{again}");
        tally.torn_tails += usize::from(code == Some(1));
    }
    for _ in 0..2 {
        let daemon = start_and_judge(&machine, &mut oracle).unwrap_or_else(|wrong| panic!("{wrong}"));
        daemon.stop();
    }
    println!("nothing lost: {tally:?}");
    assert!(tally.compactions > 0 && tally.with_unsynced > 0, "a run that shows nothing: {tally:?}");
}

/// A value of a kilobyte, unlike that of any other key.
fn value_of(n: usize) -> Vec<u8> {
    let mut value = format!("{n}:").into_bytes();
    value.resize(1_000, b'.');
    value
}

/// Waits until there were so many compactions. False if the daemon ended before.
fn are_compacted(peer: &mut Peer, compactions: u64) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Ok(stats) = peer.call(&["STATS"]) else { return false };
        let figure = |name: &str| {
            let at = stats.iter().position(|word| word == name.as_bytes()).expect("a figure");
            String::from_utf8_lossy(&stats[at + 1]).parse::<u64>().expect("a number")
        };
        if figure("compacting") == 0 && figure("compactions") >= compactions {
            return true;
        }
    }
    panic!("a compaction that does not end")
}

#[test]
fn a_power_failure_at_any_change_of_a_compaction_changes_nothing() {
    const KEYS: usize = 300;
    let is_kept = |n: usize| n.is_multiple_of(50);
    let seed = seed();
    let mut random = Random::seeded(seed);
    let mut states = 0;
    for changes in 0.. {
        let Some(machine) = Machine::new() else { return };
        let daemon = machine.start();
        let client = daemon.dealer();
        // One by one: batches would have segments to themselves.
        (0..KEYS).for_each(|n| assert_eq!(client.call(&[b"SET", format!("k{n}").as_bytes(), &value_of(n)])[0], b"OK"));
        // So little is left of each of five segments that neighbours become one.
        let mut peer = daemon.peer();
        machine.disk.cut_power_after(changes);
        let removed = (0..KEYS).filter(|n| !is_kept(*n)).map(|n| format!("k{n}"));
        let removal: Vec<_> = std::iter::once("DEL".to_owned()).chain(removed).collect();
        let is_removed = peer.call(&removal).is_ok();
        let is_over = is_removed && peer.call(&["COMPACT"]).is_ok() && are_compacted(&mut peer, 5);
        machine.disk.cut_power();
        daemon.kill();
        // Where several names are at stake, which of them survive matters most.
        let (_, names) = machine.disk.unsynced();
        for _ in 0..if names > 1 { 8 } else { 1 } {
            states += 1;
            let disk = machine.disk.power_off(some_fate(&mut random));
            let machine = Machine::on(disk, machine.segment_size).expect("another mount");
            let daemon = machine.start();
            let client = daemon.dealer();
            (0..KEYS).for_each(|n| client.send_words(&format!("GET k{n}")));
            for n in 0..KEYS {
                let reply = client.recv();
                let is_right = match reply[0].as_slice() {
                    b"OK" => reply[1] == value_of(n) && (is_kept(n) || !is_removed),
                    _ => reply[0] == b"MISS" && !is_kept(n),
                };
                assert!(is_right, "k{n}, after {changes} changes: {}; KVD_SEED={seed}", show(&reply));
            }
        }
        if is_over {
            println!("{changes} changes, {states} states of the disk");
            assert!(changes > 10, "a compaction of hardly anything: {changes} changes");
            break;
        }
    }
}

/// What is told of k0, k1, … up to the first that is not there.
fn values(daemon: &Daemon) -> Vec<String> {
    let client = daemon.client();
    let replies = (0..2_000).map(|n| client.say(&format!("GET k{n}")));
    replies.take_while(|reply| reply != "MISS").collect()
}

#[test]
fn after_a_failed_sync_and_a_power_failure_all_that_was_acknowledged_or_shown_is_there() {
    for (syncs, fate) in [(0, Unsynced::Lost), (1, Unsynced::Torn(1)), (40, Unsynced::Lost), (333, Unsynced::Kept)] {
        for starts_before in [false, true] {
            let Some(mut machine) = Machine::new() else { return };
            let daemon = machine.start();
            machine.disk.fail_sync_after(syncs);
            let acknowledged = write_until_it_ends(&daemon);
            let ended = daemon.wait();
            assert_eq!(ended.status.code(), Some(74), "sync {syncs}: {}", ended.stderr);
            let mut shown = Vec::new();
            if starts_before {
                // This start reads what the disk does not have, though all of it counts as clean.
                let daemon = machine.start();
                shown = values(&daemon);
                assert!(shown.len() > acknowledged, "the write whose sync failed reads back");
                machine.disk.cut_power();
                daemon.kill();
            }
            machine = machine.after_power_failure(fate);
            let found = values(&machine.start());
            assert!((acknowledged..=acknowledged + 1).contains(&found.len()), "{found:?} of {acknowledged}");
            assert!(found.starts_with(&shown), "what was shown is there, with the same versions");
            for (n, reply) in found.iter().enumerate() {
                assert!(reply.starts_with(&format!("OK v{n} ")), "k{n}: {reply}");
            }
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_byte_refuses_writes_and_nothing_else() {
    let mut random = Random::seeded(seed());
    let Some(mut machine) = Machine::new() else { return };
    for _ in 0..4 {
        let daemon = machine.start();
        let client = daemon.dealer();
        client.say("FLUSH");
        for n in 0..10 {
            assert!(client.say(&format!("SET keep:{n} {n}")).starts_with("OK "));
        }
        machine.disk.set_capacity(machine.disk.held() + 100_000 + random.below(300_000));
        let rounds = fill(&client);
        assert!(rounds.iter().any(|round| round.set), "nothing fits on this disk");
        assert!(client.say("GET keep:3").starts_with("OK 3 "));
        assert_as_told(&client, &rounds);
        assert_eq!(client.say("DEL keep:0 keep:1"), "OK 2");
        assert!(client.say("FLUSH PREFIX keep:9").starts_with("OK 1"));
        assert_eq!(client.say("EXISTS keep:0 keep:1 keep:2 keep:9"), "OK 1");

        machine.disk.set_capacity(usize::MAX);
        eventually("writes are accepted once there is room", || client.say("SET room again").starts_with("OK "));
        machine.disk.cut_power();
        daemon.kill();
        machine = machine.after_power_failure(some_fate(&mut random));
        let daemon = machine.start();
        let client = daemon.client();
        assert_as_told(&client, &rounds);
        assert_eq!(client.say("EXISTS keep:0 keep:1 keep:2 keep:9 room"), "OK 2");
    }
}

/// What became of a key, as far as its writer was told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    There,
    Absent,
    Nothing,
}

/// Pipelines writes, and removals of the oldest keys, until the daemon is gone, and calls `full` at each refusal. Returns
/// what it was told.
fn write_until_dark(peer: &mut Peer, mut full: impl FnMut()) -> BTreeMap<String, Told> {
    let value = vec![b'v'; 4000];
    let (mut told, mut stored) = (BTreeMap::new(), VecDeque::<String>::new());
    for window in 0..3_000 {
        let mut asked = Vec::new();
        for n in 0..6 {
            let key = format!("k{window}:{n}");
            peer.queue(&[b"SET", key.as_bytes(), &value]);
            asked.push((key, Told::Absent, Told::There));
        }
        for key in stored.drain(..stored.len().min(2)) {
            peer.queue(&["DEL", key.as_str()]);
            asked.push((key, Told::There, Told::Absent));
        }
        told.extend(asked.iter().map(|(key, ..)| (key.clone(), Told::Nothing)));
        if peer.flush().is_err() {
            return told;
        }
        for (key, before, after) in asked {
            let Ok(reply) = peer.recv() else { return told };
            let outcome = if reply[0] == b"OK" { after } else { before };
            if reply[0] != b"OK" {
                assert_eq!(reply[1], b"NOSPACE", "{}", show(&reply));
                full();
            }
            if outcome == Told::There {
                stored.push_back(key.clone());
            }
            told.insert(key, outcome);
        }
    }
    panic!("the power never fails")
}

#[test]
fn a_power_failure_on_a_full_disk_takes_nothing_acknowledged_and_brings_back_nothing_refused() {
    let seed = seed();
    let mut random = Random::seeded(seed);
    for _ in 0..10 {
        let Some(mut machine) = Machine::new() else { return };
        let daemon = machine.start();
        machine.disk.set_capacity(machine.disk.held() + 100_000 + random.below(300_000));
        let mut changes = Some(random.below(20));
        let told = write_until_dark(&mut daemon.peer(), || {
            if let Some(changes) = changes.take() {
                machine.disk.cut_power_after(changes);
            }
        });
        assert_eq!(changes, None, "the disk was never full");
        daemon.kill();
        machine = machine.after_power_failure(some_fate(&mut random));
        // Still full, but for the torn tail that a start sets aside: removals may have used the reserve up.
        machine.disk.set_capacity(machine.disk.held() + 65_536);
        let daemon = machine.start();
        let client = daemon.client();
        for (key, told) in &told {
            let is_there = client.say(&format!("EXISTS {key}")) == "OK 1";
            let fits = *told == Told::Nothing || is_there == (*told == Told::There);
            assert!(fits, "{key} was told {told:?}, is there: {is_there}; KVD_SEED={seed}");
        }
        assert!(client.say("FLUSH").starts_with("OK "), "a full disk can be emptied");
        machine.disk.set_capacity(usize::MAX);
        eventually("writes are accepted once there is room", || client.say("SET k v").starts_with("OK "));
    }
}
