//! The socket: binds it, takes whole messages in, hands replies over, hears of connections that end.
//!
//! The only file of the server that calls libzmq beneath its Rust wrapper. Knows neither commands nor whose
//! turn it is; never blocks, and never waits for a peer.

use super::monitor::Monitor;
use super::refusal::may_pass;
use super::request::Request;
use super::socket_file::{ListenError, SocketFile, listen_on};
use crate::cli::Endpoint;
use crate::command::Limits;
use crate::log::Shortage;
use crate::threads::{self, NoThread};
use crate::wire::Frame;
use crate::wire::reply_frames::{LARGE_FRAME, Parcel};
use rustix::event::{EventfdFlags, eventfd};
use std::ffi::{CString, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, IntoRawFd as _, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use zmq_sys::zmq_msg_t;

/// The oldest libzmq that is safe on an open port: older ones have known overflows before authentication.
const OLDEST_LIBZMQ: (i32, i32, i32) = (4, 3, 3);
/// Messages that libzmq queues for a peer and from it. It counts messages, not bytes, hence small. With
/// [`LARGE_FRAME`] it bounds what small replies hold inside libzmq: 8 MB a peer.
const HIGH_WATER_MARK: i32 = 1000;
/// Connections that may wait to be accepted.
const ACCEPT_BACKLOG: i32 = 4096;
/// Milliseconds in which a new connection must have said what it is.
const HANDSHAKE_MS: i32 = 10_000;
/// Descriptors that libzmq takes at a start, beside a listening one for each endpoint.
const DESCRIPTORS: usize = 16;
/// Seconds of silence after which TCP asks whether the peer is still there, and between two such questions.
const KEEPALIVE_SECONDS: i32 = 60;

/// Threads that libzmq makes for itself: one for all connections, one that takes sockets apart. It aborts where it can't.
const THREADS: usize = 2;

/// Why the socket can't be had. A full sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum RouterError {
    #[error("libzmq {0}.{1}.{2} is too old to be safe: kvd needs {o0}.{o1}.{o2} or newer",
        o0 = OLDEST_LIBZMQ.0, o1 = OLDEST_LIBZMQ.1, o2 = OLDEST_LIBZMQ.2)]
    Outdated(i32, i32, i32),
    #[error("can't listen on {endpoint}: {why}")]
    Bind { endpoint: String, why: ListenError },
    #[error("can't make the ZeroMQ socket: {}", Shortage::explain(.0))]
    Short(#[source] io::Error),
    #[error("can't make the ZeroMQ socket: {0}")]
    NoThread(#[from] NoThread),
    #[error("the ZeroMQ socket failed: {0}")]
    Socket(#[from] zmq::Error),
}

impl RouterError {
    /// Whether it may be otherwise at a later start.
    pub fn may_pass(&self) -> bool {
        match self {
            RouterError::Outdated(..) => false,
            RouterError::Bind { why, .. } => why.may_pass(),
            RouterError::Short(error) => may_pass(error),
            RouterError::NoThread(_) => true,
            RouterError::Socket(error) => may_pass(&io::Error::from_raw_os_error(error.to_raw())),
        }
    }
}

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was handed over.
    Whole,
    /// No room for it now. Nothing of it was taken.
    Full,
    /// The peer has no connection. Nothing of it was taken.
    Gone,
}

/// Bytes of one peer's replies that are inside libzmq: those replies that are large. The small ones are
/// bounded by the high-water mark.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<AtomicUsize>);

impl Held {
    /// How many bytes it is now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn charge(&self, bytes: usize) -> Charge {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Charge { held: self.clone(), bytes }
    }
}

/// A reply's share of a [`Held`], given back when it is dropped.
struct Charge {
    held: Held,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A bound ROUTER socket.
pub(super) struct Router {
    socket: zmq::Socket,
    monitor: Monitor,
    /// Ends the I/O threads when dropped, after the sockets: fields are dropped in this order.
    _context: zmq::Context,
    endpoints: Vec<String>,
    /// Removed from the file system when dropped.
    socket_files: Vec<SocketFile>,
    limits: Limits,
    /// Nothing had arrived when the socket was last asked, and it was not used since.
    quiet: bool,
}

impl Router {
    /// Binds every endpoint. `locked` is a directory that this process has locked.
    pub fn bind(endpoints: &[Endpoint], limits: Limits, locked: Option<&Path>) -> Result<Router, RouterError> {
        let (major, minor, patch) = zmq::version();
        if (major, minor, patch) < OLDEST_LIBZMQ {
            return Err(RouterError::Outdated(major, minor, patch));
        }
        rehearse()?;
        let context = zmq::Context::new();
        let socket = context.socket(zmq::ROUTER)?;
        // Without it, a reply for which there is no room would be dropped without a word.
        socket.set_router_mandatory(true)?;
        socket.set_maxmsgsize(i64::try_from(limits.max_message()).unwrap_or(i64::MAX))?;
        socket.set_sndhwm(HIGH_WATER_MARK)?;
        socket.set_rcvhwm(HIGH_WATER_MARK)?;
        socket.set_linger(0)?;
        socket.set_backlog(ACCEPT_BACKLOG)?;
        socket.set_handshake_ivl(HANDSHAKE_MS)?;
        socket.set_tcp_keepalive(1)?;
        socket.set_tcp_keepalive_idle(KEEPALIVE_SECONDS)?;
        socket.set_tcp_keepalive_intvl(KEEPALIVE_SECONDS)?;
        let monitor = Monitor::of(&socket, &context)?;
        let mut router = Router {
            socket,
            monitor,
            _context: context,
            endpoints: Vec::new(),
            socket_files: Vec::new(),
            limits,
            quiet: false,
        };
        for (earlier, endpoint) in endpoints.iter().enumerate() {
            let bound = router.bind_one(endpoint, locked).map_err(|why| match why {
                ListenError::PortInUse | ListenError::InUse => {
                    let own = router.in_the_way(endpoints.iter().take(earlier), endpoint);
                    own.map_or(why, ListenError::Overlap)
                }
                why => why,
            });
            router.endpoints.push(bound.map_err(|why| RouterError::Bind { endpoint: endpoint.to_string(), why })?);
        }
        Ok(router)
    }

    /// Which of the endpoints that were bound before keeps this one from being bound.
    fn in_the_way<'e>(&self, mut earlier: impl Iterator<Item = &'e Endpoint>, endpoint: &Endpoint) -> Option<String> {
        match endpoint {
            Endpoint::Ipc(path) => {
                let file = self.socket_files.iter().find(|file| file.is_at(path))?;
                Some(format!("ipc://{}", file.path().display()))
            }
            Endpoint::Tcp { .. } => earlier.find(|other| other.overlaps(endpoint)).map(ToString::to_string),
        }
    }

    /// Where it is bound, with the ports that were picked.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// One becomes readable when something arrives, once [`Router::arrived`] has said that nothing had: libzmq tells
    /// of a change once, and any use of the socket may take that away. The other one does when a connection ends.
    pub fn descriptors(&self) -> Result<[BorrowedFd<'_>; 2], RouterError> {
        Ok([descriptor_of(&self.socket)?, self.monitor.descriptor()?])
    }

    /// Whether a message has arrived. Has to be asked before a wait for the descriptor.
    pub fn arrived(&mut self) -> Result<bool, RouterError> {
        self.quiet = self.quiet || !uninterrupted(|| self.socket.get_events())?.contains(zmq::POLLIN);
        Ok(!self.quiet)
    }

    /// The descriptor of the next connection that ended, if there is one.
    pub fn ended(&mut self) -> Option<i32> {
        self.monitor.ended()
    }

    /// Takes the next message in, if one has arrived whole, and tells whether it did. What it holds may be
    /// nothing but an identity: then `request` has neither envelope nor body nor fault.
    pub fn receive(&mut self, request: &mut Request) -> Result<bool, RouterError> {
        let socket = &self.socket;
        let filled = request.fill(self.limits, |frame| {
            uninterrupted(|| socket.recv(frame, zmq::DONTWAIT))?;
            Ok(frame.get_more())
        });
        match filled {
            Ok(_) => {
                // The signal that told of it is taken away, and more may be there.
                self.quiet = false;
                Ok(true)
            }
            Err(zmq::Error::EAGAIN) => {
                self.quiet = true;
                Ok(false)
            }
            Err(error) => Err(RouterError::Socket(error)),
        }
    }

    /// Hands a reply over, whole or not at all. What libzmq holds of it, if it is large, is added to `held`
    /// until libzmq lets go of it.
    pub fn send(&mut self, identity: &[u8], reply: Parcel<'_>, held: &Held) -> Result<Sent, RouterError> {
        let Some(last) = reply.len().checked_sub(1) else { return Ok(Sent::Whole) };
        self.quiet = false;
        // With the identity's frame libzmq decides for the whole message: it takes the others, or drops them
        // together with the connection.
        match self.send_copy(identity, zmq::DONTWAIT | zmq::SNDMORE) {
            Ok(()) => {}
            Err(zmq::Error::EAGAIN) => return Ok(Sent::Full),
            Err(zmq::Error::EHOSTUNREACH) => return Ok(Sent::Gone),
            Err(error) => return Err(error.into()),
        }
        let mut charge = charge_of(&reply).map(|bytes| held.charge(bytes));
        for (index, frame) in reply.enumerate() {
            let flags = if index == last { zmq::DONTWAIT } else { zmq::DONTWAIT | zmq::SNDMORE };
            // The last frame is the last that libzmq frees, so it carries the charge of the whole reply.
            let charge = if index == last { charge.take() } else { None };
            match (frame, charge) {
                (Frame::Small(bytes), None) => self.send_copy(bytes, flags)?,
                (Frame::Small(bytes), charge) => self.lend(Loan { bytes: bytes.to_vec(), charge }, flags)?,
                (Frame::Large(bytes), charge) => self.lend(Loan { bytes, charge }, flags)?,
            }
        }
        Ok(Sent::Whole)
    }

    /// Closes the socket once every reply has left, or after this many milliseconds.
    pub fn close(self, linger_ms: i32) -> Result<(), RouterError> {
        self.socket.set_linger(linger_ms)?;
        Ok(())
    }

    /// Hands over a copy of a frame. In one call to libzmq: the wrapper takes five, for what is the smallest of most replies.
    fn send_copy(&mut self, bytes: &[u8], flags: i32) -> zmq::Result<()> {
        let socket = self.socket.as_mut_ptr();
        uninterrupted(|| {
            // SAFETY: the socket is open as long as `self` and used by this thread only; libzmq reads that many bytes, which
            // are there, and keeps none of them.
            match unsafe { zmq_sys::zmq_send(socket, bytes.as_ptr().cast(), bytes.len(), flags) } {
                -1 => Err(last_error()),
                _ => Ok(()),
            }
        })
    }

    /// Hands over a frame without copying it.
    fn lend(&mut self, mut loan: Loan, flags: i32) -> zmq::Result<()> {
        let (data, len) = (loan.bytes.as_mut_ptr(), loan.bytes.len());
        let hint = Box::into_raw(Box::new(loan));
        let mut message = zmq_msg_t::default();
        // SAFETY: `data` and `len` are those of a buffer that the loan owns, and the loan lives, unmoved and
        // touched by nobody else, until `give_back` is called with `hint`, which libzmq does once, when the
        // last reference to the message is closed.
        let made =
            unsafe { zmq_sys::zmq_msg_init_data(&raw mut message, data.cast(), len, Some(give_back), hint.cast()) };
        if made != 0 {
            // SAFETY: no message was made, so libzmq will not give the loan back; `hint` came from `into_raw`.
            drop(unsafe { Box::from_raw(hint) });
            return Err(last_error());
        }
        let socket = self.socket.as_mut_ptr();
        let sent = uninterrupted(|| {
            // SAFETY: the socket is open as long as `self`, is used by this thread only, and `message` was
            // initialised above. Where it is taken, libzmq leaves an empty message in its place.
            match unsafe { zmq_sys::zmq_msg_send(&raw mut message, socket, flags) } {
                -1 => Err(last_error()),
                _ => Ok(()),
            }
        });
        // SAFETY: `message` was initialised, and is closed once. If it was sent, it is the empty one.
        unsafe { zmq_sys::zmq_msg_close(&raw mut message) };
        sent
    }

    /// Binds one endpoint and returns what it came to.
    fn bind_one(&mut self, endpoint: &Endpoint, locked: Option<&Path>) -> Result<String, ListenError> {
        let Endpoint::Ipc(path) = endpoint else {
            // For this one only: where a socket speaks IPv6, libzmq makes IPv4 addresses of the other ones look like it.
            self.socket.set_ipv6(endpoint.is_ipv6()).map_err(of_zmq)?;
            self.zmq_bind(endpoint).map_err(ListenError::of_tcp)?;
            let bound = self.socket.get_last_endpoint().map_err(of_zmq)?;
            return bound.map_err(|bytes| io::Error::other(format!("bound to {}", bytes.escape_ascii())).into());
        };
        let (listening, file) = listen_on(path, ACCEPT_BACKLOG, locked)?;
        self.socket_files.extend(file);
        self.use_descriptor(listening.as_raw_fd())?;
        self.zmq_bind(endpoint)?;
        // From here on it is libzmq that closes it.
        let _ = listening.into_raw_fd();
        self.use_descriptor(-1)?;
        Ok(endpoint.to_string())
    }

    /// Goes beneath the wrapper, which panics on errors that it has no name for.
    fn zmq_bind(&mut self, endpoint: &Endpoint) -> io::Result<()> {
        let text = CString::new(endpoint.to_string())?;
        // SAFETY: the socket is open, and `text` is a string that ends with a zero and outlives the call.
        if unsafe { zmq_sys::zmq_bind(self.socket.as_mut_ptr(), text.as_ptr()) } != 0 {
            // SAFETY: reads a number of this thread.
            return Err(io::Error::from_raw_os_error(unsafe { zmq_sys::zmq_errno() }));
        }
        Ok(())
    }

    /// Has the next bind take this descriptor, which listens already, in place of one of its own; -1 for its own. The
    /// wrapper does not know this option.
    fn use_descriptor(&mut self, descriptor: RawFd) -> io::Result<()> {
        let (value, length) = ((&raw const descriptor).cast(), size_of::<RawFd>());
        // SAFETY: the socket is open, and libzmq reads an `int` of that length, which is there until the call ends.
        match unsafe {
            zmq_sys::zmq_setsockopt(self.socket.as_mut_ptr(), zmq_sys::ZMQ_USE_FD.cast_signed(), value, length)
        } {
            0 => Ok(()),
            // SAFETY: reads a number of this thread.
            _ => Err(io::Error::from_raw_os_error(unsafe { zmq_sys::zmq_errno() })),
        }
    }
}

fn of_zmq(error: zmq::Error) -> io::Error {
    io::Error::from_raw_os_error(error.to_raw())
}

/// Makes sure that libzmq gets what it needs at a start, by taking it and giving it back: without, it would end the process.
fn rehearse() -> Result<(), RouterError> {
    let descriptors: Result<Vec<_>, _> = (0..DESCRIPTORS).map(|_| eventfd(0, EventfdFlags::CLOEXEC)).collect();
    descriptors.map_err(|errno| RouterError::Short(errno.into()))?;
    Ok(threads::can_make(THREADS)?)
}

/// The descriptor by which libzmq tells that something may have happened to a socket.
pub(super) fn descriptor_of(socket: &zmq::Socket) -> zmq::Result<BorrowedFd<'_>> {
    // SAFETY: the descriptor stays open as long as the socket, which is borrowed.
    Ok(unsafe { BorrowedFd::borrow_raw(socket.get_fd()?) })
}

/// A frame that libzmq reads from our memory, and what is to be given back with it.
struct Loan {
    bytes: Vec<u8>,
    #[expect(dead_code, reason = "what matters is when it is dropped")]
    charge: Option<Charge>,
}

/// What libzmq calls, from whichever thread, when it has no more use for a frame.
unsafe extern "C" fn give_back(_data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `hint` is what `lend` got from `Box::into_raw` for this very frame, and libzmq calls this once.
    drop(unsafe { Box::from_raw(hint.cast::<Loan>()) });
}

/// Bytes that libzmq will hold of this reply, if they are too many to be left to the high-water mark.
fn charge_of(reply: &Parcel<'_>) -> Option<usize> {
    let bytes = reply.bytes() + reply.len() * size_of::<zmq_msg_t>();
    (bytes >= LARGE_FRAME).then_some(bytes)
}

/// Any call into libzmq that looks at a socket may be cut short by a signal that concerns somebody else.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> zmq::Result<T>) -> zmq::Result<T> {
    loop {
        match call() {
            Err(zmq::Error::EINTR) => {}
            result => return result,
        }
    }
}

fn last_error() -> zmq::Error {
    // SAFETY: reads a number of this thread.
    zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::request::Fault;
    use crate::wire::ReplyFrames;
    use std::time::{Duration, Instant};

    const LIMITS: Limits = Limits { max_value: 1 << 20 };

    /// A router on a socket file of its own, and a peer of it that waits at most 5 s.
    struct Pair {
        router: Router,
        peer: zmq::Socket,
        _directory: tempfile::TempDir,
    }

    fn pair() -> Pair {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Ipc(directory.path().join("socket").display().to_string());
        let router = Router::bind(&[endpoint], LIMITS, None).unwrap();
        let peer = zmq::Context::new().socket(zmq::DEALER).unwrap();
        peer.set_linger(0).unwrap();
        peer.set_rcvtimeo(5000).unwrap();
        peer.connect(&router.endpoints()[0]).unwrap();
        Pair { router, peer, _directory: directory }
    }

    impl Pair {
        /// Sends these frames and returns what arrives of them.
        fn deliver(&mut self, frames: &[&[u8]]) -> Request {
            self.peer.send_multipart(frames, 0).unwrap();
            self.receive()
        }

        fn receive(&mut self) -> Request {
            let mut request = Request::new();
            let until = Instant::now() + Duration::from_secs(5);
            while !self.router.receive(&mut request).unwrap() {
                assert!(Instant::now() < until, "the message never arrived");
                self.router.socket.poll(zmq::POLLIN, 100).unwrap();
            }
            request
        }
    }

    fn reply(frames: &[&[u8]]) -> ReplyFrames {
        let mut reply = ReplyFrames::default();
        for frame in frames {
            reply.push(frame);
        }
        reply
    }

    #[test]
    fn a_request_comes_whole_and_its_reply_goes_back() {
        let mut pair = pair();
        let request = pair.deliver(&[b"id", b"", b"GET", b"key"]);
        assert_eq!((request.envelope.len(), request.body.len(), request.fault), (2, 2, None));
        let sent = pair.router.send(&request.identity, reply(&[b"id", b"", b"OK"]).parcel(), &Held::default());
        assert_eq!(sent.unwrap(), Sent::Whole);
        assert_eq!(pair.peer.recv_multipart(0).unwrap(), [&b"id"[..], b"", b"OK"]);
    }

    #[test]
    fn what_is_left_after_a_receive_is_not_forgotten() {
        let mut pair = pair();
        assert!(!pair.router.arrived().unwrap());
        pair.peer.send_multipart([&b""[..], b"1"], 0).unwrap();
        pair.peer.send_multipart([&b""[..], b"2"], 0).unwrap();
        pair.receive();
        let until = Instant::now() + Duration::from_secs(5);
        while !pair.router.arrived().unwrap() {
            assert!(Instant::now() < until, "the second one is not noticed without another signal");
        }
    }

    #[test]
    fn every_message_of_a_connection_shows_the_same_mark() {
        let mut pair = pair();
        let (_, kept) = pair.deliver(&[b"", b"1"]).take_sender();
        let (first, _frame) = kept.expect("libzmq tells of connections over ipc");
        for _ in 0..10 {
            // A poll before the receive makes the identity's frame in another way.
            pair.peer.send_multipart([&b"id"[..], b"", b"2"], 0).unwrap();
            pair.router.socket.poll(zmq::POLLIN, 5000).unwrap();
            assert_eq!(pair.receive().connection(), Some(first));
        }
        assert_eq!(pair.deliver(&[b"no delimiter"]).connection(), Some(first));
    }

    #[test]
    fn ten_thousand_frames_without_a_delimiter_are_drained() {
        let mut pair = pair();
        assert_eq!(pair.deliver(&vec![&b"x"[..]; 10_000]).fault, Some(Fault::NoDelimiter));
        assert_eq!(pair.deliver(&[b"", b"PING"]).fault, None);
    }

    #[test]
    fn a_message_over_the_limit_is_drained_and_the_connection_lives_on() {
        let mut pair = pair();
        let megabyte = vec![7; 1 << 20];
        let mut frames = vec![&b""[..], b"SET"];
        frames.resize(7, &megabyte);
        assert_eq!(pair.deliver(&frames).fault, Some(Fault::TooManyBytes { most: LIMITS.max_message() }));
        assert_eq!(pair.deliver(&[b"", b"PING"]).fault, None);
    }

    #[test]
    fn who_is_not_there_gets_nothing() {
        let mut pair = pair();
        let sent = pair.router.send(b"nobody", reply(&[b"", b"OK"]).parcel(), &Held::default());
        assert_eq!(sent.unwrap(), Sent::Gone);
    }

    #[test]
    fn what_libzmq_holds_of_a_large_reply_is_known_until_it_has_left() {
        let mut pair = pair();
        let request = pair.deliver(&[b"", b"GET"]);
        let held = Held::default();
        let value = vec![7; 32 << 20];
        let sent = pair.router.send(&request.identity, reply(&[b"", b"OK", &value, b"1"]).parcel(), &held);
        assert_eq!(sent.unwrap(), Sent::Whole);
        assert!(held.bytes() > value.len(), "the peer has not begun to read");
        assert_eq!(pair.peer.recv_multipart(0).unwrap()[2], value);
        let until = Instant::now() + Duration::from_secs(5);
        while held.bytes() > 0 {
            assert!(Instant::now() < until, "libzmq never let go of it");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_peer_that_does_not_read_is_full_before_long() {
        let mut pair = pair();
        pair.peer.set_rcvhwm(1).unwrap();
        let request = pair.deliver(&[b"", b"GET"]);
        let held = Held::default();
        let mut send = || pair.router.send(&request.identity, reply(&[&[7; 4096]]).parcel(), &held).unwrap();
        assert!((0..100_000).any(|_| send() == Sent::Full));
    }

    #[test]
    fn the_socket_file_of_the_dead_is_taken_over_and_that_of_the_living_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let endpoint = [Endpoint::Ipc(path.display().to_string())];
        let living = Router::bind(&endpoint, LIMITS, None).unwrap();
        let second = Router::bind(&endpoint, LIMITS, None);
        assert!(matches!(second, Err(RouterError::Bind { why: ListenError::InUse, .. })));
        drop(living);
        assert!(!path.exists());
    }

    #[test]
    fn each_endpoint_is_bound_as_if_it_were_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("socket").display().to_string();
        if let Err(error) = std::net::TcpListener::bind("[::1]:0") {
            eprintln!("no IPv6 here, so this is left out: {error}");
            return;
        }
        let endpoints = ["tcp://127.0.0.1:*", "tcp://[::1]:*", &format!("ipc://{file}"), "tcp://127.0.0.1:*"];
        let endpoints = endpoints.map(|text| text.parse().unwrap());
        let mut router = Router::bind(&endpoints, LIMITS, None).unwrap();
        let bound = router.endpoints().to_vec();
        for (bound, begins) in bound.iter().zip(["tcp://127.0.0.1:", "tcp://[::1]:", "ipc://", "tcp://127.0.0.1:"]) {
            assert!(bound.starts_with(begins), "{bound}");
            let peer = zmq::Context::new().socket(zmq::DEALER).unwrap();
            peer.set_ipv6(bound.contains('[')).unwrap();
            peer.set_linger(0).unwrap();
            peer.connect(bound).unwrap();
            peer.send_multipart([&b""[..], b"PING"], 0).unwrap();
            let mut request = Request::new();
            let until = Instant::now() + Duration::from_secs(5);
            while !router.receive(&mut request).unwrap() {
                assert!(Instant::now() < until, "nothing arrives at {bound}");
                router.socket.poll(zmq::POLLIN, 100).unwrap();
            }
        }
    }

    #[test]
    fn a_path_that_can_not_be_is_an_error() {
        let endpoint = [Endpoint::Ipc(format!("/nowhere/{}", "x".repeat(200)))];
        assert!(matches!(Router::bind(&endpoint, LIMITS, None), Err(RouterError::Bind { .. })));
    }
}
