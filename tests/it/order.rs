//! One peer, one order: commands take effect and replies leave in the order sent, however deep the pipeline,
//! however many peers, and whoever goes away or stops reading.

use crate::daemon::{Client, Store, eventually, words};
use crate::zmtp::Peer;
use std::io;

/// Sends this many requests before it reads the first reply, then checks each reply in turn.
fn pipeline(client: &Client, count: usize, request: impl Fn(usize) -> String, check: impl Fn(usize, &str)) {
    for n in 0..count {
        client.send_words(&request(n));
    }
    for n in 0..count {
        check(n, &client.hear());
    }
}

fn version(reply: &str) -> u64 {
    let text = reply.strip_prefix("OK ").unwrap_or_else(|| panic!("no version: {reply}"));
    text.parse().unwrap_or_else(|error| panic!("{error}: {reply}"))
}

#[test]
fn a_pipelined_read_sees_the_write_before_it() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    for n in 0..200 {
        for request in
            [&format!("SET a {n}"), "GET a", "DEL a", "GET a", "INCR c", "EXISTS c", "SET a x NX", "SET a y NX"]
        {
            client.send_words(request);
        }
    }
    for n in 0..200 {
        let set = version(&client.hear());
        assert_eq!(client.hear(), format!("OK {n} {set} 0"));
        assert_eq!(client.hear(), "OK 1");
        assert_eq!(client.hear(), "MISS");
        assert_eq!(client.hear(), format!("OK {}", n + 1));
        assert_eq!(client.hear(), "OK 1");
        assert!(client.hear().starts_with("OK "));
        assert_eq!(client.hear(), "EXISTS");
    }
}

/// A pass ends amid what it has taken in. What is left was decoded already, and is decoded again.
#[test]
fn a_pickled_set_that_is_left_for_the_next_pass_is_what_it_was() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    for n in 0..100_u8 {
        // Two COUNTs are a pass.
        client.send_words("COUNT");
        client.send_words("COUNT");
        client.send(&[&[&b"\x80\x04\x8c\x03set\x8c\x01kK"[..], &[n], b"\x87."].concat()]);
        client.send(&[b"\x80\x04\x8c\x03get\x8c\x01kN\x87."]);
    }
    for n in 0..100_u8 {
        assert!(client.hear().starts_with("OK "));
        assert!(client.hear().starts_with("OK "));
        assert_eq!(client.recv(), [b"ok"], "set {n}");
        let value = client.recv().remove(0);
        assert!(value.ends_with(&[b'K', n, b'.', b'.']), "get {n}: {}", value.escape_ascii());
    }
}

/// What stands here is a value as a pickled SET leaves it: two STOPs, the first in the place of the opcode that would close
/// the tuple. It is no request, however often it is decoded.
#[test]
fn a_refused_pickle_that_is_left_for_the_next_pass_is_refused_there() {
    const COPIES: usize = 48;
    let store = Store::new();
    let daemon = store.launch().option("--fsync", "never").start();
    let client = daemon.dealer();
    let value = vec![b'v'; 1 << 20];
    let message = b"\x80\x04\x8c\x03set\x8c\x06victimK\x07..";
    for _ in 0..COPIES {
        // As much as may form in one pass.
        client.send(&[&b"SET"[..], b"large", &value]);
        client.send(&[message]);
    }
    for copy in 0..COPIES {
        assert!(client.hear().starts_with("OK "));
        let reply = client.hear();
        assert!(reply.starts_with("error: BADARG "), "copy {copy}: {reply}");
    }
    assert_eq!(client.say("GET victim"), "MISS");
}

#[test]
fn a_peer_of_an_older_zmtp_gets_every_reply_in_order() {
    let store = Store::new();
    let daemon = store.start();
    let mut peer = Peer::connect_as_older(daemon.endpoint()).expect("a connection");
    // So large that each reply leaves by itself, although all of these are decoded together.
    let value = vec![b'v'; 100_000];
    peer.call(&[&b"SET"[..], b"k", &value]).expect("a reply");
    for _ in 0..20 {
        for _ in 0..8 {
            peer.queue(&["GET", "k"]);
        }
        peer.queue(&["INCR", "n"]);
    }
    peer.flush().expect("a live connection");
    for n in 1..=20 {
        for _ in 0..8 {
            assert_eq!(peer.recv().expect("a reply")[1], value);
        }
        assert_eq!(peer.recv().expect("a reply")[1], n.to_string().as_bytes());
    }
}

#[test]
fn what_forms_in_a_pass_is_bounded_although_each_request_is_small() {
    let store = Store::new();
    let daemon = store.launch().option("--fsync", "never").start();
    let client = daemon.dealer();
    client.call(&[&b"SET"[..], b"k", &vec![b'v'; 1 << 20]]);
    let before = daemon.peak_memory();
    // Each records the value anew.
    pipeline(&client, 500, |_| "TOUCH k 1000000".into(), |_, reply| assert_eq!(reply, "OK"));
    let more = daemon.peak_memory() - before;
    // One batch forms and one is written, each of 1 MiB and the value that it ends with, and what they change is held until then.
    assert!(more < 24 << 20, "{} MiB", more >> 20);
}

#[test]
fn a_hundred_thousand_requests_before_the_first_read() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    let newest = std::cell::Cell::new(0);
    pipeline(
        &client,
        100_000,
        |n| format!("SET k{n} value-{n}"),
        |_, reply| {
            let version = version(reply);
            assert!(version > newest.replace(version), "versions rise in the order sent");
        },
    );
    pipeline(
        &client,
        100_000,
        |n| format!("GET k{n}"),
        |n, reply| {
            assert!(reply.starts_with(&format!("OK value-{n} ")), "reply {n} is {reply}");
        },
    );
    assert_eq!(client.say("COUNT"), "OK 100000");
}

#[test]
fn many_peers_at_once() {
    let store = Store::new();
    let daemon = store.start();
    std::thread::scope(|scope| {
        for peer in 0..50 {
            let client = daemon.dealer();
            scope.spawn(move || {
                pipeline(
                    &client,
                    200,
                    |n| format!("SET p{peer}:{n} {peer}-{n}"),
                    |_, reply| {
                        version(reply);
                    },
                );
                pipeline(
                    &client,
                    200,
                    |n| format!("GET p{peer}:{n}"),
                    |n, reply| {
                        assert!(reply.starts_with(&format!("OK {peer}-{n} ")), "peer {peer}, reply {n}: {reply}");
                    },
                );
            });
        }
    });
    assert_eq!(daemon.client().say("COUNT"), "OK 10000");
}

#[test]
fn peers_that_share_a_key_each_see_their_own_order() {
    let store = Store::new();
    let daemon = store.start();
    let seen: Vec<Vec<i64>> = std::thread::scope(|scope| {
        let peers: Vec<_> = (0..2)
            .map(|peer| {
                let client = daemon.dealer();
                scope.spawn(move || {
                    for n in 0..1_000 {
                        client.send_words(&format!("SET shared {peer}-{n}"));
                        client.send_words("GET shared");
                        client.send_words("INCR counter");
                    }
                    let mut counts = Vec::new();
                    for n in 0..1_000 {
                        let written = version(&client.hear());
                        let read = client.hear();
                        let mut read = read.split(' ').skip(1);
                        let (value, read) = (read.next(), read.next().and_then(|text| text.parse::<u64>().ok()));
                        let read = read.expect("a version");
                        assert!(read >= written, "a read after a write sees it or a newer one");
                        assert_eq!(read == written, value == Some(&format!("{peer}-{n}")), "a version is one value");
                        counts.push(version(&client.hear()).cast_signed());
                    }
                    assert!(counts.is_sorted(), "a peer's increments take effect in its order");
                    counts
                })
            })
            .collect();
        peers.into_iter().map(|peer| peer.join().expect("a peer")).collect()
    });
    let mut counts = seen.concat();
    counts.sort_unstable();
    assert_eq!(counts, (1..=2_000).collect::<Vec<_>>(), "no increment is lost or doubled");
}

#[test]
fn a_peer_gone_before_its_reply() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    for round in 0..20 {
        let mut leaver = daemon.peer();
        for n in 0..500 {
            leaver.queue(&["SET", &format!("r{round}:{n:03}"), "v"]);
        }
        leaver.flush().expect("the requests are sent");
        drop(leaver);
        assert_eq!(client.say("PING"), "OK PONG");
    }
    let keys: Vec<_> = (0..500).map(|n| format!("r0:{n:03}")).collect();
    let request: Vec<_> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
    client.send(&request);
    let present: Vec<bool> = client.recv()[1..].chunks(2).map(|pair| pair[0] == b"1").collect();
    assert!(present.is_sorted_by(|earlier, later| earlier >= later), "what took effect is a prefix of what was sent");
}

#[test]
fn a_peer_that_never_reads_is_cut_off_alone() {
    const REPLIES: usize = 2_000;
    let store = Store::new();
    let daemon = store.launch().option("--max-backlog", "1MiB").start();
    let client = daemon.client();
    let value = vec![b'v'; 64 * 1024];
    assert_eq!(client.call(&[b"SET", b"large", &value])[0], b"OK");

    // Asks for 125 MiB; the last request would leave a mark.
    let mut mute = daemon.peer();
    for _ in 0..REPLIES {
        mute.queue(&["GET", "large"]);
    }
    mute.queue(&["SET", "mark", "v"]);
    mute.flush().expect("the requests are sent");

    // Everybody else is served all the while, until the daemon reports that it has cut a peer off.
    eventually("the silent peer is cut off", || {
        assert!(client.say("SET other v").starts_with("OK "));
        assert_eq!(client.call(&[b"GET", b"large"])[1].len(), value.len());
        stat(&client, "peers_cut_off") == Some(1)
    });

    // What it gets, late, is a prefix of its replies and then nothing.
    let mut replies = 0;
    mute.set_patience(std::time::Duration::from_millis(500));
    while let Ok(reply) = mute.recv() {
        assert_eq!(reply[1].len(), value.len(), "reply {replies} is the answer to request {replies}");
        replies += 1;
    }
    assert!(replies < REPLIES, "all {replies} replies were kept for a peer that did not read");
    assert_eq!(client.say("EXISTS mark"), "OK 0", "a peer that is cut off executes nothing more");
    let unanswered = mute.call(&["SET", "mark", "v"]).map(|reply| words(&reply));
    let error = unanswered.expect_err("no reply after a gap: it would be taken for the answer to another request");
    assert!(matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
    ));
    assert_eq!(client.say("EXISTS mark"), "OK 0");

    drop(mute);
    let mut again = daemon.peer();
    assert_eq!(again.call(&["GET", "large"]).expect("a reply")[1].len(), value.len());
    assert_eq!(stat(&client, "peers_cut_off"), Some(1));
}

/// One figure of STATS.
fn stat(client: &Client, name: &str) -> Option<u64> {
    let stats = client.call(&[b"STATS"]);
    let pair = stats[1..].chunks(2).find(|pair| pair[0] == name.as_bytes())?;
    String::from_utf8_lossy(&pair[1]).parse().ok()
}

#[test]
fn one_reply_always_fits_an_empty_queue() {
    let store = Store::new();
    let daemon = store.launch().option("--max-backlog", "1MiB").start();
    let client = daemon.client();
    let value = vec![b'v'; 4 << 20];
    assert_eq!(client.call(&[b"SET", b"large", &value])[0], b"OK");
    for _ in 0..10 {
        assert_eq!(client.call(&[b"GET", b"large"])[1], value);
    }
}
