//! The disk as FUSE asks for it: each request is one call to the disk, and its answer one reply.
//!
//! Entries and attributes are never to be remembered by the kernel, and writes pass through its cache at once (the cache
//! that collects them is not asked for). A file that is opened anew is read anew. Locks are the kernel's own.

use super::disk::Disk;
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For how long the kernel may believe an entry or an attribute.
const NOT_AT_ALL: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
/// Numbers below are those of the root and of nothing.
const FIRST_FILE: u64 = 2;

pub struct FileSystem {
    pub disk: Disk,
}

fn number(file: usize) -> INodeNo {
    INodeNo(file as u64 + FIRST_FILE)
}

/// The file of a number, which the kernel has from us. The root is none.
fn file_of(number: INodeNo) -> Result<usize, Errno> {
    number.0.checked_sub(FIRST_FILE).map(|file| file as usize).ok_or(Errno::EISDIR)
}

fn text(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::EINVAL)
}

fn refusal(errno: rustix::io::Errno) -> Errno {
    Errno::from_i32(errno.raw_os_error())
}

fn attributes(number: INodeNo, kind: FileType, length: usize, links: u32) -> FileAttr {
    FileAttr {
        ino: number,
        size: length as u64,
        blocks: length.div_ceil(512) as u64,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: if kind == FileType::Directory { 0o755 } else { 0o644 },
        nlink: links,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn answer(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl FileSystem {
    fn attributes(&self, inode: INodeNo) -> Result<FileAttr, Errno> {
        if inode == INodeNo::ROOT {
            return Ok(attributes(inode, FileType::Directory, 0, 2));
        }
        let (length, is_named) = self.disk.look(file_of(inode)?).map_err(refusal)?;
        Ok(attributes(inode, FileType::RegularFile, length, is_named.into()))
    }

    fn find(&self, name: &OsStr) -> Result<FileAttr, Errno> {
        self.attributes(number(self.disk.find(text(name)?).map_err(refusal)?))
    }
}

impl Filesystem for FileSystem {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(name) {
            Ok(found) => reply.entry(&NOT_AT_ALL, &found, GENERATION),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Ok(found) => reply.attr(&NOT_AT_ALL, &found),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resize = |size| self.disk.resize(file_of(inode)?, size as usize).map_err(refusal);
        match size.map_or(Ok(()), resize).and_then(|()| self.attributes(inode)) {
            Ok(found) => reply.attr(&NOT_AT_ALL, &found),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match text(name).and_then(|name| self.disk.create(name).map_err(refusal)) {
            Ok(file) => {
                let made = attributes(number(file), FileType::RegularFile, 0, 1);
                reply.created(&NOT_AT_ALL, &made, GENERATION, FileHandle(0), FopenFlags::empty());
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, text(name).and_then(|name| self.disk.remove(name).map_err(refusal)));
    }

    fn rename(&self, _: &Request, _: INodeNo, from: &OsStr, _: INodeNo, to: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        let rename = |from| self.disk.rename(from, text(to)?).map_err(refusal);
        answer(reply, text(from).and_then(rename));
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = |file| self.disk.read(file, offset as usize, size as usize).map_err(refusal);
        match file_of(inode).and_then(read) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = |file| self.disk.write(file, offset as usize, bytes).map_err(refusal);
        match file_of(inode).and_then(write) {
            Ok(written) => reply.written(written as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocate = |file| self.disk.allocate(file, (offset + length) as usize).map_err(refusal);
        // Other modes punch holes and the like.
        answer(reply, if mode == 0 { file_of(inode).and_then(allocate) } else { Err(Errno::EOPNOTSUPP) });
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, file_of(inode).and_then(|file| self.disk.sync(file).map_err(refusal)));
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.disk.sync_names().map_err(refusal));
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let names = match self.disk.names() {
            Ok(names) => names,
            Err(errno) => return reply.error(refusal(errno)),
        };
        // An entry's offset is the number of the file behind it, so that a listing goes on where it was, whatever is
        // made or removed meanwhile: files only ever get higher numbers.
        let mut files: Vec<_> = names.into_iter().map(|(name, file)| (file as u64, name)).collect();
        files.sort();
        for (file, name) in files.into_iter().filter(|(file, _)| *file >= offset) {
            if reply.add(number(file as usize), file + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}
