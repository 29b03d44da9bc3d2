//! What runs short while others use it up: descriptors, threads, inodes. Whoever asks for more is refused, the log goes on, and
//! the limit is named.

use crate::daemon::{KVD, Launch, Store, eventually};
use crate::small_disk::SmallDisk;
use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

/// `prlimit` in front of the daemon, or `None`, and a line on standard error, where there is none.
fn limited(limit: &str) -> Option<Vec<OsString>> {
    let works = Command::new("prlimit").args([limit, "true"]).status().is_ok_and(|status| status.success());
    if !works {
        eprintln!("SKIPPED: this test needs prlimit of util-linux");
    }
    works.then(|| vec!["prlimit".into(), limit.into()])
}

#[test]
fn connections_that_use_up_descriptors_cost_no_acknowledged_write_and_end_nothing() {
    let Some(limited) = limited("--nofile=64") else { return };
    let store = Store::new();
    let launch = store.launch().segment_size("64KiB").under(&limited);
    let daemon = launch.start();
    let client = daemon.client();
    assert!(client.say("SET before v").starts_with("OK "));
    let address = daemon.endpoint().strip_prefix("tcp://").expect("a TCP endpoint");
    // The kernel takes them all; the daemon accepts as many as it has descriptors for.
    let silent: Vec<_> = (0..80).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    eventually("the descriptors for connections are used up", || {
        assert_eq!(client.say("PING"), "OK PONG");
        daemon.stderr().contains("connections are refused")
    });
    for round in 0..3 {
        for key in 0..60 {
            let reply = client.call(&[b"SET", format!("k{key}").as_bytes(), &[b'a' + round; 5_000]]);
            assert_eq!(reply[0], b"OK", "k{key}: {}", String::from_utf8_lossy(&reply[1]));
        }
    }
    assert_eq!(client.say("COMPACT"), "OK");
    eventually("a compaction", || client.figure("compactions") > 0 && client.figure("compacting") == 0);
    assert_eq!(client.figure("compactions_given_up"), 0, "{}", daemon.stderr());
    let told = daemon.stderr();
    assert!(told.contains("64") && told.contains("LimitNOFILE"), "the limit is named: {told}");
    assert_eq!(told.matches("connections are refused").count(), 1, "said once: {told}");
    drop(silent);
    daemon.stop();
    let daemon = launch.start();
    let client = daemon.client();
    for key in 0..60 {
        assert!(client.call(&[b"GET", format!("k{key}").as_bytes()])[1] == [b'c'; 5_000], "k{key}");
    }
}

#[test]
fn fewer_threads_than_asked_for_are_no_reason_to_fail() {
    // Nobody else's tasks count for this user.
    const SOMEBODY: u32 = 61_235;
    let Some(enough) = limited("--nproc=8") else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run a daemon as another user");
        return;
    }
    let store = Store::new();
    let daemon = store.launch().option("--fsync", "never").start();
    let client = daemon.client();
    for key in 0..200 {
        assert_eq!(client.call(&[b"SET", format!("k{key}").as_bytes(), &vec![b'v'; 100_000]])[0], b"OK");
    }
    daemon.kill();
    assert!(store.segments().len() > 12, "threads have something to do: {}", store.segments().len());
    let binary = store.beside("kvd");
    fs::copy(KVD, &binary).expect("a copy of the binary");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::set_permissions(store.beside(""), fs::Permissions::from_mode(0o755)).expect("permissions");
    for path in fs::read_dir(store.path()).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        chown(path, Some(SOMEBODY), Some(SOMEBODY)).expect("given away");
    }
    chown(store.path(), Some(SOMEBODY), Some(SOMEBODY)).expect("given away");

    let launch = store.launch().program(&binary).user(SOMEBODY).option("--replay-threads", "32");
    let daemon = launch.clone().under(&enough).start();
    let client = daemon.client();
    for key in 0..200 {
        assert_eq!(client.say(&format!("EXISTS k{key}")), "OK 1", "k{key}");
    }
    assert!(daemon.stderr().contains("RLIMIT_NPROC"), "it says so: {}", daemon.stderr());
    daemon.stop();

    // With less and less it serves, or refuses with a sentence. It never crashes.
    for tasks in (1..8).rev() {
        let Some(limit) = limited(&format!("--nproc={tasks}")) else { return };
        let mut daemon = launch.clone().under(&limit).spawn();
        if daemon.comes_up() {
            daemon.stop();
            continue;
        }
        let ended = daemon.wait();
        let refused = matches!(ended.status.code(), Some(1 | 75));
        assert!(refused && ended.stderr.contains("RLIMIT_NPROC"), "{tasks}: {} {}", ended.status, ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{tasks}: {}", ended.stderr);
    }
}

#[test]
fn inodes_that_are_used_up_are_no_full_disk() {
    let store = Store::new();
    let Some(disk) = SmallDisk::mount_with_inodes(&store, 16 << 20, 24) else { return };
    let launch = Launch::on(&disk.data_dir()).segment_size("64KiB");
    let daemon = launch.start();
    let client = daemon.client();
    assert!(client.say("SET keep v").starts_with("OK "));
    let mut taken = 0;
    while fs::write(disk.beside(&format!("inode-{taken}")), "").is_ok() {
        taken += 1;
    }
    let refusal = (0..100).map(|key| client.call(&[b"SET", format!("k{key}").as_bytes(), &[b'v'; 5_000]]));
    let refusal = refusal.into_iter().find(|reply| reply[0] == b"ERR").expect("a refusal");
    assert_eq!(refusal[1], b"NOSPACE");
    assert!(!String::from_utf8_lossy(&refusal[2]).contains("disk"), "{}", String::from_utf8_lossy(&refusal[2]));
    eventually("the limit is named", || daemon.stderr().contains("inodes"));
    assert!(!daemon.stderr().contains("disk is full"), "{}", daemon.stderr());
    assert_eq!(client.say("DEL keep"), "OK 1");
    for number in 0..taken {
        fs::remove_file(disk.beside(&format!("inode-{number}"))).expect("removed");
    }
    eventually("writes are accepted once there is room", || client.say("SET again v").starts_with("OK "));
    daemon.kill();
    assert!(launch.start().client().say("GET again").starts_with("OK v "));
}

#[test]
fn inodes_that_are_used_up_are_named_at_a_start() {
    for inodes in [1, 2] {
        // The root of the file system has one; the directory may have the other, and LOCK has none.
        let store = Store::new();
        let Some(disk) = SmallDisk::mount_with_inodes(&store, 16 << 20, inodes) else { return };
        let ended = Launch::on(&disk.beside("d")).refused();
        assert_eq!(ended.status.code(), Some(75), "{}", ended.stderr);
        let told = ended.stderr;
        assert!(told.contains("can't be used: the inodes of the file system"), "{inodes}: {told}");
        assert!(!told.contains("os error") && !told.contains("must be able"), "{inodes}: {told}");
    }
}

#[test]
fn memory_that_is_used_up_is_named() {
    let Some(limited) = limited(&format!("--as={}", 64 << 20)) else { return };
    let store = Store::new();
    let daemon = store.launch().segment_size("128MiB").start();
    let client = daemon.client();
    for key in 0..20 {
        assert_eq!(client.call(&[b"SET", format!("k{key}").as_bytes(), &vec![b'v'; 4 << 20]])[0], b"OK");
    }
    daemon.stop();
    // By those who copy a segment, and by who maps it.
    for arguments in [&["dump"][..], &["check"], &["repair"], &["repair", "--write"]] {
        let run = Command::new(&limited[0]).args(&limited[1..]).arg(KVD).args(arguments).arg(store.path()).output();
        let run = run.expect("kvd runs");
        assert!(run.stdout.len() < 10_000, "{arguments:?}: it had enough");
        let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(matches!(run.status.code(), Some(1 | 3)), "{arguments:?}: {} {told}", run.status);
        assert!(told.contains("ulimit -v") && !told.contains("another open file"), "{arguments:?}: {told}");
    }
}
