//! Peers that break the rules: what they send costs themselves their connection at most, and costs everybody
//! else nothing: no panic, no pause, no memory in proportion to what was merely announced.

use crate::daemon::{Client, Daemon, Store, eventually, words};
use crate::random::{Random, seed};
use crate::zmtp::{Peer, connect_silently, greeting};
use std::io::{Read, Write};
use std::net::TcpStream;

const MIB: u64 = 1 << 20;

/// Asserts that the daemon serves new peers and old ones.
#[track_caller]
fn assert_serves(daemon: &Daemon, old: &Client) {
    for client in [old, &daemon.client()] {
        assert!(client.say("SET alive yes").starts_with("OK "));
        assert!(client.say("GET alive").starts_with("OK yes "));
    }
}

fn silent(daemon: &Daemon) -> TcpStream {
    connect_silently(daemon.endpoint()).expect("a connection")
}

#[test]
fn bytes_that_are_not_zmtp() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let mut random = Random::seeded(seed());
    let mut openings: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        [greeting(), vec![0xff; 4096]].concat(),
        [greeting(), vec![0; 4096]].concat(),
        [greeting(), b"\x04\x02XY".to_vec()].concat(),
    ];
    for _ in 0..50 {
        let length = 1 + random.below(10_000);
        openings.push(random.bytes(length));
        openings.push([greeting(), random.bytes(length)].concat());
    }
    for opening in openings {
        let mut stream = silent(&daemon);
        // The daemon may hang up in the middle of it: that is its right.
        let _ = stream.write_all(&opening);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_serves(&daemon, &client);
}

#[test]
fn peers_that_say_half_a_greeting_or_nothing() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let held: Vec<_> = (0..200)
        .map(|n| {
            let mut stream = silent(&daemon);
            stream.write_all(&greeting()[..n % 64]).expect("a few bytes");
            stream
        })
        .collect();
    assert_serves(&daemon, &client);
    drop(held);
    assert_serves(&daemon, &client);
}

#[test]
fn half_a_frame_and_gone() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    for cut in 0..12 {
        let mut peer = daemon.peer();
        let request = b"\x01\x00\x01\x03SET\x01\x04half\x00\x05value";
        peer.send_raw(&request[..cut]).expect("a few bytes");
    }
    assert_serves(&daemon, &client);
    assert_eq!(client.say("EXISTS half"), "OK 0");
}

/// The start of a frame of this many bytes.
fn announcement(length: u64) -> Vec<u8> {
    [&[2][..], &length.to_be_bytes()].concat()
}

#[test]
fn frames_beyond_the_limit_end_the_connection() {
    let store = Store::new();
    let daemon = store.launch().option("--max-value", "1MiB").start();
    let client = daemon.client();
    let before = daemon.memory();
    for length in [3 * MIB + 1, 1 << 32, 1 << 40, u64::MAX >> 1, u64::MAX] {
        let mut peer = daemon.peer();
        peer.send_raw(&announcement(length)).expect("nine bytes");
        peer.wait_for_close();
    }
    assert_serves(&daemon, &client);
    let grown = daemon.memory().saturating_sub(before);
    assert!(grown < 16 * MIB, "memory grew by {grown} bytes for frames that never came");
}

#[test]
fn announced_frames_that_never_come_take_no_memory() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let before = daemon.memory();
    let held: Vec<Peer> = (0..50)
        .map(|_| {
            let mut peer = daemon.peer();
            assert_eq!(words(&peer.call(&["PING"]).expect("a reply")), "OK PONG");
            peer.send_raw(&announcement(128 * MIB)).expect("nine bytes");
            peer.send_raw(b"and a little of it").expect("a few bytes");
            peer
        })
        .collect();
    for _ in 0..100 {
        assert_eq!(client.say("PING"), "OK PONG");
    }
    let grown = daemon.memory().saturating_sub(before);
    assert!(grown < 64 * MIB, "memory grew by {grown} bytes for frames that never came");
    drop(held);
    assert_serves(&daemon, &client);
}

#[test]
fn peers_that_never_read_hold_a_bounded_amount_of_memory() {
    const PEERS: u64 = 8;
    let store = Store::new();
    let daemon = store.launch().option("--max-backlog", "4MiB").start();
    let client = daemon.client();
    let value = vec![b'v'; 64 * 1024];
    assert_eq!(client.call(&[b"SET", b"large", &value])[0], b"OK");
    let before = daemon.memory();
    // 2 GiB of replies in all.
    let mut mute: Vec<_> = (0..PEERS).map(|_| daemon.peer()).collect();
    for peer in &mut mute {
        (0..4_000).for_each(|_| peer.queue(&["GET", "large"]));
        peer.flush().expect("the requests are sent");
    }
    eventually("every silent peer is cut off", || {
        assert_eq!(client.call(&[b"GET", b"large"])[1].len(), value.len());
        let stats = words(&client.call(&[b"STATS"]));
        stats.contains(&format!("peers_cut_off {PEERS}"))
    });
    let grown = daemon.peak_memory().saturating_sub(before);
    assert!(grown < PEERS * 16 * MIB, "memory grew by {grown} bytes for peers that never read");
    drop(mute);
    assert_serves(&daemon, &client);
}

/// `('set', 'k', 'v')` in protocol 2.
const HONEST: &[u8] = b"\x80\x02X\x03\0\0\0setq\0X\x01\0\0\0kq\x01X\x01\0\0\0vq\x02\x87q\x03.";

/// Asserts that a pickle is refused in the one way that no client can take for a value.
#[track_caller]
fn assert_pickle_refused(client: &Client, pickle: &[u8], why: &str) {
    let reply = client.call(&[pickle]);
    assert_eq!(reply.len(), 1, "{why}: {}", words(&reply));
    assert!(reply[0].starts_with(b"error: "), "{why}: {}", words(&reply));
}

/// Requests that a client with another habit sends, each with what it has to change.
#[test]
fn a_pickle_that_is_no_request_is_told_what_to_send_instead() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let cases: [(&[&[u8]], &str); 5] = [
        // As `pickle.dumps(("set", "k", numpy_array), 5, buffer_callback=buffers.append)` and send_multipart make it.
        (
            &[b"\x80\x05\x95\x0e\0\0\0\0\0\0\0\x8c\x03set\x94\x8c\x01k\x94\x97\x87\x94.", b"the buffer"],
            "error: BADARG a pickled request is one frame, and this one has 2: pickle the whole tuple at once, without \
             buffer_callback",
        ),
        (&[b"\x80\x05\x8c\x03set\x8c\x01k\x97\x87."], "without buffer_callback"),
        (&[b"\x80\x04\x8c\x03get\x94\x8c\x01k\x94\x86\x94."], "; this is a tuple of 2"),
        (&[b"(S'set'\np0\nS'k'\np1\nI1\ntp2\n."], "the command word is an 8-bit string, as Python 2 writes it"),
        (&[b"(Vset\np0\nS'k'\np1\nI1\ntp2\n."], "the key holds an 8-bit string, as Python 2 writes it"),
    ];
    for (body, told) in cases {
        let reply = client.call(body);
        assert_eq!(reply.len(), 1, "the pickle dialect replies in one frame: {}", words(&reply));
        let reply = words(&reply);
        assert!(reply.starts_with("error: BADARG ") && reply.contains(told), "{reply}");
    }
    // And the empty `bytes` of `dill`'s protocol 2 is the key that the pickler in C makes.
    let of_dill = b"cdill._dill\n_load_type\nq\x01X\x05\0\0\0bytesq\x02\x85q\x03Rq\x04)Rq\x05";
    let set = [&b"\x80\x02X\x03\0\0\0setq\0"[..], of_dill, b"K\x07\x87q\x06."].concat();
    assert_eq!(client.call(&[&set]), [b"ok"]);
    let reply = client.call(&[&b"\x80\x04\x8c\x03get\x94C\0\x94N\x87\x94."[..]]);
    assert!(reply[0].ends_with(b"K\x07.q\x06."), "{}", words(&reply));
}

#[test]
fn hostile_pickles_are_refused_and_never_executed() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(words(&client.call(&[HONEST])), "ok");
    let before = daemon.memory();

    let witness = store.beside("executed");
    let command = format!("touch {}", witness.display());
    let exploit = format!("cos\nsystem\n(V{command}\ntR");
    let as_key = [b"(Vset\n", exploit.as_bytes(), b"Vv\nt."].concat();
    let as_verb = [b"(", exploit.as_bytes(), b"Vk\nVv\nt."].concat();
    let alone = [b"(", exploit.as_bytes(), b"."].concat();
    let long = |opcode: &[u8], length: &[u8]| [b"\x80\x04(\x8c\x03set", opcode, length, b"t."].concat();
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("code as the key", as_key),
        ("code as the verb", as_verb),
        ("code alone", alone),
        ("nothing but PROTO", b"\x80\x04".to_vec()),
        ("nothing but a MARK", b"(".to_vec()),
        ("an unknown protocol", [b"\x80\x63", &HONEST[2..]].concat()),
        ("no STOP", HONEST[..HONEST.len() - 1].to_vec()),
        ("bytes after STOP", [HONEST, b"x"].concat()),
        ("an unknown opcode", [&HONEST[..2], b"\xff", &HONEST[2..]].concat()),
        ("a string beyond the message", long(b"X", &u32::MAX.to_le_bytes())),
        ("bytes beyond the message", long(b"\x8e", &u64::MAX.to_le_bytes())),
        ("a long string beyond the message", long(b"\x8d", &(1_u64 << 40).to_le_bytes())),
        ("a negative length", long(b"T", &(-1_i32).to_le_bytes())),
        ("a negative LONG4", long(b"\x8b", &i32::MIN.to_le_bytes())),
        ("a memo that was never put", b"\x80\x04(\x8c\x03seth\x07\x8c\x01vt.".to_vec()),
        ("a memo index beyond reason", [&b"(Vset\nr"[..], &u32::MAX.to_le_bytes(), b"Vk\nVv\nt."].concat()),
        ("a frame beyond the message", [b"\x80\x04\x95", &u64::MAX.to_le_bytes()[..], &HONEST[2..]].concat()),
        ("an out-of-band buffer", b"\x80\x05(\x8c\x03set\x8c\x01k\x97t.".to_vec()),
        ("a persistent id", b"(Vset\nVk\nPid\nt.".to_vec()),
        ("pops below the stack", b"(Vset\nVk\n0000000t.".to_vec()),
        ("a mutable key", b"(Vset\n]Vv\nt.".to_vec()),
        ("two items", b"(Vget\nVk\nt.".to_vec()),
        ("four items", b"(Vset\nVk\nVv\nVw\nt.".to_vec()),
        ("another verb", b"(Vpop\nVk\nNt.".to_vec()),
        ("a list", b"(Vget\nVk\nNl.".to_vec()),
        ("a million marks", vec![b'('; 1_000_000]),
        ("a million nested tuples as a key", [b"(Vget\n", &[b'('; 1_000_000][..], &[b't'; 1_000_000], b"Nt."].concat()),
        ("a million digits as a key", [b"(Vget\nL", &[b'9'; 1_000_000][..], b"L\nNt."].concat()),
    ];
    for (why, pickle) in &hostile {
        assert_pickle_refused(&client, pickle, why);
    }
    // Deep, and harmless to whoever does not build it.
    let nested = [b"(Vset\nVk\n", &vec![b']'; 1_000_000][..], &vec![b'a'; 999_999], b"t."].concat();
    assert_eq!(client.call(&[&nested]).len(), 1);
    for cut in 2..HONEST.len() {
        assert_pickle_refused(&client, &HONEST[..cut], &format!("cut at {cut}"));
    }
    assert!(!witness.exists(), "nothing in a pickle is executed");
    assert_serves(&daemon, &client);
    let grown = daemon.peak_memory().saturating_sub(before);
    assert!(grown < 128 * MIB, "memory grew by {grown} bytes for messages of a megabyte");
}

#[test]
fn code_in_a_value_is_kept_and_never_executed() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let witness = store.beside("executed");
    let value = format!("cos\nsystem\n(Vtouch {}\ntR", witness.display());
    let set = [b"(Vset\nVk\n", value.as_bytes(), b"t."].concat();
    assert_eq!(words(&client.call(&[&set])), "ok", "an object that needs code to build is data like any other");
    let reply = client.call(&[b"(Vget\nVk\nNt."]);
    assert!(reply[0].windows(value.len()).any(|window| window == value.as_bytes()));
    assert!(!witness.exists());
}

#[test]
fn mutated_pickles_get_one_reply_each() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    let mut random = Random::seeded(seed());
    let templates: [&[u8]; 4] = [
        HONEST,
        b"(Vset\np0\nI7\ncdatetime\ndate\np1\n(I1\ntRt.",
        b"\x80\x04\x95\x15\0\0\0\0\0\0\0\x8c\x03set\x94\x8c\x01k\x94]\x94(K\x01K\x02e\x87\x94.",
        b"\x80\x02X\x03\0\0\0getq\0K\x01X\x01\0\0\0aq\x01\x86q\x02N\x87q\x03.",
    ];
    for _ in 0..20 {
        for _ in 0..500 {
            let mut pickle = templates[random.below(templates.len())].to_vec();
            for _ in 0..=random.below(4) {
                // The first byte stays, so that it is the pickle dialect that answers.
                let at = 1 + random.below(pickle.len() - 1);
                match random.below(3) {
                    0 => pickle[at] = random.next() as u8,
                    1 => pickle.insert(at, random.next() as u8),
                    _ if pickle.len() > 3 => drop(pickle.remove(at)),
                    _ => {}
                }
            }
            client.send(&[pickle]);
        }
        for _ in 0..500 {
            let reply = client.recv();
            assert_eq!(reply.len(), 1, "the pickle dialect replies in one frame: {}", words(&reply));
        }
    }
    assert_serves(&daemon, &client);
}
