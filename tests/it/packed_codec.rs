//! The packed dialect from the client's side, byte by byte as `docs/protocol.md` has it: commands to bytes, bytes to what
//! was told. Shares nothing with the server's half, so that each proves the other.

use kvd::command::{Absent, Command, Condition, End, Expiry};
use kvd::mutation::Key;

/// What a reply tells, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Pong,
    Done,
    Stored(u64),
    Number(i64),
    Miss,
    Exists,
    Conflict(u64),
    Value { bytes: Vec<u8>, version: u64, flags: u32 },
    Values(Vec<Option<Vec<u8>>>),
    Page { cursor: u64, keys: Vec<Vec<u8>> },
    Stats(Vec<(String, String)>),
    Version { kvd: String, protocol: u32 },
    Entries(Vec<Option<(Vec<u8>, u64, u32)>>),
    Error { code: String, message: String },
}

/// A request of these commands.
pub fn message(commands: &[Command<'_>]) -> Vec<u8> {
    let mut bytes = vec![0x01];
    number(commands.len() as u64, &mut bytes);
    for command in commands {
        spell(command, &mut bytes);
    }
    bytes
}

fn number(number: u64, into: &mut Vec<u8>) {
    match number {
        0..=250 => into.push(number as u8),
        251..=0xffff => {
            into.push(251);
            into.extend_from_slice(&(number as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            into.push(252);
            into.extend_from_slice(&(number as u32).to_le_bytes());
        }
        _ => {
            into.push(253);
            into.extend_from_slice(&number.to_le_bytes());
        }
    }
}

fn blob(bytes: &[u8], into: &mut Vec<u8>) {
    number(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

fn spell(command: &Command<'_>, into: &mut Vec<u8>) {
    let keyed = |index: u8, key: &[u8], into: &mut Vec<u8>| {
        into.push(index);
        blob(key, into);
    };
    match command {
        Command::Ping => into.push(0),
        Command::Get { key } => keyed(1, key.bytes, into),
        Command::Set { key, value, options } => {
            keyed(2, key.bytes, into);
            blob(&value.to_vec(), into);
            expires(options.expiry, into);
            match options.condition {
                Condition::Always => into.push(0),
                Condition::Absent => into.push(1),
                Condition::Present => into.push(2),
                Condition::Version(version) => {
                    into.push(3);
                    number(version, into);
                }
            }
            number(options.flags.into(), into);
        }
        Command::Delete { keys } => listed(3, keys, into),
        Command::Exists { keys } => listed(4, keys, into),
        Command::GetMany { keys } => listed(5, keys, into),
        Command::GetEntries { keys } => listed(20, keys, into),
        Command::SetMany { pairs } => {
            into.push(6);
            number(pairs.len() as u64, into);
            for (key, value) in pairs {
                blob(key.bytes, into);
                blob(value, into);
            }
        }
        Command::Increment { key, delta, absent } if *absent == Absent::default() => {
            keyed(7, key.bytes, into);
            signed(*delta, into);
        }
        Command::Extend { key, bytes, end } => {
            keyed(if *end == End::Back { 8 } else { 9 }, key.bytes, into);
            blob(bytes, into);
        }
        Command::Touch { key, expiry } => {
            keyed(10, key.bytes, into);
            number(if let Expiry::In(milliseconds) = expiry { *milliseconds } else { 0 }, into);
        }
        Command::TimeToLive { key } => keyed(11, key.bytes, into),
        Command::GetDelete { key } => keyed(12, key.bytes, into),
        Command::Scan { cursor, prefix, count } => {
            into.push(13);
            number(*cursor, into);
            blob(prefix, into);
            number(*count as u64, into);
        }
        Command::Count => into.push(14),
        Command::Flush { prefix } => {
            into.push(15);
            into.push(prefix.is_some().into());
            if let Some(prefix) = prefix {
                blob(prefix, into);
            }
        }
        Command::Sync => into.push(16),
        Command::Compact => into.push(17),
        Command::Stats => into.push(18),
        Command::Version => into.push(19),
        Command::SetEntries { entries, expiry } => {
            into.push(21);
            expires(*expiry, into);
            number(entries.len() as u64, into);
            for entry in entries {
                blob(entry.key.bytes, into);
                blob(entry.value, into);
                number(entry.flags.into(), into);
            }
        }
        Command::DeleteIf { key, version } => {
            keyed(22, key.bytes, into);
            number(*version, into);
        }
        Command::Increment { key, delta, absent } => {
            keyed(23, key.bytes, into);
            signed(*delta, into);
            made(absent, into);
        }
        Command::GetTouch { key, expiry } => {
            keyed(24, key.bytes, into);
            expires(*expiry, into);
        }
    }
}

fn listed(index: u8, keys: &[Key<'_>], into: &mut Vec<u8>) {
    into.push(index);
    number(keys.len() as u64, into);
    for key in keys {
        blob(key.bytes, into);
    }
}

fn made(absent: &Absent, into: &mut Vec<u8>) {
    match absent {
        Absent::Miss => into.push(0),
        Absent::Make(counter) => {
            into.push(1);
            signed(counter.initial, into);
            expires(counter.expiry, into);
            number(counter.flags.into(), into);
        }
    }
}

fn signed(value: i64, into: &mut Vec<u8>) {
    number((value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned(), into);
}

fn expires(expiry: Expiry, into: &mut Vec<u8>) {
    match expiry {
        Expiry::Never => into.push(0),
        Expiry::In(milliseconds) => {
            into.push(1);
            number(milliseconds, into);
        }
        Expiry::At(at) => {
            into.push(2);
            number(at, into);
        }
    }
}

/// What a reply's frame tells; `None` if it is no list of replies, to its last byte.
pub fn replies(frame: &[u8]) -> Option<Vec<Told>> {
    let mut reader = Reader(frame.strip_prefix(&[0x01])?);
    let told = reader.list(Reader::told)?;
    reader.0.is_empty().then_some(told)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        match self.take()? {
            [251] => self.take().map(u16::from_le_bytes).map(u64::from),
            [252] => self.take().map(u32::from_le_bytes).map(u64::from),
            [253] => self.take().map(u64::from_le_bytes),
            [254 | 255] => None,
            [number] => Some(number.into()),
        }
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn short(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn blob(&mut self) -> Option<Vec<u8>> {
        let length = self.number()?.try_into().ok()?;
        let (blob, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(blob.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.blob()?).ok()
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.number()?).map(|_| item(self)).collect()
    }

    fn told(&mut self) -> Option<Told> {
        Some(match self.number()? {
            0 => Told::Pong,
            1 => Told::Done,
            2 => Told::Stored(self.number()?),
            3 => Told::Number(self.signed()?),
            4 => Told::Miss,
            5 => Told::Exists,
            6 => Told::Conflict(self.number()?),
            7 => Told::Value { bytes: self.blob()?, version: self.number()?, flags: self.short()? },
            8 => Told::Values(self.list(|reader| match reader.take()? {
                [0] => Some(None),
                [1] => reader.blob().map(Some),
                _ => None,
            })?),
            9 => Told::Page { cursor: self.number()?, keys: self.list(Reader::blob)? },
            10 => Told::Stats(self.list(|reader| Some((reader.text()?, reader.text()?)))?),
            11 => Told::Version { kvd: self.text()?, protocol: self.short()? },
            12 => Told::Error { code: self.text()?, message: self.text()? },
            13 => Told::Entries(self.list(|reader| match reader.take()? {
                [0] => Some(None),
                [1] => Some(Some((reader.blob()?, reader.number()?, reader.short()?))),
                _ => None,
            })?),
            _ => return None,
        })
    }
}
