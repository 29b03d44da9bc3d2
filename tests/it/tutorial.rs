//! The tutorial's client must run against kvd unchanged: `tests/python/tutorial_client.py` is that client, and
//! stores and fetches Python objects with every pickle protocol, before and after kill -9.
//!
//! Needs Python with pyzmq: `KVD_PYTHON`, else `.venv/bin/python3`, else `python3`.

use crate::daemon::{Daemon, Store};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python to use.
pub fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("KVD_PYTHON") {
        return python.into();
    }
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python3");
    if venv.exists() { venv } else { "python3".into() }
}

/// Runs the client; its assertions are ours.
fn run_client(daemon: &Daemon, verb: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/tutorial_client.py");
    let output = Command::new(python()).arg(script).args([daemon.endpoint(), verb]).output();
    let output = output.unwrap_or_else(|error| panic!("{} does not run: {error}", python().display()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !stderr.contains("No module named 'zmq'"),
        "this test needs pyzmq: `{} -m pip install pyzmq`",
        python().display()
    );
    assert!(output.status.success(), "{verb}: {stderr}");
}

#[test]
fn objects_survive_every_protocol_and_kill_9() {
    let store = Store::new();
    let daemon = store.start();
    run_client(&daemon, "store");
    run_client(&daemon, "fetch");
    daemon.kill();
    let daemon = store.start();
    run_client(&daemon, "fetch");
    daemon.stop();
    run_client(&store.start(), "fetch");
}

#[test]
fn frames_and_pickles_share_their_str_keys() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    // `('set', 'k', 'v')` and `('get', 'k', None)` in protocol 0.
    assert_eq!(client.call(&[b"(Vset\nVk\nVv\nt."]), [b"ok"]);
    let reply = client.call(&[b"GET", b"k"]);
    assert_eq!(reply[0], b"OK");
    assert_eq!(reply[3], (1_u64 << 31).to_string().into_bytes(), "flag bit 31: the value is a pickle");
    let pickle = reply[1].clone();
    assert_eq!(client.call(&[b"(Vget\nVk\nNt."]), [pickle]);
    // A plain value comes as a pickle of bytes, which begins with PROTO.
    assert!(client.say("SET plain text").starts_with("OK "));
    let reply = client.call(&[b"(Vget\nVplain\nNt."]);
    assert_eq!(reply.len(), 1);
    assert_eq!((reply[0][0], reply[0].last()), (0x80, Some(&b'.')));
    assert!(reply[0].windows(4).any(|window| window == b"text"));
}
