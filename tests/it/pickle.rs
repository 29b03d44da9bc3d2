//! The pickle dialect held against CPython, and against what no pickler would write.
//!
//! `tests/python/make_pickles.py` makes requests with the picklers of the `python3` at hand, is told what kvd
//! makes of each, and loads what kvd would store with that Python's unpicklers. This file knows bytes and
//! commands, the script knows objects and what equals what.

use kvd::command::{Command, ErrorCode, Limits, SetOptions};
use kvd::mutation::{PICKLED, Space};
use kvd::wire::WireError;
use kvd::wire::pickle::{decode, is_key, restore};
use std::collections::HashMap;
use std::fs;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command as Process, Stdio};

/// A decoded request that owns what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    /// What a set stores.
    value: Option<Vec<u8>>,
    space: Space,
    key: Vec<u8>,
}

fn request(message: &[u8]) -> Result<Request, WireError> {
    let mut scratch = Vec::new();
    match decode(message, &Limits::default(), &mut scratch)? {
        Command::Get { key } => Ok(Request { value: None, space: key.space, key: key.bytes.to_vec() }),
        Command::Set { key, value, options } => {
            assert_eq!(options, SetOptions { flags: PICKLED, ..SetOptions::default() });
            Ok(Request { value: Some(value.to_vec()), space: key.space, key: key.bytes.to_vec() })
        }
        other => panic!("{other:?} from a pickle"),
    }
}

/// The conversation with the script: frames of a four-byte little-endian length and that many bytes.
struct Python {
    process: Child,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Python {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/make_pickles.py");
        let mut process = Process::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need a python3 of version 3.11 or later");
        let to = BufWriter::new(process.stdin.take().expect("is piped"));
        let from = BufReader::new(process.stdout.take().expect("is piped"));
        Python { process, to, from }
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length).expect("Python found a mismatch and says above which");
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        self.from.read_exact(&mut frame).expect("a whole frame");
        frame
    }

    fn receive_text(&mut self) -> String {
        String::from_utf8(self.receive()).expect("UTF-8")
    }

    fn send(&mut self, frames: &[&[u8]]) {
        for frame in frames {
            self.to.write_all(&(frame.len() as u32).to_le_bytes()).expect("Python reads");
            self.to.write_all(frame).expect("Python reads");
        }
        self.to.flush().expect("Python reads");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn cpython_gets_back_what_it_put_in() {
    let mut python = Python::start();
    // Keys that are one key in Python are one key here, whatever the pickler and the protocol; others are not.
    let mut key_of_class: HashMap<String, (Space, Vec<u8>)> = HashMap::new();
    let mut class_of_key: HashMap<(Space, Vec<u8>), String> = HashMap::new();
    let mut cases = 0;
    loop {
        match &*python.receive() {
            b"round trip" => {
                let class = python.receive_text();
                let get = request(&python.receive()).expect("a get");
                let set = request(&python.receive()).expect("a set");
                assert_eq!((get.value, get.space, &get.key), (None, set.space, &set.key));
                assert!(get.space == Space::Bytes || is_key(&get.key), "{class}");
                let key = (get.space, get.key);
                assert_eq!(key_of_class.entry(class.clone()).or_insert_with(|| key.clone()), &key);
                assert_eq!(class_of_key.entry(key).or_insert_with(|| class.clone()), &class);
                python.send(&[&set.value.expect("a set stores"), &[set.space as u8], &set.key]);
            }
            b"refused" => {
                let what = python.receive_text();
                let refusal = request(&python.receive()).expect_err(&what);
                assert!(what.starts_with(refusal.code.name()), "{what}: {refusal}");
            }
            b"mutant" => {
                let message = python.receive();
                match request(&message) {
                    Ok(Request { value: None, space, key }) => python.send(&[b"get", b"", &[space as u8], &key]),
                    Ok(Request { value: Some(value), space, key }) => {
                        check_stored(&message, &value);
                        python.send(&[b"set", &value, &[space as u8], &key]);
                    }
                    Err(_) => python.send(&[b"refused", b"", b"\0", b""]),
                }
            }
            b"end" => {
                assert_eq!(python.receive_text(), cases.to_string());
                println!("{cases} cases, {} different keys", class_of_key.len());
                return;
            }
            other => panic!("Python says {other:?}"),
        }
        cases += 1;
    }
}

/// A value is its message, but for the opcode that closed the tuple.
fn check_stored(message: &[u8], value: &[u8]) {
    assert_eq!(restore(value).as_deref(), Some(message));
    assert_eq!(message.len(), value.len());
    let changed: Vec<_> = message.iter().zip(value).filter(|(was, is)| was != is).collect();
    assert!(matches!(changed[..], [(b't' | 0x87, b'.')]), "{message:?} is stored as {value:?}");
}

fn seeds() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/pickle");
    let seeds: Vec<_> = fs::read_dir(directory)
        .expect("seeds")
        .map(|entry| fs::read(entry.expect("an entry").path()).expect("a file"))
        .collect();
    assert!(seeds.len() > 40);
    seeds
}

#[test]
fn cut_anywhere_is_refused() {
    for seed in seeds() {
        assert!(request(&seed).is_ok());
        for length in 0..seed.len() {
            assert_eq!(request(&seed[..length]).expect_err("cut").code, ErrorCode::BadArgument);
        }
    }
}

#[test]
fn any_byte_may_be_any_other() {
    let mut accepted = 0;
    for seed in seeds() {
        for at in 0..seed.len() {
            let mut message = seed.clone();
            for byte in 0..=u8::MAX {
                message[at] = byte;
                let Ok(request) = request(&message) else { continue };
                accepted += 1;
                let Some(value) = request.value else { continue };
                check_stored(&message, &value);
            }
        }
    }
    assert!(accepted > 10_000, "{accepted}: most bytes of a string may change");
}

#[test]
fn bytes_behind_a_request_are_refused() {
    for seed in seeds() {
        for byte in 0..=u8::MAX {
            let longer = [&seed[..], &[byte]].concat();
            assert_eq!(request(&longer).expect_err("longer").code, ErrorCode::BadArgument);
        }
    }
}

#[test]
fn nesting_takes_no_stack() {
    // As deep as a message of a MiB can be: lists in lists, tuples in tuples, marks on marks.
    let deep = 1 << 20;
    let around = |data: Vec<u8>| [b"\x80\x02X\x03\0\0\0setK\x01", &data[..], b"\x87."].concat();
    assert!(request(&around([b"]".repeat(deep), b"a".repeat(deep - 1)].concat())).is_ok());
    assert!(request(&around([b"N".to_vec(), b"\x85".repeat(deep)].concat())).is_ok());
    let marks = request(&around([b"(".repeat(deep), b"t".repeat(deep)].concat()));
    assert_eq!(marks.expect_err("too deep").code, ErrorCode::BadArgument);
    let key = [b"\x80\x02X\x03\0\0\0get)", &b"\x85".repeat(deep)[..], b"N\x87."].concat();
    assert_eq!(request(&key).expect_err("too long").code, ErrorCode::TooBig);
}

#[test]
fn announced_lengths_allocate_nothing() {
    // Were a length believed before the bytes are there, each of these would ask for exabytes and abort.
    for opcode in [&b"\x8d"[..], b"\x8e", b"\x96", b"\x95"] {
        for length in [u64::MAX, u64::MAX - 20, 1 << 62, 1 << 32] {
            let message = [b"\x80\x05\x8c\x03set", opcode, &length.to_le_bytes(), b"k\x8c\x01vN\x87."].concat();
            assert_eq!(request(&message).expect_err("not there").code, ErrorCode::BadArgument);
        }
    }
}
