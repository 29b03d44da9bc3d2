//! The least that a ROUTER can do: receive a message, answer OK, keep nothing.
//!
//! It is about the most that any server on libzmq can reach, and the proof that a row measures its server rather than the
//! generator. It runs as a process of its own, as the servers that it stands beside do.

use std::io::{self, Write};

/// Serves until it is killed. Says where on standard output, as kvd does.
///
/// # Errors
/// libzmq can't bind or receive.
pub fn serve() -> io::Result<()> {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::ROUTER)?;
    // The generator bounds what is in flight. A mark below that would drop replies, and it would wait.
    socket.set_sndhwm(0)?;
    socket.set_rcvhwm(0)?;
    // As kvd's. With libzmq's 100 ten thousand connections take minutes, since those beyond it ask again later and later.
    socket.set_backlog(4096)?;
    socket.bind("tcp://127.0.0.1:*")?;
    let endpoint = socket.get_last_endpoint()?.map_err(|_| io::Error::other("an endpoint that is not UTF-8"))?;
    println!("bare ready {endpoint}");
    io::stdout().flush()?;

    let mut frame = zmq::Message::new();
    loop {
        let mut identity = zmq::Message::new();
        socket.recv(&mut identity, 0)?;
        loop {
            socket.recv(&mut frame, 0)?;
            if !frame.get_more() {
                break;
            }
        }
        socket.send(identity, zmq::SNDMORE)?;
        socket.send(&b""[..], zmq::SNDMORE)?;
        socket.send(&b"OK"[..], 0)?;
    }
}
