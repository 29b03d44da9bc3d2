//! What kvd promises, tested from outside the crate: one binary, so that it links once; one module a behaviour.
//!
//! The first half drives the library's parts, most of it on a fake disk. The second half drives a real process: every such
//! test starts its own daemon on its own directory and ports, so that all of them run side by side.
#![allow(missing_docs, clippy::missing_panics_doc)]

/// Every kind of damage at every place of a log with rotation and compaction behind it.
mod damage;
/// The fake disk against the real one.
mod disks;
/// Each command and each of its errors, asked in the frames dialect as a client would.
mod engine_commands;
/// Random commands, commits and refusals against a simple model; every commit against a replay of its mutations.
mod engine_model;
/// SCAN returns whatever is present throughout, while everything else comes and goes.
mod engine_scan;
/// The frames dialect: what it accepts, what it refuses and how it says so.
mod frames;
/// Compaction on a fake disk, against a model of the table, with crashes in between.
mod log_compaction;
/// A directory that was copied file by file while kvd ran.
mod log_copy;
/// The log on a fake disk that crashes after every operation.
mod log_crash;
/// The log under damage: each row of the decision table, every cut, every flipped bit.
mod log_damage;
/// A directory that an older kvd wrote, and what only a newer one can have written.
mod log_formats;
/// The bytes on disk, frozen.
mod log_golden;
/// A log with a memory of what was written, which the others share.
mod log_store;
/// The packed dialect: each command and reply, byte by byte, and what is refused.
mod packed_bytes;
/// What is found in a damaged segment.
mod salvage;
/// The whole store on a fake disk, against a model: commands, commits, compaction, crashes and clocks in any order.
mod store_model;
/// The table's count of its memory against the allocator's.
mod table_memory;

/// The pickle dialect against pickles that CPython made, and against hostile ones.
mod pickle;

/// What peers were told of each key, and whether an order of events explains it.
#[expect(dead_code, reason = "the simulation needs more of it")]
mod history;
/// The store of `store_model`, and the model that it is held against.
mod store_judge;
mod store_steps;
mod store_under_test;

/// The packed dialect as a client has it.
mod packed_codec;

/// The helpers: a daemon to hit, and peers to hit it with.
mod daemon;
/// A cgroup that limits memory.
mod memory_group;
/// What a recovered store may hold, and tests that this judge can't be lied to.
mod oracle;
/// A disk whose power can fail, and which fails on demand, for the real daemon to run on.
mod power;
mod random;
/// Real file systems of a few megabytes.
mod small_disk;
/// A load that rotates and compacts all the time, one request at a time.
mod small_load;
/// Many peers that write and read, and remember what they were told.
mod workload;
mod zmtp;

/// What it costs to send the wrong bytes: nothing, to anyone else.
mod abuse;
/// What `kvd bench` asks, counts and tells, and how it ends when kvd does.
mod bench;
/// What `kvd check` tells.
mod check;
mod classes;
/// The log stays small under overwrites, kills, limits and damage.
mod compaction;
/// Ten thousand connections, stolen identities, peers that send faster than the disk writes.
mod crowd;
/// The data directory: one daemon has it, what is not kvd's stays, nobody else may read it, and absence is said.
mod data_directory;
/// What `kvd dump` tells, and what `kvd load` makes of it.
mod dump;
/// A message that never ends, and the limit of memory that ends it.
mod endless;
/// Where kvd listens: what an endpoint means, what is in its way, what is said of one that can't be.
mod endpoints;
/// Every fault point, at which the disk refuses, a thread panics or time passes.
#[cfg(feature = "fault-points")]
mod fault_points;
/// Full disks, failing disks, damaged files, wrong directories: refused or survived, never silently lost.
mod faults;
/// Real file systems that are filled up, killed on, started on and emptied.
mod full_disk;
/// The source tree: which module may know which, and what no file may hold.
mod house;
/// kill -9 at random moments, over and over, against an oracle that knows what was promised.
mod kill;
/// What several peers see at once, across kills, makes sense.
mod linearizable;
/// Starting and stopping: what is answered during a replay, flags, signals, exit codes.
mod loading;
/// The limit of memory: what goes, what stays, what a restart brings back.
mod memory;
/// One peer, one order: pipelines, many peers, peers that leave, peers that never read.
mod order;
/// The packed dialect: lists of commands, in order, each with its own reply.
mod packed;
/// A tool whose output nobody reads any more.
mod pipes;
/// Power failures, on a disk that forgets and tears what was not synced; failed syncs and full disks before one.
mod power_failure;
/// What the README says: its client, its example, its flags, its links.
mod readme;
/// What `kvd repair` saves of a damaged log, and what it says of the rest.
mod repair;
/// Segments that fill up: every sync mode, kills in between, batches larger than a segment.
mod rotation;
/// Descriptors, threads and inodes that others use up.
mod shortages;
/// Every system call that changes a disk, failing in every way, at each of its first twenty times.
mod syscalls;
/// The tutorial's Python client, unchanged, before and after kill -9.
mod tutorial;
/// Every verb of the frames dialect, with the right arguments and with the wrong ones.
mod verbs;
/// Which replies wait for the disk, and which must not.
mod waiting;
