//! What the machine can do at all with values of these sizes: the disk, written and synced; loopback, there and back.
//!
//! No server is part of this. It is what the rates of large values are to be held against.

use crate::options::Options;
use crate::results::Results;
use crate::table::{self, least_most, median, short};
use serde_json::json;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are written, read or echoed at once.
const SIZES: [usize; 5] = [16, 100, 1 << 10, 64 << 10, 1 << 20];
/// After so many bytes the file begins anew, so that it fills no disk.
const FILE: u64 = 1 << 30;

/// Measures both for every size, round by round, and prints the medians.
///
/// # Errors
/// The disk or loopback fails.
pub fn run(options: &Options, scratch: &Path, results: &mut Results) -> io::Result<()> {
    let time = Duration::from_secs_f64(options.seconds());
    let mut rows = Vec::new();
    for size in SIZES {
        for (name, measure) in [
            ("write and fdatasync", disk as fn(&Path, usize, Duration) -> io::Result<f64>),
            ("echo over loopback", echo),
        ] {
            let mut rates = Vec::new();
            for round in 0..options.rounds() {
                eprintln!("{name}, {size} B, round {}", round + 1);
                rates.push(measure(scratch, size, time)?);
            }
            let rate = median(&rates);
            rows.push(vec![
                name.to_owned(),
                size.to_string(),
                short(rate),
                least_most(&rates),
                format!("{:.0}", rate * size as f64 / f64::from(1 << 20)),
            ]);
            results.add("bandwidth", json!({ "what": name, "value": size, "rates": rates, "per_second": rate }));
        }
    }
    table::print(
        "What the machine can do, one at a time",
        1,
        &["what", "bytes", "a second", "least–most", "MiB/s"],
        &rows,
    );
    Ok(())
}

/// Writes a second, each synced, at the end of a growing file.
fn disk(scratch: &Path, size: usize, time: Duration) -> io::Result<f64> {
    let directory = tempfile::tempdir_in(scratch)?;
    let mut file = File::create(directory.path().join("file"))?;
    let bytes = vec![b'v'; size];
    let (start, mut count, mut length) = (Instant::now(), 0_u32, 0);
    while start.elapsed() < time {
        if length + size as u64 > FILE {
            file = File::create(directory.path().join("file"))?;
            length = 0;
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        count += 1;
        length += size as u64;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// Echoes a second between two threads.
fn echo(_scratch: &Path, size: usize, time: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut bytes = vec![0; size];
            // Until the other end closes, which it does between two messages.
            while stream.read_exact(&mut bytes).is_ok() {
                stream.write_all(&bytes)?;
            }
            Ok::<_, io::Error>(())
        });
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut bytes = vec![b'v'; size];
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < time {
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
            count += 1;
        }
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        drop(stream);
        other.join().expect("the thread that echoes does not panic")?;
        Ok(rate)
    })
}
