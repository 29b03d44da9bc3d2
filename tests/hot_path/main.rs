//! What a command costs in allocations: a count, which another load on the machine changes by little.
//!
//! The daemon runs within this process, whose allocator counts what kvd's threads ask of it. (libzmq, which is C++, is not
//! counted.) The figures below are what was measured, and each has some room for what comes once a batch: how many commands
//! share one is a matter of timing, so the least of three runs counts. A figure that is exceeded has to be explained, or
//! mended.

use kvd::cli::Flags;
use rustix::process::{Signal, getpid, kill_process};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Commands that are counted for each figure.
const COMMANDS: usize = 20_000;
/// How often each is counted.
const RUNS: usize = 3;
/// Requests that wait for their replies at a time.
const IN_FLIGHT: usize = 64;
const VALUE: [u8; 100] = [b'v'; 100];
/// How long a reply may take, in milliseconds.
const PATIENCE: i32 = 60_000;

/// mimalloc, which counts.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is the test's own.
    static UNCOUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if !UNCOUNTED.try_with(Cell::get).unwrap_or(true) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to mimalloc as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the rules of this very function.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn key(n: usize) -> Vec<u8> {
    format!("key:{n:012}").into_bytes()
}

fn set(n: usize) -> Vec<Vec<u8>> {
    vec![Vec::new(), b"SET".to_vec(), key(n), VALUE.to_vec()]
}

fn get(n: usize) -> Vec<Vec<u8>> {
    vec![Vec::new(), b"GET".to_vec(), key(n)]
}

/// A message of the packed dialect with so many commands, whose bytes each `command` appends. `docs/protocol.md` has the layout.
fn packed(commands: usize, mut command: impl FnMut(&mut Vec<u8>)) -> Vec<Vec<u8>> {
    let mut body = vec![1, u8::try_from(commands).expect("few commands")];
    (0..commands).for_each(|_| command(&mut body));
    vec![Vec::new(), body]
}

fn blob(bytes: &[u8], into: &mut Vec<u8>) {
    into.push(u8::try_from(bytes.len()).expect("a short one"));
    into.extend_from_slice(bytes);
}

/// Has every request answered, and returns the allocations for each of so many commands.
fn allocations(peer: &zmq::Socket, commands: usize, requests: &[Vec<Vec<u8>>]) -> f64 {
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    let mut waiting = 0;
    let receive = || {
        let reply = peer.recv_multipart(0).expect("a reply in time");
        assert!(reply[1] == b"OK" || reply[1].first() == Some(&1), "refused: {:?}", reply[1]);
    };
    for request in requests {
        if waiting == IN_FLIGHT {
            receive();
            waiting -= 1;
        }
        peer.send_multipart(request, 0).expect("room for a request");
        waiting += 1;
    }
    (0..waiting).for_each(|_| receive());
    (ALLOCATIONS.load(Ordering::SeqCst) - before) as f64 / commands as f64
}

#[test]
fn a_set_costs_one_allocation_and_a_get_none() {
    UNCOUNTED.set(true);
    let directory = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}/socket", directory.path().display());
    let data = directory.path().join("data").display().to_string();
    let words = ["kvd", "--data-dir", &data, "--bind", &endpoint, "--fsync", "never"];
    let flags = Flags::read(words.map(Into::into), &|_| None).expect("flags that are right");
    let config = flags.validate(&kvd::server::machine()).expect("flags that are right");
    let daemon = thread::spawn(move || kvd::server::run(&config));

    let context = zmq::Context::new();
    let peer = context.socket(zmq::DEALER).expect("a socket");
    peer.set_rcvtimeo(PATIENCE).expect("a time-out");
    peer.set_linger(0).expect("no linger");
    peer.connect(&endpoint).expect("an endpoint");

    let all = |request: &dyn Fn(usize) -> Vec<Vec<u8>>| (0..COMMANDS).map(request).collect::<Vec<_>>();
    let lists_of_sets = || {
        let mut n = 0;
        let message = |_| {
            packed(100, |body| {
                body.push(2);
                blob(&key(n), body);
                blob(&VALUE, body);
                body.extend_from_slice(&[0, 0, 0]);
                n += 1;
            })
        };
        (0..COMMANDS / 100).map(message).collect::<Vec<_>>()
    };
    let gets_in_lists = || {
        let mut n = 0;
        let message = |_| {
            packed(100, |body| {
                body.push(1);
                blob(&key(n), body);
                n += 1;
            })
        };
        (0..COMMANDS / 100).map(message).collect::<Vec<_>>()
    };
    // Once uncounted: tables and buffers grow to what they need.
    for requests in [all(&set), all(&get), lists_of_sets(), gets_in_lists()] {
        allocations(&peer, COMMANDS, &requests);
    }
    let figures = [
        ("SET", all(&set), 1.6),
        ("GET", all(&get), 0.05),
        ("packed SET", lists_of_sets(), 1.1),
        ("packed GET", gets_in_lists(), 0.05),
    ];
    for (name, requests, most) in figures {
        let each = (0..RUNS).map(|_| allocations(&peer, COMMANDS, &requests)).fold(f64::INFINITY, f64::min);
        println!("{name}: {each:.3} allocations");
        assert!(each <= most, "{name}: {each:.3} allocations a command, and {most} are allowed");
    }
    kill_process(getpid(), Signal::TERM).expect("a signal");
    daemon.join().expect("a thread that ends well").expect("an orderly stop");
}
