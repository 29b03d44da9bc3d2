//! `kvd check`: its exit code tells what a start would do, and it changes nothing.

use crate::daemon::Store;
use std::fs;
use std::path::Path;
use std::process::Command;

fn check(directory: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kvd")).arg("check").arg(directory).output().expect("kvd check");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_check_says_is_what_a_start_does() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    for n in 0..50 {
        client.say(&format!("SET needle-{n:03} value"));
    }
    let beside = check(&store.path());
    assert_eq!(beside.0, Some(0), "beside a running daemon: {}", beside.1);
    daemon.kill();
    let (code, said) = check(&store.path());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("50 records: clean"), "{said}");

    let segment = store.path().join("segment-00000000000000000001.log");
    let whole = fs::read(&segment).expect("the segment");
    let damage = |needle: &str| {
        let mut bytes = whole.clone();
        let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).expect("the key");
        bytes[at] ^= 1;
        fs::write(&segment, &bytes).expect("a damaged segment");
        let before = store.contents();
        let found = check(&store.path());
        assert!(before == store.contents(), "check changed something");
        found
    };
    let (code, said) = damage("needle-049");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("torn tail at offset"), "{said}");
    let (code, said) = damage("needle-020");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("DAMAGED at offset"), "{said}");
    assert_eq!(check(Path::new("/nowhere/at/all")).0, Some(3));
}
