//! Where kvd listens: what an endpoint means, alone and beside others, what is in its way, and what is said of one that
//! can't be.

use crate::daemon::{Client, Daemon, KVD, Store};
use rustix::fs::{CWD, Mode, mkfifoat};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};

/// Refused for a reason that lasts.
const LASTS: Option<i32> = Some(1);
/// Refused for a reason that may pass.
const MAY_PASS: Option<i32> = Some(75);

fn bench(arguments: &[&str]) -> Output {
    Command::new(KVD).arg("bench").args(arguments).output().expect("kvd runs")
}

/// Whether this machine speaks IPv6; if not, the test is left out.
fn has_ipv6() -> bool {
    let found = TcpListener::bind("[::1]:0");
    if let Err(error) = &found {
        eprintln!("no IPv6 here, so this is left out: {error}");
    }
    found.is_ok()
}

/// A port that the daemon answers on, over IPv4.
fn answers_over_ipv4(endpoint: &str) -> bool {
    let port = endpoint.rsplit(':').next().expect("a port");
    Client::req(&format!("tcp://127.0.0.1:{port}")).say("PING") == "OK PONG"
}

#[test]
fn whatever_is_at_the_path_of_a_socket_stays() {
    let store = Store::new();
    let path = store.beside("socket");
    let beside = store.beside("notes");
    fs::write(&beside, "mine").expect("written");
    let kinds: [(&str, &dyn Fn()); 4] = [
        ("a file", &|| fs::write(&path, "mine").expect("written")),
        ("a directory", &|| fs::create_dir(&path).expect("made")),
        ("a symbolic link", &|| symlink(&beside, &path).expect("made")),
        ("a FIFO", &|| mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("made")),
    ];
    for (kind, make) in kinds {
        make();
        let before = fs::symlink_metadata(&path).expect("there");
        let ended = store.launch().bind(&store.ipc_endpoint()).refused();
        assert_eq!(ended.status.code(), LASTS, "{kind}: {}", ended.stderr);
        assert!(ended.stderr.contains(kind) && ended.stderr.contains(&store.ipc_endpoint()), "{}", ended.stderr);
        let after = fs::symlink_metadata(&path).expect("still there");
        assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()), "{kind}");
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
    assert_eq!(fs::read(&beside).expect("still there"), b"mine");
}

#[test]
fn a_stop_removes_its_own_socket_and_nothing_that_took_its_place() {
    let store = Store::new();
    let path = store.beside("socket");
    let launch = store.launch().bind(&store.ipc_endpoint());
    launch.start().stop();
    assert!(!path.exists(), "its own");
    let daemon = launch.start();
    fs::remove_file(&path).expect("a socket");
    let _other = UnixListener::bind(&path).expect("a socket of another");
    daemon.stop();
    UnixStream::connect(&path).expect("the other one is still there");
    fs::remove_file(&path).expect("a socket");
    let daemon = launch.start();
    fs::remove_file(&path).expect("a socket");
    fs::write(&path, "mine").expect("written");
    daemon.stop();
    assert_eq!(fs::read(&path).expect("still there"), b"mine");
}

#[test]
fn a_living_process_keeps_its_socket_and_one_in_the_data_directory_is_possible() {
    let store = Store::new();
    let endpoint = format!("ipc://{}/socket", store.path().display());
    let daemon = store.launch().bind(&endpoint).start();
    let second = Store::new();
    let ended = second.launch().bind(&endpoint).refused();
    assert_eq!(ended.status.code(), MAY_PASS, "{}", ended.stderr);
    assert_eq!(daemon.client().say("PING"), "OK PONG");
    daemon.kill();
    let daemon = store.launch().bind(&endpoint).start();
    assert_eq!(daemon.client().say("PING"), "OK PONG");
    daemon.stop();
}

#[test]
fn an_abstract_name_has_no_file_and_takes_none() {
    let store = Store::new();
    let here = store.beside("here");
    fs::create_dir(&here).expect("a directory");
    let name = format!("@kvd-test-{}", std::process::id());
    fs::write(here.join(&name), "mine").expect("written");
    let endpoint = format!("ipc://{name}");
    let launch = store.launch().bind(&endpoint).under(&["env".as_ref(), "-C".as_ref(), here.as_os_str()]);
    let daemon = launch.start();
    assert_eq!(daemon.endpoints(), [endpoint.as_str()]);
    assert_eq!(Client::req(&endpoint).say("PING"), "OK PONG");
    let output = bench(&["--endpoint", &endpoint, "--requests", "10", "--peers", "1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ended = Store::new().launch().bind(&endpoint).refused();
    assert_eq!(ended.status.code(), MAY_PASS, "{}", ended.stderr);
    daemon.stop();
    assert_eq!(fs::read(here.join(&name)).expect("still there"), b"mine");
}

#[test]
fn an_endpoint_means_beside_others_what_it_means_alone() {
    if !has_ipv6() {
        return;
    }
    let store = Store::new();
    let binds = ["tcp://lo:*", "tcp://[::1]:*", "tcp://127.0.0.1:*", "tcp://[::ffff:127.0.0.1]:*", "tcp://localhost:*"];
    let launch = binds.iter().fold(store.launch(), |launch, bind| launch.bind(bind));
    let daemon = launch.start();
    let begin =
        ["tcp://127.0.0.1:", "tcp://[::1]:", "tcp://127.0.0.1:", "tcp://[::ffff:127.0.0.1]:", "tcp://127.0.0.1:"];
    assert_eq!(daemon.endpoints().len(), begin.len());
    for (endpoint, begin) in daemon.endpoints().iter().zip(begin) {
        assert!(endpoint.starts_with(begin), "{endpoint} is asked for as {begin}");
        if !endpoint.contains("[::1]") {
            assert!(answers_over_ipv4(endpoint));
        }
    }
}

#[test]
fn tools_reach_whatever_the_daemon_listens_on() {
    if !has_ipv6() {
        return;
    }
    let store = Store::new();
    let abstract_name = format!("ipc://@kvd-tools-{}", std::process::id());
    let launch = store.launch().bind("tcp://127.0.0.1:*").bind("tcp://[::1]:*").bind("tcp://[::ffff:127.0.0.1]:*");
    let daemon = launch.bind(&store.ipc_endpoint()).bind(&abstract_name).start();
    let line = store.beside("line");
    fs::write(&line, "{\"key\":\"k\",\"value\":\"v\"}\n").expect("written");
    for endpoint in daemon.endpoints() {
        let load = Command::new(KVD).arg("load").arg(&line).args(["--server", endpoint]).output().expect("kvd runs");
        assert!(load.status.success(), "{endpoint}: {}", String::from_utf8_lossy(&load.stderr));
        let output = bench(&["--endpoint", endpoint, "--requests", "10", "--peers", "1"]);
        assert!(output.status.success(), "{endpoint}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// In a network of its own, where such an address can be had.
#[test]
fn a_link_local_address_is_bound_in_its_zone() {
    let store = Store::new();
    let network = "ip link set lo up && ip -6 addr add fe80::1/64 dev lo nodad && exec \"$@\"";
    let wrapper = ["unshare", "-rn", "sh", "-c", network, "sh"];
    let tried = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        eprintln!("no network of its own, so this is left out: {tried:?}");
        return;
    }
    let launch = store.launch().under(&wrapper).flag("--insecure-bind");
    let daemon = launch.clone().bind("tcp://[fe80::1%lo]:*").start();
    let endpoint = daemon.endpoint().to_owned();
    assert!(endpoint.starts_with("tcp://[fe80::1%lo]:"), "{endpoint}");
    let process = daemon.number().to_string();
    let inside = Command::new("nsenter")
        .args(["-t", &process, "-U", "-n", "--preserve-credentials", KVD, "bench", "--requests", "10", "--peers", "1"])
        .args(["--endpoint", &endpoint])
        .output()
        .expect("nsenter");
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stderr));
    daemon.stop();
    let ended = launch.bind("tcp://[fe80::1%kvd0]:*").refused();
    assert_eq!(ended.status.code(), MAY_PASS, "it may come up: {}", ended.stderr);
    assert!(ended.stderr.contains("`kvd0`"), "{}", ended.stderr);
}

#[test]
fn a_place_that_is_not_there_may_come_and_what_is_wrong_lasts() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = format!("tcp://{}", taken.local_addr().expect("an address"));
    let usage = Some(2);
    for (endpoint, code, named) in [
        (&*taken, MAY_PASS, "another process listens on that port"),
        ("tcp://198.51.100.77:*", MAY_PASS, "no interface of this machine has that address"),
        ("tcp://kvd-none0:*", MAY_PASS, "Host names are not resolved"),
        ("tcp://cache.example.org:*", usage, "host names are not resolved"),
        ("tcp://db.example:*", usage, "host names are not resolved"),
        ("tcp://256.1.1.1:*", usage, "host names are not resolved"),
        ("tcp://[fe80::1]:*", usage, "%eth0"),
        ("ipc:///kvd-nowhere/socket", LASTS, "its directory is not there"),
        ("ipc:///sys/kvd-socket", LASTS, "kvd may not make a file in its directory"),
        ("ipc:///tmp/my socket", usage, "no blanks"),
        (&format!("ipc:///tmp/{}", "x".repeat(200)), usage, "107 bytes at most, and this one has 205"),
    ] {
        let store = Store::new();
        let ended = store.launch().flag("--insecure-bind").bind(endpoint).refused();
        assert_eq!(ended.status.code(), code, "{endpoint}: {}", ended.stderr);
        assert!(ended.stderr.contains(named) && ended.stderr.contains("--bind"), "{endpoint}: {}", ended.stderr);
        let place = endpoint.rsplit_once(':').map_or(endpoint, |(place, _)| place);
        assert!(ended.stderr.contains(place), "{endpoint}: {}", ended.stderr);
        let launch = store.launch().bind("").flag("--insecure-bind").environment("KVD_BIND", endpoint);
        let ended = launch.refused();
        assert!(ended.stderr.contains("KVD_BIND"), "{endpoint}: {}", ended.stderr);
    }
}

/// Another process may go away, kvd's own endpoint does not.
#[test]
fn endpoints_of_one_start_that_take_the_same_place_are_both_named() {
    let store = Store::new();
    let (path, same) = (store.ipc_endpoint(), format!("ipc://{}", store.beside("./socket").display()));
    // Nobody else listens on that address.
    let port = TcpListener::bind("127.77.3.4:0").and_then(|free| free.local_addr()).expect("a port").port();
    let tcp = [format!("tcp://127.77.3.4:{port}"), format!("tcp://[::ffff:127.77.3.4]:{port}")];
    let pairs = [[path.clone(), same], tcp];
    for [one, other] in pairs.iter().take(if has_ipv6() { 2 } else { 1 }) {
        let ended = store.launch().bind(one).bind(other).refused();
        assert_eq!(ended.status.code(), LASTS, "{}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("can't listen on {other}: {one}, which this start")),
            "{}",
            ended.stderr
        );
    }
    let ended = store.launch().bind(&path).bind(&path).refused();
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("{path} is given twice")), "{}", ended.stderr);
}

#[test]
fn a_blank_after_the_comma_of_the_variable_is_no_part_of_an_endpoint() {
    let store = Store::new();
    let both = format!("tcp://127.0.0.1:*, {}", store.ipc_endpoint());
    let daemon: Daemon = store.launch().bind("").environment("KVD_BIND", both).start();
    assert_eq!(daemon.endpoints().len(), 2);
    assert_eq!(daemon.endpoints()[1], store.ipc_endpoint());
    assert!(fs::symlink_metadata(store.beside("socket")).expect("there").file_type().is_socket());
}
