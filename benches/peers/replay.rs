//! How long a start takes on a full disk: the same records in kvd's log and in Redis's append-only file.
//!
//! Both are written by the generator, stopped, and started again in turn. The clock runs from the start of
//! the process to the first GET that is answered, and the last record written must be there. The files are
//! in the page cache, for both: this compares the programs, not the disk.

use crate::load::Load;
use crate::options::Options;
use crate::server::{Fsync, Kind, Server};
use crate::table::{self, median, mib, ratio};
use kvd::tools::bench::keys::KeyShape;
use kvd::tools::bench::load::{self, Plan};
use kvd::tools::bench::protocol::Answer;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Writes the records into each server's own directory, then starts each in turn and prints the medians.
///
/// # Errors
/// A server fails, or a record is not there after a start.
pub fn run(options: &Options, kinds: &[Kind], scratch: &Path) -> io::Result<()> {
    let keeps = |kind: &Kind| matches!(kind, Kind::Kvd | Kind::Redis);
    let kinds: Vec<Kind> = kinds.iter().copied().filter(keeps).collect();
    let directory = tempfile::tempdir_in(scratch)?;
    let place = |kind: Kind| directory.path().join(kind.name());
    for kind in &kinds {
        eprintln!("writing {} records into {}", options.records(), kind.name());
        write(options, *kind, &place(*kind))?;
    }

    let mut seconds = vec![Vec::new(); kinds.len()];
    let mut resident = vec![0; kinds.len()];
    for round in 0..options.rounds() {
        for (i, kind) in kinds.iter().enumerate() {
            eprintln!("replay, round {}, {}", round + 1, kind.name());
            let server = Server::start(&options.programs(), *kind, &place(*kind), Fsync::Always)?;
            let last = KeyShape::default().key(options.records() - 1);
            if server.connect()?.ask(&[b"GET", &last])? != Answer::Ok {
                return Err(io::Error::other(format!("{} lost the last record", kind.name())));
            }
            seconds[i].push(server.ready_after.as_secs_f64());
            resident[i] = server.process.memory()?.resident;
            server.stop()?;
        }
    }

    let redis = kinds.iter().position(|kind| *kind == Kind::Redis).map(|i| median(&seconds[i]));
    let mut rows = Vec::new();
    for (i, kind) in kinds.iter().enumerate() {
        let time = median(&seconds[i]);
        rows.push(vec![
            kind.name().to_owned(),
            options.records().to_string(),
            mib(size(&place(*kind))?),
            format!("{time:.2}"),
            ratio(time, redis),
            format!("{:.2}", options.records() as f64 / time / 1e6),
            mib(resident[i]),
        ]);
    }
    table::print(
        "Replay",
        1,
        &["server", "records", "on disk MiB", "ready after s", "to Redis", "M records/s", "resident MiB"],
        &rows,
    );
    Ok(())
}

fn write(options: &Options, kind: Kind, directory: &Path) -> io::Result<()> {
    let server = Server::start(&options.programs(), kind, directory, Fsync::Never)?;
    let plan = Plan { keys: options.records(), ..Load::set(1, 1).plan(options, kind) };
    load::run(kind.protocol(), &server.address, &plan.fill())?.whole()?;
    server.stop()
}

/// Bytes of all files below a directory.
fn size(directory: &Path) -> io::Result<u64> {
    let mut total = 0;
    let mut directories = vec![PathBuf::from(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                directories.push(entry.path());
            } else {
                total += metadata.len();
            }
        }
    }
    Ok(total)
}
