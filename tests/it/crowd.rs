//! Many peers and greedy ones: ten thousand connections, identities that are claimed twice, a peer that sends faster than the
//! disk writes. What they cost is bounded in memory, and everybody else is answered meanwhile.

use crate::daemon::{Store, words};
use crate::faults::{strace, strace_is_missing};
use crate::zmtp::{Peer, connect_silently, opening};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const CONNECTIONS: usize = 10_000;
/// Descriptors beside those of the connections, in either process.
const OTHERS: u64 = 500;
/// What a connection that says nothing may cost: libzmq has two queues of 256 messages of 64 bytes for it and two buffers of
/// 8 KiB, and as much again for all the rest.
const SILENT: u64 = 2 * (2 * 16 + 2 * 8) * KIB;

/// Raises the limit of descriptors. False, and a line on standard error, where so many are not allowed.
fn may_open(descriptors: u64) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    let is_allowed = limit.maximum.is_none_or(|most| most >= descriptors);
    if is_allowed {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).expect("a limit up to the hard one");
    } else {
        eprintln!("SKIPPED: this test needs {descriptors} descriptors, and the hard limit is {:?}", limit.maximum);
    }
    is_allowed
}

#[test]
fn ten_thousand_silent_connections_cost_little_and_hold_up_nobody() {
    if !may_open(CONNECTIONS as u64 + OTHERS) {
        return;
    }
    let store = Store::new();
    let daemon = store.start();
    let mut peers: Vec<Peer> = (0..50).map(|_| daemon.peer()).collect();
    let before = daemon.memory();
    let mut silent = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = connect_silently(daemon.endpoint()).expect("a connection");
        stream.write_all(&opening(b"")).expect("a greeting");
        silent.push(stream);
        // The others go on all the while.
        let peer = &mut peers[number % 50];
        if number % 50 == 0 {
            assert_eq!(peer.call(&["SET", "k", &number.to_string()]).expect("a reply")[0], b"OK");
        }
        assert_eq!(peer.call(&["GET", "k"]).expect("a reply")[1], (number / 50 * 50).to_string().as_bytes());
    }
    // Each was greeted: none still waits to be accepted.
    for stream in &mut silent {
        stream.read_exact(&mut [0; 64]).expect("a greeting");
    }
    let grown = daemon.peak_memory().saturating_sub(before);
    println!("{CONNECTIONS} silent connections: {} KiB each", grown / KIB / CONNECTIONS as u64);
    assert!(grown < CONNECTIONS as u64 * SILENT, "memory grew by {grown} bytes for {CONNECTIONS} silent connections");
    let newcomer = daemon.client();
    assert!(newcomer.say("GET k").starts_with("OK "));
    drop(silent);
    assert!(newcomer.say("SET k v").starts_with("OK "));
    for peer in &mut peers {
        assert_eq!(peer.call(&["GET", "k"]).expect("a reply")[1], b"v");
    }
}

#[test]
fn an_identity_that_is_claimed_twice_stays_with_the_first() {
    let store = Store::new();
    let daemon = store.start();
    let mut first = Peer::connect_as(daemon.endpoint(), b"me").expect("a handshake");
    assert_eq!(words(&first.call(&["SET", "k", "first"]).expect("a reply")), "OK 1");
    let mut claimants: Vec<Peer> =
        (0..200).map(|_| Peer::connect_as(daemon.endpoint(), b"me").expect("a handshake")).collect();
    for claimant in &mut claimants {
        // It may have been hung up on.
        let _ = claimant.send(&["SET", "k", "claimed"]);
        let _ = claimant.send(&["PING"]);
    }
    let other = daemon.client();
    for n in 0..200 {
        // A reply to one of the others would be out of turn.
        assert_eq!(words(&first.call(&["GET", "k"]).expect("a reply")), "OK first 1 0", "question {n}");
        assert_eq!(other.say("GET k"), "OK first 1 0", "nothing of a refused connection is executed");
    }
    drop(claimants);
    drop(first);
    // Free again, as soon as its connection's end was noticed.
    crate::daemon::eventually("the identity can be had again", || {
        let mut next = Peer::connect_as(daemon.endpoint(), b"me").expect("a handshake");
        next.set_patience(std::time::Duration::from_millis(100));
        next.call(&["GET", "k"]).is_ok_and(|reply| words(&reply) == "OK first 1 0")
    });
}

#[test]
fn a_peer_that_sends_faster_than_the_disk_waits_in_its_socket() {
    const VALUE: usize = 64 << 10;
    const VALUES: usize = 4_000;
    /// What forms and what is in flight, 1 MiB each: their entries, and their records, in buffers that grow by doubling; 1,000
    /// messages that libzmq queues; and a quarter more, which the allocator may keep.
    const BOUND: u64 = (2 + 2 * 2 + 64) * MIB * 5 / 4;
    if strace_is_missing() {
        return;
    }
    let store = Store::new();
    let tracer =
        strace(&store.beside("strace"), &["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=25000"]);
    let daemon = store.launch().segment_size("128MiB").under(&tracer).start();
    let reader = daemon.client();
    assert!(reader.say("SET small v").starts_with("OK "));
    let before = daemon.memory();
    let is_sending = AtomicBool::new(true);
    let answered = std::thread::scope(|scope| {
        let (mut greedy, is_sending) = (daemon.peer(), &is_sending);
        scope.spawn(move || {
            let value = vec![b'v'; VALUE];
            for n in 0..VALUES {
                greedy.queue(&[b"SET", format!("large:{}", n % 16).as_bytes(), &value]);
                greedy.flush().expect("the socket takes it in the end");
            }
            (0..VALUES).for_each(|_| assert_eq!(greedy.recv().expect("a reply")[0], b"OK"));
            is_sending.store(false, Ordering::Relaxed);
        });
        let mut answered = 0;
        while is_sending.load(Ordering::Relaxed) {
            assert!(reader.say("GET small").starts_with("OK v "));
            answered += 1;
        }
        answered
    });
    let grown = daemon.peak_memory().saturating_sub(before);
    println!("{} MiB sent, memory grew by {} MiB, {answered} reads meanwhile", VALUES >> 4, grown / MIB);
    assert!(grown < BOUND, "memory grew by {grown} bytes for a peer that sends faster than the disk writes");
    assert!(answered > 100, "{answered} reads were answered");
}
