//! `kvd bench` against a real daemon: what it asks is what the daemon counts, and whatever goes wrong is told.

use crate::daemon::{Daemon, KVD, Store, eventually};
use kvd::tools::bench::address::Address;
use kvd::tools::bench::frames::Frames;
use kvd::tools::bench::load::{self, Ended, Plan, Wish};
use kvd::tools::bench::tally::Until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Runs `kvd bench` on this endpoint.
fn bench(endpoint: &str, arguments: &str) -> Output {
    let arguments = arguments.split_whitespace();
    Command::new(KVD).args(["bench", "--endpoint", endpoint]).args(arguments).output().expect("kvd runs")
}

/// The same, which must end well, for its JSON.
fn figures(endpoint: &str, arguments: &str) -> Value {
    let output = bench(endpoint, &format!("{arguments} --json"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn count(figures: &Value, operation: &str, what: &str) -> u64 {
    figures["operations"][operation][what].as_u64().unwrap_or(0)
}

/// What the daemon counted of these commands.
fn counted<const N: usize>(daemon: &Daemon, names: [&str; N]) -> [u64; N] {
    let client = daemon.client();
    names.map(|name| client.figure(name))
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_it_asks_is_what_the_daemon_counts() {
    let store = Store::new();
    let daemon = store.start();
    let figures = figures(
        daemon.endpoint(),
        "--fill --keys 1000 --requests 5000 --peers 7 --in-flight 3 --reads 80 --key-size 20 --value 5..50",
    );
    let (gets, sets) = (count(&figures, "get", "count"), count(&figures, "set", "count"));
    assert_eq!((gets + sets, count(&figures, "all", "count")), (5000, 5000));
    assert!((3500..4500).contains(&gets), "{gets} of 5000 at 80%");
    assert_eq!(count(&figures, "all", "misses"), 0, "it stored every key before");
    assert_eq!(counted(&daemon, ["commands_get", "commands_set", "keys"]), [gets, sets + 1000, 1000]);

    assert_eq!(figures["ended"], "complete");
    assert_eq!(figures["settings"]["peers"], 7);
    assert_eq!(figures["settings"]["percent"]["get"], 80);
    let times = &figures["operations"]["all"]["latency_us"];
    let time = |name: &str| times[name].as_f64().expect("a time");
    assert!(0.0 < time("p50") && time("p50") <= time("p99_9") && time("p99_9") <= time("max"), "{times}");
    let percentiles = times["percentiles"].as_array().expect("a list");
    assert_eq!(percentiles.last().expect("the last")[0], 100.0);
    let reply = daemon.client().call(&[b"GET", b"key:0000000000000999"]);
    assert!(reply[0] == b"OK" && (5..=50).contains(&reply[1].len()), "a value of 5 to 50 bytes: {reply:?}");
}

#[test]
fn pickles_over_a_unix_socket() {
    let store = Store::new();
    let daemon = store.launch().bind(&store.ipc_endpoint()).start();
    let figures = figures(daemon.endpoint(), "--dialect pickle --keys 100 --fill --requests 400 --reads 50 --peers 2");
    let (gets, sets) = (count(&figures, "get", "count"), count(&figures, "set", "count"));
    assert_eq!((gets + sets, count(&figures, "all", "misses")), (400, 0));
    assert_eq!(counted(&daemon, ["commands_get", "commands_set"]), [gets, sets + 100]);
}

#[test]
fn packed_messages_hold_many_commands() {
    let store = Store::new();
    let daemon = store.start();
    let run = |arguments: &str| {
        figures(daemon.endpoint(), &format!("--dialect packed --peers 3 --in-flight 2 --keys 1000 {arguments}"))
    };
    let first = run("--commands 16 --fill --reads 50 --requests 1001 --value 300 --ttl 1h");
    let (gets, sets) = (count(&first, "get", "count"), count(&first, "set", "count"));
    assert_eq!((gets + sets, count(&first, "all", "misses")), (1001, 0));
    assert_eq!(counted(&daemon, ["commands_get", "commands_set", "keys"]), [gets, sets + 1000, 1000]);

    let second = run("--commands 7 --workload f --requests 500");
    let rewritten = count(&second, "read-modify-write", "count");
    assert_eq!(counted(&daemon, ["commands_get", "commands_set"]), [gets + 500, sets + 1000 + rewritten]);
    assert_eq!(count(&run("--commands 3 --workload e --requests 100"), "all", "count"), 100);
    assert_eq!(count(&run("--commands 2 --value 1MiB --requests 10"), "all", "count"), 10);
}

#[test]
fn an_absent_key_is_a_miss_in_every_dialect() {
    let store = Store::new();
    let daemon = store.start();
    for dialect in ["frames", "packed", "pickle"] {
        let figures = figures(daemon.endpoint(), &format!("--dialect {dialect} --reads 100 --requests 50"));
        assert_eq!(count(&figures, "get", "misses"), 50, "{dialect}");
    }
}

#[test]
fn workloads_ask_for_what_they_are_named_for() {
    let store = Store::new();
    let daemon = store.start();
    let names = ["commands_get", "commands_set", "commands_scan", "keys"];
    let run = |arguments: &str| {
        let before = counted(&daemon, names);
        let figures = figures(daemon.endpoint(), &format!("{arguments} --keys 500 --value 10 --peers 3 --in-flight 2"));
        let after = counted(&daemon, names);
        (figures, std::array::from_fn::<_, 4, _>(|i| after[i] - before[i]))
    };
    run("--workload c --fill --requests 1");

    let (figures, [gets, sets, ..]) = run("--workload f --requests 1000");
    let rewritten = count(&figures, "read-modify-write", "count");
    assert_eq!((gets, sets), (1000, rewritten), "each is read, and some are written then");
    assert!((400..600).contains(&rewritten), "{rewritten}");
    assert_eq!(count(&figures, "all", "count"), 1000);

    let (figures, [gets, sets, scans, keys]) = run("--workload e --requests 300");
    assert_eq!((gets, scans), (0, count(&figures, "scan", "count")));
    assert_eq!((sets, keys), (count(&figures, "insert", "count"), count(&figures, "insert", "count")));
    assert_eq!(scans + sets, 300);
}

#[test]
fn large_values_go_out_and_come_back() {
    let store = Store::new();
    let daemon = store.launch().segment_size("64MiB").option("--fsync", "never").start();
    let figures =
        figures(daemon.endpoint(), "--value 1MiB --keys 8 --fill --requests 40 --reads 50 --peers 3 --in-flight 2");
    assert_eq!((count(&figures, "all", "count"), count(&figures, "all", "misses")), (40, 0));
    assert_eq!(daemon.client().call(&[b"GET", b"key:000000000007"])[1].len(), 1 << 20);
    // A reply that ends with its value, and nothing behind it that would show that it has ended.
    let pickled = self::figures(
        daemon.endpoint(),
        "--dialect pickle --value 1MiB --keys 8 --requests 40 --reads 100 --peers 1 --in-flight 1 --timeout 5",
    );
    assert_eq!((count(&pickled, "get", "count"), count(&pickled, "get", "misses")), (40, 0));
}

#[test]
fn a_pace_is_kept_and_what_expires_is_missed() {
    let store = Store::new();
    let daemon = store.start();
    let figures = figures(daemon.endpoint(), "--rate 2000 --requests 200 --peers 4 --reads 0 --ttl 1ms --keys 10");
    assert_eq!(count(&figures, "set", "count"), 200);
    // 200 moments, the first at 0: the last one is due after 99.5 ms, and none leaves before it is due.
    assert!(figures["elapsed_seconds"].as_f64().expect("a time") >= 0.0995, "{figures}");
    eventually("the keys expire", || daemon.client().say("GET key:000000000000") == "MISS");
}

#[test]
fn refusals_are_counted_by_their_code() {
    let store = Store::new();
    let daemon = store.launch().option("--max-value", "100").start();
    for dialect in ["frames", "packed --commands 4"] {
        let arguments = format!("--dialect {dialect} --value 101 --reads 0 --requests 30 --json");
        let output = bench(daemon.endpoint(), &arguments);
        assert_eq!(output.status.code(), Some(4), "{}", stderr_of(&output));
        let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(figures["refused_by_code"]["TOOBIG"], 30);
        assert_eq!((count(&figures, "set", "count"), count(&figures, "set", "refused")), (30, 30));
    }
    let filled = bench(daemon.endpoint(), "--value 101 --fill --requests 30");
    assert_eq!(filled.status.code(), Some(1));
    assert!(stderr_of(&filled).contains("TOOBIG"), "{}", stderr_of(&filled));
}

#[test]
fn nobody_there_and_somebody_else_there() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("tcp://{}", listener.local_addr().expect("an address"));
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("room");
        // To the end, so that the connection is not reset while the words are on their way.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let output = bench(&endpoint, "--requests 1");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr_of(&output).contains("is no kvd"), "{}", stderr_of(&output));
    stranger.join().expect("the stranger");

    // A port that the system gives to nobody who asks for any.
    let output = bench("tcp://127.0.0.1:1", "--requests 1");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr_of(&output).contains("can't connect to tcp://127.0.0.1:"), "{}", stderr_of(&output));
    let output = bench("ipc:///nowhere/at/all", "--requests 1");
    assert!(stderr_of(&output).contains("can't connect to ipc:///nowhere"), "{}", stderr_of(&output));
    assert_eq!(bench(&endpoint, "--peers 0").status.code(), Some(2));
}

/// A reply and the peer that it is for.
type Reply = (Vec<u8>, &'static str);

/// A ROUTER that is told each request's peer and verb, and sends the replies that it is given then.
fn router(endpoint: &str, mut replies: impl FnMut(Vec<u8>, &[u8]) -> Vec<Reply> + Send + 'static) {
    let socket = zmq::Context::new().socket(zmq::ROUTER).expect("a socket");
    socket.bind(endpoint).expect("a free endpoint");
    std::thread::spawn(move || {
        while let Ok(mut frames) = socket.recv_multipart(0) {
            let peer = std::mem::take(&mut frames[0]);
            for (peer, reply) in replies(peer, &frames[2]) {
                let reply = [peer.as_slice(), b""].into_iter().chain(reply.split(' ').map(str::as_bytes));
                socket.send_multipart(reply, 0).expect("room to send");
            }
        }
    });
}

/// A ROUTER that answers each request as it is told.
fn pretender(endpoint: &str, mut answer: impl FnMut(&[u8]) -> &'static str + Send + 'static) {
    router(endpoint, move |peer, verb| vec![(peer, answer(verb))]);
}

/// What `kvd bench` asks before it begins, answered as kvd does.
fn greeting(verb: &[u8]) -> Option<&'static str> {
    match verb {
        b"VERSION" => Some("OK 9.9 1"),
        b"COUNT" => Some("OK 0"),
        _ => None,
    }
}

#[test]
fn a_kvd_that_loads_is_waited_for() {
    let store = Store::new();
    let mut asked = 0;
    pretender(&store.ipc_endpoint(), move |verb| {
        asked += i32::from(verb == b"COUNT");
        match verb {
            b"COUNT" if asked < 3 => "ERR LOADING 50%",
            _ => greeting(verb).unwrap_or("MISS"),
        }
    });
    let output = bench(&store.ipc_endpoint(), "--requests 20 --peers 2 --reads 100 --json");
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(&output));
    assert_eq!(stderr_of(&output).matches("waiting").count(), 1);
    let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((count(&figures, "get", "misses"), &figures["server"]["version"]), (20, &"9.9".into()));
}

/// The first command is answered after all others, which its peer has no room for.
#[test]
fn a_pace_is_kept_by_the_peers_that_have_room() {
    const COMMANDS: usize = 50;
    let store = Store::new();
    let (mut held_back, mut answered) = (None, 0);
    router(&store.ipc_endpoint(), move |peer, verb| {
        if let Some(reply) = greeting(verb) {
            return vec![(peer, reply)];
        }
        let Some(first) = held_back.as_ref() else {
            held_back = Some(peer);
            return Vec::new();
        };
        answered += 1;
        let mut replies = vec![(peer, "MISS")];
        if answered == COMMANDS - 1 {
            replies.push((first.clone(), "MISS"));
        }
        replies
    });
    let arguments = format!("--peers 2 --in-flight 1 --rate 1000 --requests {COMMANDS} --reads 100 --timeout 5");
    assert_eq!(count(&figures(&store.ipc_endpoint(), &arguments), "get", "misses"), COMMANDS as u64);
}

/// More is due than the server can answer. It is no less alive for that, and the run ends all the same.
#[test]
fn who_cannot_keep_up_is_not_taken_for_dead_and_what_was_never_asked_is_told() {
    let store = Store::new();
    let daemon = store.start();
    let load = "--peers 4 --in-flight 1 --rate 1000000 --seconds 0.5 --timeout 1";
    let figures = figures(daemon.endpoint(), load);
    let (asked, never_asked) = (count(&figures, "all", "count"), figures["never_asked"].as_u64().expect("a number"));
    assert_eq!((asked + never_asked, &figures["ended"]), (500_000, &"complete".into()), "{asked} asked");
    assert!(asked > 0 && never_asked > 0, "{asked} asked, {never_asked} not");
    assert_eq!(counted(&daemon, ["commands_get", "commands_set"]).iter().sum::<u64>(), asked);
    let text = bench(daemon.endpoint(), load).stdout;
    assert!(String::from_utf8_lossy(&text).contains("never asked"), "{}", String::from_utf8_lossy(&text));
}

/// A pause from the first command to beyond the end: all that was due meanwhile is asked after it, and charged with it.
#[test]
fn a_pause_at_the_end_of_a_pace_counts_for_all_that_was_due() {
    let store = Store::new();
    let mut stood_still = false;
    pretender(&store.ipc_endpoint(), move |verb| {
        greeting(verb).unwrap_or_else(|| {
            if !std::mem::replace(&mut stood_still, true) {
                // What is measured is this time.
                std::thread::sleep(Duration::from_millis(400));
            }
            "MISS"
        })
    });
    let figures =
        figures(&store.ipc_endpoint(), "--peers 1 --in-flight 1 --rate 100 --seconds 0.3 --warm-up 0 --reads 100");
    assert_eq!((count(&figures, "get", "count"), &figures["never_asked"]), (30, &0.into()), "one each 10 ms");
    let fastest = figures["operations"]["get"]["latency_us"]["min"].as_f64().expect("a time");
    assert!(fastest >= 100_000.0, "the last one was due 290 ms after the first: {fastest}");
}

/// Whoever watches a load may end it, as its plan would have: what was asked is waited for, and counts.
#[test]
fn who_is_told_to_finish_drops_nothing() {
    let store = Store::new();
    let daemon = store.start();
    let address = Address::Tcp(daemon.endpoint().trim_start_matches("tcp://").to_owned());
    let until = Until::elapsed(Duration::from_secs(3600));
    let plan = Plan { peers: 4, in_flight: usize::MAX, rate: Some(20_000.0), until, ..Plan::default() };
    let outcome = load::watched(&Frames, &address, &plan, &mut |_| Wish::Finish).expect("a connection");
    assert!(matches!(outcome.ended, Ended::Complete), "{:?}", outcome.ended);
    let measured = outcome.whole().expect("all that was due is asked and answered");
    assert_eq!(counted(&daemon, ["commands_get"]), [measured.count()]);

    let closed = Plan { in_flight: 16, rate: None, ..plan };
    let outcome = load::watched(&Frames, &address, &closed, &mut |_| Wish::Finish).expect("a connection");
    assert!(matches!(outcome.ended, Ended::Complete), "{:?}", outcome.ended);
}

/// A soft limit that a load generator of many peers is above.
#[test]
fn descriptors_are_had_for_as_many_peers_as_the_system_allows() {
    let store = Store::new();
    let daemon = store.start();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 64; exec \"$@\"", "sh", KVD, "bench", "--endpoint", daemon.endpoint()]);
    let output = command.args(["--peers", "100", "--requests", "100"]).output().expect("a shell");
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(&output));
}

#[test]
fn who_speaks_zmtp_is_no_kvd_yet() {
    let (wrong, silent) = (Store::new(), Store::new());
    pretender(&wrong.ipc_endpoint(), |_| "HELLO");
    let output = bench(&wrong.ipc_endpoint(), "--requests 1");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr_of(&output).contains("is no kvd"), "{}", stderr_of(&output));

    let socket = zmq::Context::new().socket(zmq::ROUTER).expect("a socket");
    socket.bind(&silent.ipc_endpoint()).expect("a free endpoint");
    let output = bench(&silent.ipc_endpoint(), "--requests 1 --timeout 0.1");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr_of(&output).contains("it does not answer"), "{}", stderr_of(&output));
}

/// A bench that goes on for longer than any test, once the daemon has heard from it. At most 800 replies are on their way.
/// It reads and does not write, so that it waits for the daemon alone and not for the disk.
fn endless(daemon: &Daemon, timeout: &str) -> Child {
    let mut command = Command::new(KVD);
    command.args(["bench", "--endpoint", daemon.endpoint(), "--seconds", "3600", "--timeout", timeout, "--json"]);
    command.args(["--reads", "100"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kvd runs");
    eventually("the load is there", || counted(daemon, ["commands_get"])[0] > 10_000);
    child
}

/// How it ended: its exit code, its JSON, and what it said on stderr.
fn ended(child: Child) -> (Option<i32>, Value, String) {
    let output = child.wait_with_output().expect("it ends");
    let figures = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.code(), figures, stderr_of(&output))
}

#[test]
fn a_daemon_that_dies_ends_the_run_and_what_was_measured_is_told() {
    let store = Store::new();
    let daemon = store.start();
    let child = endless(&daemon, "60");
    daemon.kill();
    let (code, figures, stderr) = ended(child);
    assert_eq!((code, &figures["ended"]), (Some(3), &"broken".into()));
    assert!(count(&figures, "all", "count") > 1000);
    assert!(stderr.contains("broke off"), "{stderr}");
}

#[test]
fn a_daemon_that_stands_still_is_taken_for_dead() {
    let store = Store::new();
    let daemon = store.start();
    let child = endless(&daemon, "2");
    daemon.signal(Signal::STOP);
    let (code, figures, stderr) = ended(child);
    daemon.signal(Signal::CONT);
    assert_eq!((code, &figures["ended"]), (Some(3), &"silent".into()), "{stderr}");
    assert!(stderr.contains("no reply for 2 s"), "{stderr}");
}

#[test]
fn control_c_ends_the_run_and_prints_what_was_measured() {
    let store = Store::new();
    let daemon = store.start();
    let child = endless(&daemon, "60");
    kill_process(Pid::from_child(&child), Signal::INT).expect("a live process");
    let (code, figures, stderr) = ended(child);
    assert_eq!((code, &figures["ended"]), (Some(0), &"interrupted".into()), "{stderr}");
    assert!(count(&figures, "all", "count") > 1000);
}

/// The table for people holds the same.
#[test]
fn people_get_a_table() {
    let store = Store::new();
    let daemon = store.start();
    let output = bench(daemon.endpoint(), "--requests 100 --keys 10 --fill");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("100 commands in"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("get ")) && text.contains("p99.9"), "{text}");
    assert!(output.stderr.is_empty(), "no bar where there is no terminal");
}
