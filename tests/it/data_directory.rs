//! The data directory: one daemon has it, whatever becomes of its names; what is not kvd's stays as it is; nobody else may read
//! it; and where there is no log, that is said.

use crate::daemon::{Client, Daemon, KVD, Store, eventually};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// Stores so many keys with values that fill a segment of 64 KiB every few of them.
fn store_keys(client: &Client, keys: std::ops::Range<usize>) {
    for key in keys {
        let reply = client.call(&[b"SET", format!("k{key}").as_bytes(), &vec![b'v'; 5_000]]);
        assert_eq!(reply[0], b"OK", "{}", String::from_utf8_lossy(&reply[1]));
    }
}

fn assert_has_keys(daemon: &Daemon, keys: std::ops::Range<usize>) {
    let client = daemon.client();
    for key in keys {
        assert_eq!(client.say(&format!("EXISTS k{key}")), "OK 1", "k{key}");
    }
}

fn tool(arguments: &[&str], directory: &Path) -> Output {
    Command::new(KVD).args(arguments).arg(directory).output().expect("kvd runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn a_lock_that_is_removed_or_replaced_lets_nobody_in() {
    let store = Store::new();
    let launch = store.launch().segment_size("64KiB");
    let daemon = launch.start();
    let (client, lock) = (daemon.client(), store.path().join("LOCK"));
    store_keys(&client, 0..20);
    fs::remove_file(&lock).expect("removed");
    let before = store.contents();
    let ended = launch.refused();
    assert!(ended.stderr.contains("another kvd is running"), "{}", ended.stderr);
    assert!(before == store.contents(), "the second daemon changed something");
    fs::write(&lock, "").expect("replaced");
    launch.refused();
    store_keys(&client, 20..60);
    daemon.kill();
    assert_has_keys(&launch.start(), 0..60);
}

#[test]
fn a_directory_that_is_moved_takes_its_log_with_it() {
    // What the old name leads to afterwards: the directory's new place, or another one.
    for leads_elsewhere in [false, true] {
        let store = Store::new();
        let launch = store.launch().segment_size("64KiB");
        let daemon = launch.start();
        let client = daemon.client();
        store_keys(&client, 0..20);
        let (moved, elsewhere) = (store.beside("moved"), store.beside("elsewhere"));
        fs::create_dir(&elsewhere).expect("another directory");
        fs::rename(store.path(), &moved).expect("moved");
        symlink(if leads_elsewhere { &elsewhere } else { &moved }, store.path()).expect("a link");

        // Segments are begun, others are compacted and removed.
        for round in 0..3 {
            store_keys(&client, 20 * round..60);
        }
        assert_eq!(client.say("COMPACT"), "OK");
        eventually("a compaction", || client.figure("compactions") > 0 && client.figure("compacting") == 0);
        assert_eq!(fs::read_dir(&elsewhere).expect("a directory").count(), 0, "nothing of it goes anywhere else");

        let of_moved = crate::daemon::Launch::on(&moved).segment_size("64KiB");
        of_moved.refused();
        if !leads_elsewhere {
            launch.refused();
        }
        store_keys(&client, 60..80);
        daemon.kill();
        assert_has_keys(&of_moved.start(), 0..80);
    }
}

#[test]
fn what_kvd_did_not_make_is_left_alone() {
    let store = Store::new();
    store.start().kill();
    let strangers = [
        &b"segment-notes.tmp"[..],
        b"segment-\xff.tmp",
        b"segment-00000000000000000007.log.bak",
        b"segment-00000000000000000007.tmp",
        b"notes \x1b[31m.txt",
    ];
    for name in strangers {
        fs::write(store.path().join(OsStr::from_bytes(name)), name).expect("a file");
    }
    let directory = store.path().join("segment-x.tmp");
    fs::create_dir(&directory).expect("a directory");
    symlink("/nowhere", store.path().join("segment-link.tmp")).expect("a link");
    let daemon = store.start();
    assert!(daemon.client().say("SET k v").starts_with("OK "));
    let told = daemon.terminate().stderr;
    for name in strangers {
        let held = fs::read(store.path().join(OsStr::from_bytes(name))).expect("left alone");
        assert!(held == name);
    }
    assert!(directory.is_dir() && fs::read_link(store.path().join("segment-link.tmp")).is_ok());
    assert!(told.contains("segment-notes.tmp") && told.contains("segment-x.tmp"), "they are named: {told}");
    assert!(!told.contains('\x1b'), "a name does not speak to the terminal: {told}");
}

#[test]
fn a_lock_that_is_no_file_is_refused_at_once_and_left_alone() {
    for kind in ["a FIFO", "a symbolic link", "a directory"] {
        let store = Store::new();
        fs::create_dir(store.path()).expect("a directory");
        let (lock, target) = (store.path().join("LOCK"), store.beside("target"));
        match kind {
            "a FIFO" => fifo(&lock),
            "a symbolic link" => symlink(&target, &lock).expect("a link"),
            _ => fs::create_dir(&lock).expect("a directory"),
        }
        let ended = store.launch().refused();
        assert!(ended.stderr.contains("LOCK") && ended.stderr.contains(kind), "{}", ended.stderr);
        assert!(!target.exists(), "what a link leads to is not made");
    }
}

#[test]
fn what_has_a_segments_name_and_is_no_file_is_refused_by_name() {
    for name in ["segment-00000000000000000002.log", "segment-00000000000000000001.log.tmp"] {
        for kind in ["a FIFO", "a symbolic link", "a directory"] {
            let store = Store::new();
            store.start().stop();
            let path = store.path().join(name);
            match kind {
                "a FIFO" => fifo(&path),
                "a symbolic link" => {
                    symlink(store.path().join("segment-00000000000000000001.log"), &path).expect("a link");
                }
                _ => fs::create_dir(&path).expect("a directory"),
            }
            let ended = store.launch().refused();
            assert!(ended.stderr.contains(name) && ended.stderr.contains(kind), "{}", ended.stderr);
            assert!(fs::symlink_metadata(&path).is_ok(), "left alone");
            // What only a start would remove, and is not of the log, keeps nobody from reading the log.
            let is_of_log = !name.ends_with("tmp");
            for arguments in [&["check"][..], &["dump"], &["dump", "--history"], &["repair"]] {
                let output = tool(arguments, &store.path());
                assert_eq!(output.status.success(), !is_of_log, "{arguments:?}: {}", said(&output));
                assert_eq!(said(&output).contains(kind), is_of_log, "{arguments:?}: {}", said(&output));
            }
        }
    }
}

#[test]
fn nobody_else_may_read_what_is_stored() {
    let store = Store::new();
    // Whatever the umask lets through.
    let open = ["sh", "-c", r#"umask 0; exec "$@""#, "sh"];
    let launch = store.launch().segment_size("64KiB").under(&open);
    let daemon = launch.start();
    let client = daemon.client();
    for _ in 0..2 {
        store_keys(&client, 0..60);
    }
    assert_eq!(client.say("COMPACT"), "OK");
    eventually("a compaction", || client.figure("compactions") > 0 && client.figure("compacting") == 0);
    // A tail to be cut off and kept, on which nothing that was compacted relies.
    assert!(client.say("SET last v").starts_with("OK "));
    daemon.kill();
    let active =
        store.segments().into_iter().rev().find(|path| fs::read(path).expect("a file").iter().any(|b| *b != 0));
    let active = active.expect("an active segment");
    let mut bytes = fs::read(&active).expect("a file");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("something") + 1;
    bytes[end - 1] ^= 1;
    fs::write(&active, &bytes).expect("written");
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o750)).expect("a mode");
    launch.start().stop();
    assert_eq!(mode(&store.path()), 0o750, "a directory that exists keeps its mode");
    let names: Vec<_> = store.contents().into_keys().collect();
    assert!(names.iter().any(|name| name.to_string_lossy().contains("torn-tail")), "{names:?}");
    for name in names {
        assert_eq!(mode(&store.path().join(&name)), 0o600, "{}", name.display());
    }

    // What a load and a repair make.
    let dump = tool(&["dump"], &store.path());
    let (lines, loaded) = (store.beside("lines"), store.beside("loaded/on/the/way"));
    fs::write(&lines, &dump.stdout).expect("lines");
    let in_the_open = |arguments: &[&OsStr]| {
        let run = Command::new("sh").args(["-c", r#"umask 0; exec "$@""#, "sh", KVD]).args(arguments).output();
        let run = run.expect("kvd runs");
        assert!(run.status.success(), "{}", said(&run));
    };
    in_the_open(&["load".as_ref(), "--data-dir".as_ref(), loaded.as_ref(), lines.as_ref()]);
    let segments = crate::daemon::segments(&loaded);
    let mut damaged = fs::read(&segments[0]).expect("a segment");
    damaged[5_000] ^= 1;
    fs::write(&segments[0], damaged).expect("written");
    in_the_open(&["repair".as_ref(), loaded.as_ref(), "--write".as_ref()]);
    assert_eq!((mode(&loaded), mode(&store.beside("loaded"))), (0o700, 0o700));
    for entry in fs::read_dir(&loaded).expect("a directory") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn tools_say_that_there_is_no_log() {
    let store = Store::new();
    let (empty, missing, file) = (store.beside("empty"), store.beside("missing"), store.beside("file"));
    fs::create_dir(&empty).expect("a directory");
    // As a start leaves it that was killed before it had made its first segment.
    let spare = store.beside("spare");
    fs::create_dir(&spare).expect("a directory");
    fs::write(spare.join("segment-00000000000000000001.log"), vec![0; 65_536]).expect("a file");
    fs::write(&file, "").expect("a file");
    let link = store.beside("link");
    symlink("/nowhere/at/all", &link).expect("a link");
    for (arguments, code) in [
        (&["dump"][..], 1),
        (&["dump", "--history"], 1),
        (&["check"], 3),
        (&["check", "--json"], 3),
        (&["repair"], 3),
        (&["repair", "--write"], 3),
    ] {
        for directory in [&empty, &missing, &file, Path::new("/etc"), &link, &spare] {
            let output = tool(arguments, directory);
            assert_eq!(output.status.code(), Some(code), "{arguments:?} {}", directory.display());
            let said = said(&output);
            let expected = if directory == link { "/nowhere/at/all" } else { "there is no log in" };
            assert!(!said.contains("--data-dir") && !said.contains("can't be read"), "{arguments:?}: {said}");
            let of_json = arguments.contains(&"--json").then(|| said.contains("no-log"));
            assert_ne!(of_json, Some(false), "{said}");
            assert!(said.contains(expected) && said.contains(&*directory.to_string_lossy()), "{arguments:?}: {said}");
        }
    }
    assert!(!missing.exists());
    assert_eq!(fs::read_dir(&empty).expect("a directory").count(), 0, "nothing was made");
    assert_eq!(fs::read_dir(&spare).expect("a directory").count(), 1, "nothing was made");
    // What is damaged is there.
    fs::write(spare.join("segment-00000000000000000001.log"), [vec![0; 65_536], vec![1]].concat()).expect("a file");
    assert_eq!(tool(&["check"], &spare).status.code(), Some(2));
    assert!(said(&tool(&["dump"], &spare)).contains("is damaged"));
}

#[test]
fn a_new_store_is_told_of() {
    let store = Store::new();
    let daemon = store.start();
    assert!(daemon.stderr().contains("a new store is made in"), "{}", daemon.stderr());
    daemon.stop();
    let again = store.start();
    assert!(!again.stderr().contains("a new store"), "{}", again.stderr());
    // None is made where it can't listen.
    let unbound = Store::new();
    let ended = unbound.launch().bind("ipc:///kvd-nowhere/socket").refused();
    assert!(!ended.stderr.contains("new store"), "{}", ended.stderr);
    // A mount point without its disk.
    let empty = Store::new();
    fs::create_dir(empty.path()).expect("a directory");
    let daemon = empty.start();
    let told = daemon.stderr();
    let line = told.lines().find(|line| line.contains("holds no log")).unwrap_or_else(|| panic!("not told: {told}"));
    assert!(
        line.contains("WARN") && line.contains("--existing") && line.contains(&*empty.path().to_string_lossy()),
        "{line}"
    );
}

#[test]
fn existing_refuses_to_make_a_new_store() {
    let store = Store::new();
    let existing = store.launch().flag("--existing");
    let by_environment = store.launch().environment("KVD_EXISTING", "1");
    let refuses = |why: &str| {
        for launch in [&existing, &by_environment] {
            let ended = launch.refused();
            assert_eq!(ended.status.code(), Some(1), "{why}: {}", ended.stderr);
            let told = ended.stderr;
            assert!(told.contains("is its disk mounted") && !told.contains("LOCK"), "{why}: {told}");
            assert!(told.contains("--existing") && told.contains(&*store.path().to_string_lossy()), "{why}: {told}");
        }
    };
    refuses("it is missing");
    assert!(!store.path().exists(), "nothing was made");
    fs::create_dir(store.path()).expect("a directory");
    refuses("it is empty");
    assert!(store.contents().is_empty(), "nothing was made");
    // As a start leaves it that was killed before it had made its first segment.
    fs::write(store.path().join("segment-00000000000000000001.log"), vec![0; 65_536]).expect("a file");
    refuses("it holds no store yet");
    store.start().stop();
    existing.start().stop();
}

#[test]
fn a_link_that_leads_nowhere_is_named_with_what_it_leads_to() {
    let store = Store::new();
    symlink("/nowhere/at/all", store.path()).expect("a link");
    let ended = store.launch().refused();
    assert!(ended.stderr.contains("/nowhere/at/all"), "{}", ended.stderr);
    assert!(ended.stderr.contains(&*store.path().to_string_lossy()), "{}", ended.stderr);
}

#[test]
fn a_lock_of_another_user_is_named_with_its_owner() -> io::Result<()> {
    const SOMEBODY: u32 = 61_234;
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give a file to another user");
        return Ok(());
    }
    let store = Store::new();
    store.start().stop();
    // The directory is theirs, and what root left in it is not.
    let binary = store.beside("kvd");
    fs::copy(KVD, &binary)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(store.beside(""), fs::Permissions::from_mode(0o755))?;
    chown(store.path(), Some(SOMEBODY), Some(SOMEBODY))?;
    let ended = store.launch().program(&binary).user(SOMEBODY).refused();
    for word in ["LOCK", "user 0", "61234", "chown", &*store.path().to_string_lossy()] {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    // And a segment, and the directory itself, closed to them or not.
    let somebody = store.launch().program(&binary).user(SOMEBODY);
    chown(store.path().join("LOCK"), Some(SOMEBODY), Some(SOMEBODY))?;
    let told = somebody.refused().stderr;
    assert!(told.contains("segment-00000000000000000001.log: it belongs to user 0, and user 61234"), "{told}");
    for (mode, has_lock) in [(0o755, true), (0o755, false), (0o700, true)] {
        chown(store.path(), Some(0), Some(0))?;
        fs::set_permissions(store.path(), fs::Permissions::from_mode(mode))?;
        if !has_lock {
            fs::remove_file(store.path().join("LOCK"))?;
        } else if !store.path().join("LOCK").exists() {
            fs::write(store.path().join("LOCK"), "")?;
        }
        let told = somebody.refused().stderr;
        let expected = format!("the data directory {} can't be used: it belongs to user 0", store.path().display());
        assert!(told.contains(&expected) && told.contains("chown"), "{mode:o} {has_lock}: {told}");
        assert!(!told.contains("must be able"), "{told}");
    }
    Ok(())
}
