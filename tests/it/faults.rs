//! When the disk, the directory or the files are not what they should be: kvd refuses with a reason, or answers
//! with a typed error and goes on. It never serves damage, never loses what it acknowledged, and never promises
//! anything after a failed sync.
//!
//! The full disk is a small tmpfs (mounting needs root), the failing one is made by `strace`, which injects
//! errors into system calls.

use crate::daemon::{Client, Daemon, KVD, Launch, Store, eventually, segments};
use crate::oracle::show;
use crate::small_disk::{FileSystem, SmallDisk};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_second_daemon_on_the_same_directory_touches_nothing() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    client.say("SET k v");
    client.say("SYNC");
    let before = store.contents();
    let ended = store.launch().refused();
    assert_eq!(ended.status.code(), Some(75), "the first one may end: {}", ended.stderr);
    assert!(ended.stderr.contains(&store.path().display().to_string()), "names the directory: {}", ended.stderr);
    assert!(before == store.contents(), "the second daemon changed something");
    assert!(client.say("GET k").starts_with("OK v "));
    client.say("SET k w");
    daemon.kill();
    assert!(store.start().client().say("GET k").starts_with("OK w "), "a lock does not outlive its daemon");
}

#[test]
fn what_a_sync_confirmed_is_never_taken_for_a_torn_tail() {
    for mode in ["never", "1h", "always"] {
        let store = Store::new();
        let launch = store.launch().option("--fsync", mode);
        let daemon = launch.start();
        let client = daemon.client();
        for key in 0..60 {
            assert!(client.say(&format!("SET key-{key} value-{key}")).starts_with("OK"));
        }
        assert!(client.say("SYNC").starts_with("OK"));
        daemon.kill();
        let segment = store.segments()[0].clone();
        let whole = fs::read(&segment).expect("the segment");
        for key in [0, 20, 59] {
            let value = format!("value-{key}");
            let at = whole.windows(value.len()).rposition(|bytes| bytes == value.as_bytes()).expect("its record");
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&segment, &damaged).expect("damaged");
            let ended = launch.refused();
            assert!(ended.stderr.contains("is damaged at offset"), "{mode}, key {key}: {}", ended.stderr);
        }
        // The mark itself proves the others, and nothing proves it: without it nothing is missing.
        let end = whole.iter().rposition(|byte| *byte != 0).expect("not empty");
        let mut damaged = whole.clone();
        damaged[end] ^= 1;
        fs::write(&segment, &damaged).expect("damaged");
        let daemon = launch.start();
        assert_eq!(daemon.client().say("COUNT"), "OK 60", "{mode}");
        daemon.kill();
    }
}

#[test]
fn a_missing_directory_is_made() {
    let store = Store::new();
    assert!(!store.path().exists());
    let daemon = store.start();
    daemon.client().say("SET k v");
    daemon.kill();
    assert!(store.start().client().say("GET k").starts_with("OK v "));
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_before_a_port_is_bound() {
    const NOBODY: u32 = 65534;
    let store = Store::new();
    fs::create_dir(store.path()).expect("a directory");
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o555)).expect("permissions");
    // A port that is taken: whoever binds first would complain of that instead.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("tcp://{}", taken.local_addr().expect("an address"));
    let mut launch = store.launch().bind(&endpoint);
    if is_root() {
        // Root may write anywhere, so somebody else must try, with a binary that they can reach.
        let binary = store.beside("kvd");
        fs::copy(KVD, &binary).expect("a copy of the binary");
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("permissions");
        let root = binary.parent().expect("a parent");
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("permissions");
        launch = launch.program(&binary).user(NOBODY);
    }
    let ended = launch.refused();
    assert!(ended.stderr.contains(&store.path().display().to_string()), "names the directory: {}", ended.stderr);
    assert!(!ended.stderr.contains(&endpoint), "the port came first: {}", ended.stderr);
    assert!(store.contents().is_empty());
}

#[test]
fn a_taken_port_is_refused_by_name() {
    let store = Store::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("tcp://{}", taken.local_addr().expect("an address"));
    let ended = store.launch().bind(&endpoint).refused();
    assert!(ended.stderr.contains(&endpoint), "names the endpoint: {}", ended.stderr);
}

#[test]
fn a_standard_error_that_takes_nothing_ends_nothing() {
    let store = Store::new();
    let full = ["sh", "-c", r#"exec "$@" 2>/dev/full"#, "sh"];
    let launch = store.launch().under(&full);
    let daemon = launch.start();
    let client = daemon.client();
    assert!(client.say("SET k v").starts_with("OK "));
    assert_eq!(launch.refused().status.code(), Some(75), "a second daemon is refused as ever");
    daemon.stop();
    assert_eq!(store.start().client().say("GET k"), "OK v 1 0");
}

/// What a client was told about one round of [`fill`].
pub struct Round {
    pub set: bool,
    increment: Option<String>,
}

/// Pipelines `SET n:i 41`, a value of 8 KiB and `INCR n:i` until some are refused. Returns what was told.
pub fn fill(client: &Client) -> Vec<Round> {
    let padding = vec![b'p'; 8 * 1024];
    let mut rounds: Vec<Round> = Vec::new();
    let mut refused = 0;
    while refused < 40 {
        let start = rounds.len();
        assert!(start < 20_000, "the disk never fills up");
        for n in start..start + 8 {
            client.send_words(&format!("SET n:{n} 41"));
            client.send(&[b"SET", format!("pad:{n}").as_bytes(), &padding]);
            client.send_words(&format!("INCR n:{n}"));
        }
        for _ in 0..8 {
            let replies = [client.hear(), client.hear(), client.hear()];
            for reply in &replies {
                assert!(reply.starts_with("OK ") || reply.starts_with("ERR NOSPACE "), "{reply}");
            }
            refused += replies.iter().filter(|reply| reply.starts_with("ERR")).count();
            let [set, _, increment] = replies;
            let increment = increment.strip_prefix("OK ").map(str::to_owned);
            rounds.push(Round { set: set.starts_with("OK "), increment });
        }
    }
    rounds
}

/// Asserts that the store holds what was acknowledged and nothing that was refused.
pub fn assert_as_told(client: &Client, rounds: &[Round]) {
    for (n, round) in rounds.iter().enumerate() {
        let reply = client.say(&format!("GET n:{n}"));
        let expected = match (round.set, round.increment.as_deref()) {
            (true, None) => Some("41"),
            (true, increment) => {
                assert_eq!(increment, Some("42"), "an INCR of 41");
                increment
            }
            // Room came between the two: the refused 41 must not show.
            (false, Some(increment)) => {
                assert_eq!(increment, "1", "an INCR was evaluated on a refused SET");
                Some("1")
            }
            (false, None) => None,
        };
        match expected {
            Some(value) => assert!(reply.starts_with(&format!("OK {value} ")), "n:{n} is {reply}, not {value}"),
            None => assert_eq!(reply, "MISS", "the SET of n:{n} was refused"),
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    let store = Store::new();
    let Some(disk) = SmallDisk::mount(&store, FileSystem::Tmpfs, 4 << 20) else { return };
    disk.take("ballast", 1 << 20);
    let launch = Launch::on(&disk.data_dir()).segment_size("64KiB");
    let daemon = launch.start();
    let client = daemon.dealer();
    for n in 0..10 {
        assert!(client.say(&format!("SET keep:{n} {n}")).starts_with("OK "));
    }
    let rounds = fill(&client);
    assert!(rounds.iter().any(|round| round.set), "nothing fits on this disk");

    // Full: reads go on, and so do removals.
    assert!(client.say("GET keep:3").starts_with("OK 3 "));
    assert_as_told(&client, &rounds);
    assert_eq!(client.say("DEL keep:0 keep:1"), "OK 2");
    assert_eq!(client.say("EXISTS keep:0 keep:1 keep:2"), "OK 1");
    assert!(client.say("FLUSH PREFIX keep:9").starts_with("OK 1"));
    assert_eq!(client.say("PING"), "OK PONG");

    // Room again: writes are taken again.
    disk.give_back("ballast");
    eventually("writes are accepted once there is room", || {
        let reply = client.say("SET keep:room again");
        assert!(reply.starts_with("OK ") || reply.starts_with("ERR NOSPACE "), "{reply}");
        reply.starts_with("OK ")
    });
    for n in 0..50 {
        assert!(client.say(&format!("SET keep:after:{n} {n}")).starts_with("OK "));
    }
    let check = |daemon: &Daemon| {
        let client = daemon.client();
        assert_as_told(&client, &rounds);
        assert_eq!(client.say("EXISTS keep:0 keep:1 keep:9"), "OK 0", "removals on a full disk hold");
        assert!(client.say("GET keep:room").starts_with("OK again "));
        for n in 2..9 {
            assert!(client.say(&format!("GET keep:{n}")).starts_with(&format!("OK {n} ")));
        }
        for n in 0..50 {
            assert!(client.say(&format!("GET keep:after:{n}")).starts_with(&format!("OK {n} ")));
        }
    };
    check(&daemon);
    daemon.kill();
    let daemon = launch.start();
    check(&daemon);
    daemon.stop();
    check(&launch.start());
}

#[test]
fn a_full_disk_can_be_restarted_on_and_emptied() {
    let store = Store::new();
    let Some(disk) = SmallDisk::mount(&store, FileSystem::Tmpfs, 2 << 20) else { return };
    disk.take("ballast", 512 << 10);
    let launch = Launch::on(&disk.data_dir()).segment_size("64KiB");
    let daemon = launch.start();
    let rounds = fill(&daemon.dealer());
    // Whatever is left is taken by somebody else.
    disk.take_the_rest("rest");
    daemon.kill();
    let daemon = launch.start();
    let client = daemon.client();
    assert_as_told(&client, &rounds);
    assert!(client.say("FLUSH").starts_with("OK "));
    assert_eq!(client.say("COUNT"), "OK 0");
    disk.give_back("ballast");
    eventually("a store on a disk with room takes writes again", || client.say("SET k v").starts_with("OK "));
    daemon.kill();
    let daemon = launch.start();
    let client = daemon.client();
    assert!(client.say("GET k").starts_with("OK v "));
    assert_eq!(client.say("COUNT"), "OK 1");
}

/// Whether there is no `strace` on this machine; then a test that needs it is skipped, and says so.
pub fn strace_is_missing() -> bool {
    let version = Command::new("strace").arg("-V").output();
    let is_missing = !version.is_ok_and(|output| output.status.success());
    if is_missing {
        eprintln!("SKIPPED: this test needs strace: install it");
    }
    is_missing
}

/// `strace` in front of the daemon: it traces as a grandchild, so that the process we started becomes the daemon.
pub fn strace<S: AsRef<OsStr>>(log: &Path, arguments: &[S]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["strace".into(), "-D".into(), "-f".into(), "-o".into(), log.into()];
    words.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
    words
}

/// Writes one key after the other until the daemon is gone. Returns how many were acknowledged.
pub fn write_until_it_ends(daemon: &Daemon) -> usize {
    let mut peer = daemon.peer();
    for n in 0..2_000 {
        match peer.call(&["SET", &format!("k{n}"), &format!("v{n}")]) {
            Ok(reply) if reply[0] == b"OK" => {}
            Ok(reply) => {
                // An error is as good as silence; the next request finds out that it has ended.
                assert_eq!(reply[0], b"ERR", "{}", show(&reply));
                let silence = peer.recv();
                assert!(silence.is_err(), "a second reply: {silence:?}");
                return n;
            }
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "neither a reply nor an end");
                return n;
            }
        }
    }
    panic!("the injected error never came");
}

pub fn assert_acknowledged_are_there(store: &Store, acknowledged: usize) {
    let daemon = store.start();
    let client = daemon.client();
    for n in 0..acknowledged {
        let reply = client.say(&format!("GET k{n}"));
        assert!(reply.starts_with(&format!("OK v{n} ")), "k{n} of {acknowledged} acknowledged: {reply}");
    }
}

/// The position of the reply frame `OK` in a line of strace, which shows what was sent.
pub fn sends_ok(line: &str) -> bool {
    line.contains("send") && line.contains(r"\2OK")
}

#[test]
fn nothing_is_promised_after_a_failed_sync() {
    if strace_is_missing() {
        return;
    }
    for error in ["EIO", "ENOSPC"] {
        let store = Store::new();
        let log = store.beside("strace");
        let inject = format!("inject=fdatasync:error={error}:when=40");
        let tracer = strace(&log, &["-s", "64", "-e", "trace=fdatasync,sendto,sendmsg", "-e", &inject]);
        let daemon = store.launch().under(&tracer).start();
        let acknowledged = write_until_it_ends(&daemon);
        let ended = daemon.wait();
        assert!(matches!(ended.status.code(), Some(1..)), "{error}: it ends with a failure, not {}", ended.status);
        assert!(!ended.stderr.is_empty(), "{error}: it says why");
        // The trace has the calls in their order: after the injected error, no `OK` leaves.
        let trace = fs::read_to_string(&log).expect("a trace");
        let failure = trace.lines().position(|line| line.contains("(INJECTED)")).expect("an injected error");
        assert!(trace.lines().take(failure).any(sends_ok), "the trace shows no replies at all:\n{trace}");
        let late: Vec<_> = trace.lines().skip(failure).filter(|line| sends_ok(line)).collect();
        assert_eq!(late, Vec::<&str>::new(), "{error}: success replies after a failed sync");
        let retried = trace.lines().skip(failure + 1).filter(|line| line.contains("fdatasync(")).count();
        assert_eq!(retried, 0, "{error}: a failed sync is never retried:\n{trace}");
        assert_acknowledged_are_there(&store, acknowledged);
    }
}

#[test]
fn nothing_is_promised_after_a_failed_write() {
    if strace_is_missing() {
        return;
    }
    let store = Store::new();
    store.start().stop();
    // Errors only for the log: the same calls serve sockets and wake-ups.
    let log = store.beside("strace");
    let mut arguments = Vec::new();
    for number in 1..=20 {
        arguments.push("-P".to_owned());
        arguments.push(store.path().join(format!("segment-{number:020}.log")).display().to_string());
    }
    let calls = "write,pwrite64,writev,pwritev,pwritev2";
    arguments.extend(["-e".to_owned(), format!("trace={calls}")]);
    arguments.extend(["-e".to_owned(), format!("inject={calls}:error=EIO:when=40")]);
    let daemon = store.launch().under(&strace(&log, &arguments)).start();
    let acknowledged = write_until_it_ends(&daemon);
    let ended = daemon.wait();
    assert!(matches!(ended.status.code(), Some(1..)), "it ends with a failure, not {}", ended.status);
    assert!(fs::read_to_string(&log).expect("a trace").contains("(INJECTED)"));
    assert!(acknowledged > 0);
    assert_acknowledged_are_there(&store, acknowledged);
}

/// A store of several sealed segments whose keys can be found in the files: `needle-NNN`.
fn store_with_needles() -> Store {
    let store = Store::new();
    let daemon = store.launch().segment_size("64KiB").start();
    let client = daemon.client();
    for n in 0..100 {
        let value = vec![b'v'; 3_000];
        assert_eq!(client.call(&[b"SET", format!("needle-{n:03}").as_bytes(), &value])[0], b"OK");
    }
    daemon.kill();
    assert!(store.segments().len() >= 4, "too few segments for this test: {:?}", store.segments());
    store
}

/// Where a key stands in a segment.
fn find(segment: &[u8], needle: &str) -> Option<usize> {
    segment.windows(needle.len()).position(|window| window == needle.as_bytes())
}

/// Flips a bit of a key, in the segment that holds it. Returns that segment.
fn damage(store: &Store, needle: &str) -> PathBuf {
    for file in store.segments() {
        let mut bytes = fs::read(&file).expect("a segment");
        if let Some(at) = find(&bytes, needle) {
            bytes[at] ^= 1;
            fs::write(&file, &bytes).expect("a damaged segment");
            return file;
        }
    }
    panic!("no segment holds {needle}");
}

/// Asserts that the daemon refuses this directory, says where, points to a tool, and changes nothing.
fn assert_damage_is_refused(store: &Store, file: &Path) {
    let before = store.contents();
    let ended = store.launch().segment_size("64KiB").refused();
    let name = file.file_name().expect("a file name").to_string_lossy().into_owned();
    let stderr = &ended.stderr;
    assert!(stderr.contains(&name), "names the file {name}: {stderr}");
    assert!(stderr.contains("offset") || stderr.contains("byte"), "names the place: {stderr}");
    assert!(stderr.contains("kvd check"), "names the command that shows more: {stderr}");
    assert!(before == store.contents(), "a refusal changes nothing");
}

#[test]
fn a_damaged_byte_in_a_sealed_segment_is_refused() {
    let store = store_with_needles();
    let segments = store.segments();
    let file = &segments[segments.len() / 2];
    let mut bytes = fs::read(file).expect("a segment");
    let at = (0..100).find_map(|n| find(&bytes, &format!("needle-{n:03}"))).expect("a key in this segment");
    for place in [at, at + 1_000, at - 30] {
        bytes[place] ^= 0x10;
        fs::write(file, &bytes).expect("a damaged segment");
        assert_damage_is_refused(&store, file);
        bytes[place] ^= 0x10;
    }
    fs::write(file, &bytes).expect("the segment as it was");
    assert_eq!(store.start().client().say("COUNT"), "OK 100", "undamaged, it starts");
}

#[test]
fn a_damaged_byte_in_the_middle_of_the_last_segment_is_refused() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    for n in 0..100 {
        client.say(&format!("SET needle-{n:03} value"));
    }
    daemon.kill();
    let last = damage(&store, "needle-050");
    assert_damage_is_refused(&store, &last);
}

#[test]
fn a_missing_segment_is_refused() {
    let store = store_with_needles();
    let segments = store.segments();
    let (gone, kept) = (&segments[1], store.beside("kept"));
    fs::rename(gone, &kept).expect("a segment moved away");
    let before = store.contents();
    store.launch().refused();
    assert!(before == store.contents());
    fs::rename(&kept, gone).expect("the segment moved back");
    assert_eq!(store.start().client().say("COUNT"), "OK 100");
}

#[test]
fn a_torn_tail_is_cut_and_told() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    for n in 0..100 {
        client.say(&format!("SET needle-{n:03} value"));
    }
    daemon.kill();
    let last = damage(&store, "needle-099");
    let daemon = store.start();
    assert_eq!(daemon.client().say("COUNT"), "OK 99", "everything before the torn batch");
    let name = last.file_name().expect("a file name").to_string_lossy().into_owned();
    assert!(daemon.stderr().contains(&name), "a cut is told: {}", daemon.stderr());
    daemon.client().say("SET needle-100 value");
    daemon.kill();
    let daemon = store.start();
    assert_eq!(daemon.client().say("EXISTS needle-098 needle-099 needle-100"), "OK 2", "what was cut stays cut");
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let store = store_with_needles();
    for file in [store.segments().remove(0), store.segments().pop().expect("a segment")] {
        let honest = fs::read(&file).expect("a segment");
        let mut newer = honest.clone();
        newer[8..10].copy_from_slice(&999_u16.to_le_bytes());
        let checksum = crc32fast::hash(&newer[..4092]);
        newer[4092..4096].copy_from_slice(&checksum.to_le_bytes());
        fs::write(&file, &newer).expect("a segment from the future");
        let before = store.contents();
        let ended = store.launch().refused();
        assert!(ended.stderr.contains("999"), "names the version: {}", ended.stderr);
        assert!(before == store.contents());
        fs::write(&file, &honest).expect("the segment as it was");
    }
    assert_eq!(store.start().client().say("COUNT"), "OK 100");
}

#[test]
fn files_that_are_no_segments_are_not_taken_for_any() {
    let store = Store::new();
    fs::create_dir(store.path()).expect("a directory");
    chown(store.path(), None, None).expect("our own directory");
    fs::write(store.path().join("segment-00000000000000000001.log"), "shopping list\n").expect("a file");
    let before = store.contents();
    store.launch().refused();
    for (name, bytes) in before {
        assert!(store.contents().get(&name) == Some(&bytes), "somebody's file was changed");
    }
    assert_eq!(segments(&store.path()).len(), 1);
}

#[test]
fn a_disk_that_cannot_be_read_at_a_start_is_told_by_the_exit_code() {
    // It is opened by its name in the directory that is held, and known by its path then.
    const NAME: &str = "segment-00000000000000000001.log";
    if strace_is_missing() {
        return;
    }
    let store = Store::new();
    store.start().kill();
    let path = store.path().join(NAME).to_string_lossy().into_owned();
    for call in ["openat", "mmap", "read"] {
        let log = store.beside("strace");
        let calls = format!("trace={call}");
        let inject = format!("inject={call}:error=EIO");
        let ended =
            store.launch().under(&strace(&log, &["-P", &path, "-P", NAME, "-e", &calls, "-e", &inject])).refused();
        assert_eq!(ended.status.code(), Some(74), "{call}: {}", ended.stderr);
        assert!(ended.stderr.contains(NAME), "{call}: {}", ended.stderr);
    }
    // Absence of a limit and of a right are something else.
    let log = store.beside("strace");
    let inject = "inject=openat:error=EMFILE";
    let ended = store.launch().under(&strace(&log, &["-P", NAME, "-e", "trace=openat", "-e", inject])).refused();
    assert_eq!(ended.status.code(), Some(75), "{}", ended.stderr);
    assert!(ended.stderr.contains("LimitNOFILE") && !ended.stderr.contains("os error"), "{}", ended.stderr);
}
