//! Standard output and standard error of the tools.
//!
//! Where whoever reads the output has gone, as in `kvd dump DIR | head`, a tool ends as others on a pipe do: by SIGPIPE,
//! without a word, at the first write that nobody takes; a shell tells it as exit code 141. Rust ignores the signal, so that
//! a write tells of it as an error. It stays so for everything else: a connection that breaks ends no process.

use signal_hook::consts::SIGPIPE;
use signal_hook::low_level::emulate_default_handler;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal as _, StdoutLock, Write};

/// Standard output.
pub struct Output(StdoutLock<'static>);

impl Output {
    /// It is this one's until it is dropped.
    pub fn lock() -> Output {
        Output(io::stdout().lock())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).inspect_err(end_on_a_closed_pipe)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().inspect_err(end_on_a_closed_pipe)
    }
}

fn end_on_a_closed_pipe(error: &io::Error) {
    if error.kind() == ErrorKind::BrokenPipe {
        if io::stderr().is_terminal() {
            // A bar may stand in this line.
            let _ = io::stderr().write_all(b"\r\x1b[2K");
        }
        // If even this fails, the error is told as any other.
        let _ = emulate_default_handler(SIGPIPE);
    }
}

/// Says something on standard error. Where nobody can be told, the exit code still tells it; `eprintln` would panic.
pub fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "{what}");
}
