//! What clients are told: a reply, or why there is none.

use std::borrow::Cow;

/// Why a command was refused: the second frame of an `ERR` reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// No such command.
    BadCommand,
    /// The command is known, its arguments are not right.
    BadArgument,
    /// A key, a value or a message over its limit.
    TooBig,
    /// INCR on a value that is no 64-bit decimal integer.
    NotInteger,
    /// INCR past the ends of a signed 64-bit integer.
    Overflow,
    /// INCR, APPEND or PREPEND on a pickled value.
    WrongType,
    /// There is no room.
    NoSpace,
    /// The memory limit is reached and nothing may be evicted.
    NoMemory,
    /// The log is still being replayed.
    Loading,
    /// The store takes no writes.
    ReadOnly,
    /// The peer may not do this.
    Denied,
    /// A fault of kvd itself.
    Internal,
}

impl ErrorCode {
    /// The code as it stands on the wire.
    ///
    /// ```
    /// assert_eq!(kvd::command::ErrorCode::NoSpace.name(), "NOSPACE");
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            ErrorCode::BadCommand => "BADCMD",
            ErrorCode::BadArgument => "BADARG",
            ErrorCode::TooBig => "TOOBIG",
            ErrorCode::NotInteger => "NOTINT",
            ErrorCode::Overflow => "OVERFLOW",
            ErrorCode::WrongType => "WRONGTYPE",
            ErrorCode::NoSpace => "NOSPACE",
            ErrorCode::NoMemory => "NOMEM",
            ErrorCode::Loading => "LOADING",
            ErrorCode::ReadOnly => "READONLY",
            ErrorCode::Denied => "DENIED",
            ErrorCode::Internal => "INTERNAL",
        }
    }
}

/// A value as it is stored, and what is told with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredValue<'a> {
    /// The value.
    pub bytes: &'a [u8],
    /// The version that last wrote it.
    pub version: u64,
    /// Its flags, [`crate::mutation::PICKLED`] included.
    pub flags: u32,
}

/// One answer. Borrows values and keys from the store; the wire copies them once, into the reply's frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `OK PONG`
    Pong,
    /// `OK`
    Done,
    /// `OK version`: stored under this version.
    Stored(u64),
    /// `OK number`
    Number(i64),
    /// `MISS`
    Miss,
    /// `EXISTS`
    Exists,
    /// `CONFLICT version`: the version that the key has.
    Conflict(u64),
    /// `OK value version flags`
    Value(StoredValue<'a>),
    /// `OK` and two frames a key: `1` value, or `0` and an empty frame
    Values(Vec<Option<&'a [u8]>>),
    /// `OK` and four frames a key: `1` value version flags, or `0` and three empty frames
    Entries(Vec<Option<StoredValue<'a>>>),
    /// `OK next-cursor key …`
    Page {
        /// Where to go on; 0 at the end.
        cursor: u64,
        /// The keys.
        keys: Vec<&'a [u8]>,
    },
    /// `OK name value …`
    Stats(Vec<(&'static str, String)>),
    /// `OK version-of-kvd protocol-version`
    Version,
    /// `ERR code message`
    Error(ErrorCode, Cow<'static, str>),
}
