//! A tool whose output nobody reads any more ends as others on a pipe do: by SIGPIPE, without a word.

use crate::daemon::{KVD, Store};
use rustix::process::Signal;
use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

/// Runs a tool whose standard output has no reader, and tells how it ended and what it said.
fn into_a_closed_pipe(arguments: &[&str]) -> (ExitStatus, String) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = Command::new(KVD);
    let mut child = child.args(arguments).stdout(writer).stderr(Stdio::piped()).spawn().expect("a kvd");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    (child.wait().expect("a child of ours"), said)
}

#[test]
fn a_closed_pipe_ends_a_tool_without_a_word() {
    let store = Store::new();
    let daemon = store.launch().segment_size("64KiB").start();
    daemon.client().say("SET k v");
    let endpoint = daemon.endpoint().to_owned();
    let directory = store.path().display().to_string();
    for arguments in [
        &["dump", &directory][..],
        &["dump", &directory, "--history"],
        &["check", &directory],
        &["check", &directory, "--json"],
        &["repair", &directory],
        &["bench", "--endpoint", &endpoint, "--requests", "10", "--peers", "1"],
        &["bench", "--endpoint", &endpoint, "--requests", "10", "--peers", "1", "--json"],
    ] {
        let (status, said) = into_a_closed_pipe(arguments);
        assert_eq!((status.signal(), &*said), (Some(Signal::PIPE.as_raw()), ""), "{arguments:?}");
    }
}

/// It has done its work by then.
#[test]
fn a_repair_that_nobody_reads_of_is_done() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    for key in ["first", "second", "third"] {
        client.say(&format!("SET {key} value-of-{key}"));
    }
    daemon.kill();
    let [segment, ..] = &store.segments()[..] else { panic!("no segment") };
    let mut bytes = fs::read(segment).expect("a segment");
    let at = memchr::memmem::find(&bytes, b"value-of-first").expect("a value");
    bytes[at] ^= 1;
    fs::write(segment, bytes).expect("written");
    let directory = store.path().display().to_string();
    let (status, said) = into_a_closed_pipe(&["repair", &directory, "--write"]);
    assert_eq!((status.signal(), &*said), (Some(Signal::PIPE.as_raw()), ""));
    assert_eq!(into_a_closed_pipe(&["check", &directory]).0.signal(), Some(Signal::PIPE.as_raw()));
    let check = Command::new(KVD).args(["check", &directory]).output().expect("a kvd");
    assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stdout));
}
