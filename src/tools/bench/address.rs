//! Where a server is, and the socket to it.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

/// Where a server listens. Displays as the endpoint.
///
/// ```
/// use kvd::tools::bench::address::Address;
/// let address = Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 43000)));
/// assert_eq!(address.to_string(), "tcp://127.0.0.1:43000");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port: `HOST:PORT`, where an IPv6 address stands in brackets.
    Tcp(String),
    /// A Unix domain socket: its path, or an abstract name behind an `@`.
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address.to_string())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(out, "tcp://{address}"),
            Address::Unix(path) => write!(out, "ipc://{}", path.display()),
        }
    }
}

/// A stream of bytes to and from a server.
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects. Reads and writes then wait for `patience` at most.
    ///
    /// # Errors
    /// Nobody listens there, or the name can't be resolved.
    pub fn connect(address: &Address, patience: Duration) -> io::Result<Stream> {
        match address {
            Address::Tcp(address) => {
                // A zone is known to the resolver only, which knows no brackets.
                let unbracketed = address.contains('%').then(|| address.replace(['[', ']'], ""));
                let stream = TcpStream::connect(unbracketed.as_ref().unwrap_or(address))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Stream::Tcp(stream))
            }
            Address::Unix(path) => {
                let stream = match path.as_os_str().as_bytes().strip_prefix(b"@") {
                    Some(name) => UnixStream::connect_addr(&UnixAddress::from_abstract_name(name)?)?,
                    None => UnixStream::connect(path)?,
                };
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Stream::Unix(stream))
            }
        }
    }

    /// From here on nothing waits.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_nonblocking(true),
            Stream::Unix(stream) => stream.set_nonblocking(true),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(into),
            Stream::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(slices),
            Stream::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}
