//! Which replies wait for the disk, and which must not: reads of a peer with nothing in flight are answered
//! while a sync runs, and whatever a reply shows, an absence or a refusal included, is on disk
//! before it leaves.
//!
//! `strace` makes the disk slow: each sync, or each write to the log, takes a quarter of a second.

use crate::daemon::{Daemon, Store, eventually, words};
use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

const DELAY_MICROSECONDS: u64 = 250_000;

/// A daemon whose calls of this kind are slow, those on these files only, if any are given.
fn slow(store: &Store, calls: &str, files: &[String]) -> Daemon {
    let log = store.beside("strace").display().to_string();
    let (trace, delay) = (format!("trace={calls}"), format!("inject={calls}:delay_enter={DELAY_MICROSECONDS}"));
    let mut tracer: Vec<OsString> = ["strace", "-D", "-f", "-o", &log].map(OsString::from).into();
    tracer.extend(["-e", &trace, "-e", &delay].map(OsString::from));
    tracer.extend(files.iter().flat_map(|file| ["-P".into(), file.into()]));
    store.launch().under(&tracer).start()
}

#[test]
fn reads_do_not_wait_for_the_disk() {
    let store = Store::new();
    let daemon = slow(&store, "fdatasync", &[]);
    let (writer, reader) = (daemon.dealer(), daemon.client());
    let mut old = words(&writer.call(&[b"SET", b"k", b"old"])).replacen("OK ", "OK old ", 1) + " 0";
    for round in 0..4 {
        let sent = Instant::now();
        writer.send_words(&format!("SET k new-{round}"));
        let mut answered = 0;
        let mut shown_early = None;
        while writer.socket.poll(zmq::POLLIN, 0).expect("poll") == 0 {
            let reply = reader.say("GET k");
            assert_eq!(reader.say("GET absent"), "MISS");
            if reply != old {
                // Durable by now, so that its acknowledgement is on its way.
                shown_early = Some(reply);
                break;
            }
            answered += 1;
        }
        let acknowledged = writer.hear();
        assert!(sent.elapsed().as_micros() >= u128::from(DELAY_MICROSECONDS), "the acknowledgement waits for the sync");
        assert!(answered >= 10, "{answered} reads answered while a sync ran");
        old = acknowledged.replacen("OK ", &format!("OK new-{round} "), 1) + " 0";
        assert!(shown_early.is_none_or(|reply| reply == old));
    }
}

#[test]
fn others_are_answered_in_the_middle_of_a_burst_of_long_replies() {
    const BURST: u64 = 300;
    let store = Store::new();
    // Nobody is to be cut off, however late the replies are read.
    let daemon = store.launch().option("--max-backlog", "1GiB").start();
    let client = daemon.client();
    client.call(&[b"SET", b"long", &vec![b'v'; 1 << 20]]);
    let mut greedy = daemon.peer();
    eventually("several questions, one after the other, are answered before the burst is", || {
        let before = client.figure("commands_get");
        // In one packet, so that all of it arrives at once.
        (0..BURST).for_each(|_| greedy.queue(&["GET", "long"]));
        greedy.flush().expect("the requests are sent");
        std::thread::scope(|scope| {
            scope.spawn(|| (0..BURST).for_each(|_| drop(greedy.recv().expect("a reply"))));
            let seen = std::iter::repeat_with(|| client.figure("commands_get") - before);
            seen.take_while(|&seen| seen < BURST).filter(|&seen| seen > 0).count() >= 5
        })
    });
}

#[test]
fn what_a_reply_shows_is_on_disk_before_it_leaves() {
    let calls = "write,pwrite64,writev,pwritev,pwritev2";
    // What one peer writes, what another asks next, the answer that shows the write, and what must then survive.
    let cases = [
        ("SET k v NX", "SET k w NX", "EXISTS", "GET k", "OK v"),
        ("SET k v", "DEL k", "OK 1", "EXISTS k", "OK 0"),
        ("DEL there", "DEL there", "OK 0", "EXISTS there", "OK 0"),
        ("DEL there", "INCR there", "OK 1", "GET there", "OK 1"),
        ("INCR n", "INCR n", "OK 2", "GET n", "OK 2"),
        ("SET there w", "SET there x IF 1", "CONFLICT", "GET there", "OK w"),
        ("DEL there", "APPEND there x", "MISS", "EXISTS there", "OK 0"),
        ("FLUSH", "GETDEL there", "MISS", "EXISTS there", "OK 0"),
    ];
    for (write, question, shown, check, survives) in cases {
        let store = Store::new();
        let daemon = store.start();
        daemon.client().say("SET there 10");
        daemon.kill();
        let segment = |number| store.path().join(format!("segment-{number:020}.log")).display().to_string();
        let daemon = slow(&store, calls, &(1..=4).map(segment).collect::<Vec<_>>());
        let (mut writer, other) = (daemon.peer(), daemon.client());
        assert_eq!(other.say("PING"), "OK PONG");
        // Both in one packet: once the first is answered, the second has arrived.
        writer.queue(&["PING"]);
        writer.queue(&write.split(' ').collect::<Vec<_>>());
        writer.flush().expect("the requests are sent");
        assert_eq!(words(&writer.recv().expect("a reply")), "OK PONG");
        let reply = other.say(question);
        daemon.kill();
        assert!(reply.starts_with(shown), "after `{write}`, `{question}` is answered {reply}");
        let recovered = store.start().client().say(check);
        assert!(
            recovered.starts_with(survives),
            "`{write}`, then `{question}` was answered {reply}; after kill -9, `{check}` is {recovered}"
        );
    }
}

#[test]
fn who_is_alone_is_committed_for_by_the_thread_that_answers_and_nobody_else_is() {
    let store = Store::new();
    let log = store.beside("strace");
    let tracer = ["strace", "-D", "-f", "-e", "trace=fdatasync", "-o"].map(OsString::from).into_iter();
    let daemon = store.launch().under(&tracer.chain([log.clone().into()]).collect::<Vec<_>>()).start();
    let by_the_engine = |line: &str| line.starts_with(&format!("{} ", daemon.number()));
    let last_sync = || {
        let trace = fs::read_to_string(&log).expect("a trace");
        trace.lines().rfind(|line| line.contains("fdatasync(")).map(str::to_owned)
    };
    let (client, other) = (daemon.client(), daemon.client());
    eventually("it is alone", || {
        assert!(client.say("SET k v").starts_with("OK "));
        last_sync().is_some_and(|line| by_the_engine(&line))
    });
    // Who has said nothing for a second is no company, so what is judged is an attempt that took less.
    let mut in_company = None;
    eventually("two peers speak within half a second", || {
        let began = Instant::now();
        assert_eq!(other.say("PING"), "OK PONG");
        assert!(client.say("SET k w").starts_with("OK "));
        in_company = last_sync();
        began.elapsed() < Duration::from_millis(500)
    });
    let in_company = in_company.expect("a sync");
    assert!(!by_the_engine(&in_company), "another one's reads would have waited: {in_company}");
}
