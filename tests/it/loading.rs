//! Starting and stopping: what is answered while the log is replayed, the one line on stdout, flags and their
//! environment variables, what may be bound, and what signals do.

use crate::daemon::{Client, Daemon, KVD, PATIENCE, Store, eventually};
use crate::packed_codec::{self, Told};
use crate::zmtp::Peer;
use kvd::command;
use kvd::mutation::Key;
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// A peer to which replies of 50 MiB are due, and who reads none of them.
fn peer_that_does_not_read(daemon: &Daemon) -> Peer {
    let client = daemon.client();
    client.call(&[b"SET", b"large", &vec![b'v'; 1 << 20]]);
    let mut mute = daemon.peer();
    (0..50).for_each(|_| mute.queue(&["GET", "large"]));
    mute.flush().expect("the requests are sent");
    assert_eq!(client.say("PING"), "OK PONG");
    mute
}

/// Fills a store with enough small records that a replay takes a while.
fn fill(daemon: &Daemon, keys: usize) {
    let client = daemon.dealer();
    let per_request = 1_000;
    for start in (0..keys).step_by(per_request) {
        let pairs: Vec<_> = (start..start + per_request).map(|n| format!("key-{n} v")).collect();
        client.send_words(&format!("MSET {}", pairs.join(" ")));
    }
    for _ in (0..keys).step_by(per_request) {
        assert!(client.hear().starts_with("OK "));
    }
}

/// The number before the first `%`.
fn percentage(message: &str) -> Option<u32> {
    let before = message.split_once('%')?.0;
    let digits = before.rsplit(|character: char| !character.is_ascii_digit() && character != '.').next()?;
    digits.split('.').next()?.parse().ok()
}

#[test]
fn a_replay_in_progress_answers() {
    const KEYS: usize = 400_000;
    let store = Store::new();
    let daemon = store.launch().segment_size("8MiB").start();
    fill(&daemon, KEYS);
    daemon.kill();

    // Connected before there is a daemon, so that the first request is there as soon as it listens.
    let client = Client::dealer(&store.ipc_endpoint());
    let key = Key::bytes(b"key-7");
    let list = {
        use command::Command::{Get, Ping, Stats, Version};
        packed_codec::message(&[Ping, Get { key }, Version, Stats])
    };
    let ask = || {
        for request in ["PING", "GET key-7", "SET new v", "VERSION", "STATS"] {
            client.send_words(request);
        }
        client.send(&[&list]);
    };
    ask();
    let mut daemon = store.launch().segment_size("8MiB").bind(&store.ipc_endpoint()).spawn();
    let deadline = Instant::now() + PATIENCE;
    let (mut shown, mut lists_refused) = (Vec::new(), 0);
    loop {
        assert!(Instant::now() < deadline, "the replay never ends");
        assert_eq!(client.hear(), "OK PONG");
        let (get, set) = (client.hear(), client.hear());
        assert_eq!(client.hear(), format!("OK {} 2", env!("CARGO_PKG_VERSION")));
        assert!(client.hear().starts_with("OK "), "STATS answers as ever");
        let told = packed_codec::replies(&client.recv().concat()).expect("a list of replies");
        let [Told::Pong, packed_get, Told::Version { .. }, Told::Stats(_)] = &told[..] else { panic!("{told:?}") };
        if let Told::Error { code, message } = packed_get {
            assert_eq!(code, "LOADING");
            assert!(percentage(message).is_some(), "no percentage: {message}");
            lists_refused += 1;
        }
        for reply in [&get, &set] {
            if reply.starts_with("ERR") {
                assert!(reply.starts_with("ERR LOADING "), "{reply}");
                shown.push(percentage(reply).unwrap_or_else(|| panic!("no percentage: {reply}")));
            }
        }
        if get.starts_with("OK v ") {
            break;
        }
        ask();
    }
    daemon.wait_ready();
    assert!(!shown.is_empty(), "{KEYS} keys were loaded before the first request was answered");
    assert!(lists_refused > 0, "a list of commands is asked for patience as well");
    assert!(shown.is_sorted() && shown.iter().all(|percentage| *percentage <= 100), "{shown:?}");
    assert!([KEYS, KEYS + 1].map(|count| format!("OK {count}")).contains(&client.say("COUNT")));
}

#[test]
fn sigterm_during_a_replay_ends_it() {
    let store = Store::new();
    let daemon = store.start();
    fill(&daemon, 100_000);
    daemon.kill();
    let client = Client::req(&store.ipc_endpoint());
    let daemon = store.launch().bind(&store.ipc_endpoint()).spawn();
    // It listens, and so handles signals.
    assert_eq!(client.say("PING"), "OK PONG");
    let ended = daemon.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(store.start().client().say("COUNT"), "OK 100000");
}

#[test]
fn sigterm_and_sigint_end_well_and_keep_everything() {
    for signal in [Signal::TERM, Signal::INT] {
        let store = Store::new();
        let daemon = store.start();
        let mut peer = daemon.peer();
        for n in 0..2_000 {
            peer.queue(&["SET", &format!("k{n}"), "v"]);
        }
        peer.flush().expect("the requests are sent");
        for _ in 0..100 {
            assert_eq!(peer.recv().expect("a reply")[0], b"OK");
        }
        daemon.signal(signal);
        let mut acknowledged = 100;
        while let Ok(reply) = peer.recv() {
            if reply[0] != b"OK" {
                break;
            }
            acknowledged += 1;
        }
        let ended = daemon.wait();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert_eq!(ended.stdout, Vec::<String>::new(), "nothing but the ready line on stdout");
        let daemon = store.start();
        let client = daemon.client();
        for n in 0..acknowledged {
            assert!(client.say(&format!("GET k{n}")).starts_with("OK v "), "k{n} of {acknowledged} acknowledged");
        }
    }
}

/// A log rotation sends HUP; USR1 and USR2 are habits.
#[test]
fn other_signals_than_those_that_stop_do_nothing() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
        for _ in 0..100 {
            daemon.signal(signal);
        }
        assert!(client.say("SET k v").starts_with("OK "), "after {signal:?}");
    }
    for name in ["SIGHUP", "SIGUSR1", "SIGUSR2"] {
        eventually("it says that it means nothing", || daemon.stderr().contains(name));
    }
    assert!(daemon.stderr().contains("no log file to open anew"), "for whoever rotates logs");
    let ended = daemon.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(store.start().client().say("GET k").starts_with("OK v "));
}

#[test]
fn signals_do_nothing_to_a_start_either() {
    let store = Store::new();
    let daemon = store.start();
    fill(&daemon, 100_000);
    daemon.kill();
    let client = Client::req(&store.ipc_endpoint());
    let mut daemon = store.launch().bind(&store.ipc_endpoint()).spawn();
    assert_eq!(client.say("PING"), "OK PONG");
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::USR1);
    daemon.wait_ready();
    assert_eq!(client.say("COUNT"), "OK 100000");
}

/// The second one ends it as it would end any process: a supervisor takes that for an end that was asked for.
#[test]
fn a_second_signal_ends_a_stop_that_takes_long() {
    let store = Store::new();
    let daemon = store.start();
    // The stop waits for it.
    let _mute = peer_that_does_not_read(&daemon);
    daemon.signal(Signal::TERM);
    eventually("it stops", || daemon.stderr().contains("stopping"));
    daemon.signal(Signal::INT);
    let ended = daemon.wait();
    assert_eq!(ended.status.signal(), Some(Signal::INT.as_raw()), "{}", ended.stderr);
    assert!(store.start().client().say("GET large").starts_with("OK v"));
}

/// What libzmq takes would end the process with an assertion where there is too little of it.
#[test]
fn a_start_without_descriptors_says_so_and_may_be_tried_again() {
    let store = Store::new();
    store.start().stop();
    for limit in 8..40 {
        let limited = store.launch().under(&["prlimit", &format!("--nofile={limit}")]);
        let mut daemon = limited.spawn();
        if daemon.comes_up() {
            daemon.kill();
            assert!(limit > 10, "some limit is too low");
            return;
        }
        let ended = daemon.wait();
        assert_eq!(ended.status.code(), Some(75), "{limit} descriptors: {}", ended.stderr);
        // The data directory says so in the words of the system.
        let named = ["ulimit -n", "open files"].iter().any(|words| ended.stderr.contains(words));
        assert!(named, "{}", ended.stderr);
    }
    panic!("40 descriptors must do");
}

#[test]
fn a_start_without_threads_says_so_and_may_be_tried_again() {
    /// Whoever has no other process, and is not root, whom no such limit holds.
    const SOMEBODY: u32 = 0x3e80_0000;
    if !rustix::process::getuid().is_root() {
        return;
    }
    let store = Store::new();
    let binary = store.beside("kvd");
    std::fs::copy(KVD, &binary).expect("a copy of the binary");
    let root = binary.parent().expect("a parent");
    std::os::unix::fs::chown(root, Some(SOMEBODY), Some(SOMEBODY)).expect("owned");
    for limit in 1..20 {
        let user = SOMEBODY.to_string();
        let limit = format!("--nproc={limit}");
        let limited = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "prlimit", &limit];
        let mut daemon = store.launch().program(&binary).option("--replay-threads", "1").under(&limited).spawn();
        if daemon.comes_up() {
            assert!(limit != "--nproc=1", "one thread is too few");
            daemon.kill();
            return;
        }
        let ended = daemon.wait();
        assert_eq!(ended.status.code(), Some(75), "{limit}: {}", ended.stderr);
        assert!(ended.stderr.contains("ulimit -u"), "{}", ended.stderr);
    }
    panic!("20 threads must do");
}

#[test]
fn peers_that_do_not_read_cannot_hold_up_a_stop() {
    let store = Store::new();
    let daemon = store.start();
    let _mute = peer_that_does_not_read(&daemon);
    daemon.stop();
}

#[test]
fn a_ready_line_names_every_endpoint_in_order() {
    let store = Store::new();
    let ipc = store.ipc_endpoint();
    let launch = store.launch().bind("tcp://127.0.0.1:*").bind(&ipc).bind("tcp://127.0.0.1:*");
    let daemon = launch.start();
    let endpoints = daemon.endpoints();
    assert_eq!(endpoints.len(), 3, "{endpoints:?}");
    assert_eq!(endpoints[1], ipc);
    for endpoint in [&endpoints[0], &endpoints[2]] {
        let port = endpoint.strip_prefix("tcp://127.0.0.1:").and_then(|port| port.parse::<u16>().ok());
        assert!(port.is_some_and(|port| port > 0), "the port that the kernel picked: {endpoint}");
    }
    Client::req(&endpoints[0]).say("SET k v");
    for endpoint in endpoints {
        assert!(Client::req(endpoint).say("GET k").starts_with("OK v "), "all endpoints are one store");
    }
    let ended = daemon.terminate();
    assert_eq!(ended.stdout, Vec::<String>::new(), "exactly one line on stdout");
}

#[test]
fn a_killed_daemons_ipc_socket_is_taken_over() {
    let store = Store::new();
    let launch = store.launch().bind(&store.ipc_endpoint());
    for _ in 0..2 {
        let daemon = launch.start();
        assert_eq!(daemon.client().say("PING"), "OK PONG");
        daemon.kill();
    }
}

#[test]
fn flags_may_come_from_the_environment() {
    let store = Store::new();
    // An empty bind leaves the flag out.
    let launch = store.launch().without_data_dir().bind("");
    let launch = launch.environment("KVD_DATA_DIR", store.path()).environment("KVD_BIND", store.ipc_endpoint());
    let daemon = launch.environment("KVD_MAX_VALUE", "1KiB").start();
    assert_eq!(daemon.endpoints(), [store.ipc_endpoint()]);
    let client = daemon.client();
    let reply = client.call(&[b"SET", b"k", &[0; 1025]]);
    assert_eq!(reply[..2], [b"ERR".to_vec(), b"TOOBIG".to_vec()]);
    assert!(client.say("SET k v").starts_with("OK "));
    assert!(!store.segments().is_empty(), "the data directory is the one of the environment");
}

#[test]
fn a_wrong_variable_is_named_and_an_empty_one_is_not_set() {
    let store = Store::new();
    for (variable, value, flag) in [
        ("KVD_REPLAY_THREADS", "0", "--replay-threads"),
        ("KVD_MAX_VALUE", "2GiB", "--max-value"),
        ("KVD_INSECURE_BIND", "perhaps", "--insecure-bind"),
        ("KVD_EXISTING", "bogus", "true or false"),
        ("KVD_LOG_LEVEL", "kvd=deafening", "--log-level"),
    ] {
        let ended = store.launch().environment(variable, value).refused();
        assert_eq!(ended.status.code(), Some(2), "{variable}: {}", ended.stderr);
        assert!(ended.stderr.contains(variable) && ended.stderr.contains(flag), "{variable}: {}", ended.stderr);
    }
    let empty = ["KVD_FSYNC", "KVD_MAX_MEMORY", "KVD_INSECURE_BIND", "KVD_LOG_LEVEL", "KVD_BIND", "RUST_LOG"];
    let launch = empty.iter().fold(store.launch(), |launch, variable| launch.environment(variable, ""));
    let daemon = launch.start();
    // An empty RUST_LOG is a filter that lets nothing through.
    assert!(daemon.terminate().stderr.contains(" INFO "));
}

#[test]
fn the_daemons_variables_are_nothing_to_the_tools() {
    let store = Store::new();
    store.start().stop();
    let check = Command::new(KVD).arg("check").arg(store.path()).env("KVD_SEGMENT_SIZE", "bogus").output();
    let check = check.expect("a kvd");
    assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn a_directory_may_be_told_from_where_kvd_runs() {
    let store = Store::new();
    let here = store.beside("here");
    std::fs::create_dir(&here).expect("a directory");
    for (directory, segment) in [("data", "data"), ("./more/data", "more/data")] {
        let launch = store.launch().without_data_dir().option("--data-dir", directory);
        let daemon = launch.under(&["env".as_ref(), "-C".as_ref(), here.as_os_str()]).start();
        assert!(daemon.client().say("SET k v").starts_with("OK "));
        assert!(here.join(segment).join("LOCK").exists(), "{directory}");
    }
}

#[test]
fn what_is_not_its_own_is_told_and_left_alone_and_its_own_is_not_told() {
    let store = Store::new();
    store.start().kill();
    let told = |store: &Store| {
        let daemon = store.launch().option("--log-level", "info").start();
        let stderr = daemon.terminate().stderr;
        stderr.lines().filter(|line| line.contains("not kvd's")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(&store), [] as [String; 0]);
    std::fs::write(store.path().join("notes.txt"), "mine").expect("written");
    let lines = told(&store);
    assert!(lines.len() == 1 && lines[0].contains("notes.txt"), "{lines:?}");
    assert_eq!(std::fs::read(store.path().join("notes.txt")).expect("there"), b"mine");
}

#[test]
fn addresses_that_others_can_reach_need_a_flag() {
    let store = Store::new();
    for endpoint in ["tcp://0.0.0.0:*", "tcp://*:*", "tcp://[::]:*"] {
        let ended = store.launch().bind(endpoint).refused();
        assert!(ended.stderr.contains("--insecure-bind"), "says what would allow it: {}", ended.stderr);
    }
    assert!(!store.path().exists(), "refused before a directory was made");
    let daemon = store.launch().bind("tcp://0.0.0.0:*").flag("--insecure-bind").start();
    let port = daemon.endpoint().rsplit(':').next().expect("a port");
    assert_eq!(Client::req(&format!("tcp://127.0.0.1:{port}")).say("PING"), "OK PONG");
}

#[test]
fn wrong_flags_are_refused_with_a_reason() {
    let store = Store::new();
    let wrong = [
        ("--fsync", "sometimes"),
        ("--max-value", "0"),
        ("--max-value", "2GiB"),
        ("--max-backlog", "much"),
        ("--bind", "nonsense"),
        ("--no-such-flag", "1"),
    ];
    for (flag, value) in wrong {
        let ended = store.launch().option(flag, value).refused();
        assert!(ended.stderr.contains(flag) || ended.stderr.contains(value), "{flag} {value}: {}", ended.stderr);
    }
    for (flag, value, named) in [
        ("--max-value", "", "64KiB"),
        ("--max-memory", "huge", "64KiB"),
        ("--fsync", "1 fortnight", "250ms"),
        ("--log-level", "###", "is `###`, but must be error, warn, info, debug, trace"),
        ("--max-memory", "99999999999999999999GiB", "'99999999999999999999GiB'"),
        ("--replay-threads", "two", "whole number"),
        ("--max-backlog", "1048575", "is 1048575, but must be from 1MiB"),
    ] {
        let ended = store.launch().flag(&format!("{flag}={value}")).refused();
        assert!(ended.stderr.contains(flag) && ended.stderr.contains(named), "{flag} {value}: {}", ended.stderr);
    }
    assert!(!Path::exists(&store.path()), "refused before a directory was made");
}
