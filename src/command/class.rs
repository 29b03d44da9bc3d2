//! What there is to know of a verb before it is evaluated.
//!
//! The one table of verbs: who answers each, what it looks at, what it leaves behind, how much there is to do for it, and
//! what a repeat of it does. Nobody else tells verbs apart but to execute, to count or to spell them, so that a verb that is added
//! here is refused on a full disk, counted against the memory and waited for as it should be.

use super::{Absent, COUNT_WEIGHT, Command, Condition, Expiry, SCAN_WEIGHT};
use crate::mutation::Key;

/// Longest decimal of a signed 64-bit integer, in bytes.
const LONGEST_INTEGER: usize = 20;

/// What a command is like: see [`Command::class`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class<'c> {
    /// Who answers it.
    pub answerer: Answerer,
    /// What of the store its answer, or its effect, depends on.
    pub reads: Reads<'c>,
    /// What it may leave in the log.
    pub writes: Writes<'c>,
    /// When what it stores expires.
    pub expiry: Expiry,
    /// How much there is to do for it: a key that is looked up is 1.
    pub weight: usize,
    /// What comes of sending it a second time.
    pub repeat: Repeat,
}

/// Who answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// Who speaks with the peers, at any time: the store need not be there yet.
    Server(Inquiry),
    /// Who owns the log: it is about the store as a whole, not about its keys.
    Store(Order),
    /// [`crate::engine::Engine::evaluate`].
    Engine,
}

/// What is asked of the server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// `PING`
    Ping,
    /// `STATS`
    Stats,
    /// `VERSION`
    Version,
}

/// What is asked of the store as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `SYNC`
    Sync,
    /// `COMPACT`
    Compact,
}

/// What a command depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads<'c> {
    /// Nothing that is stored.
    Nothing,
    /// The entry of this key.
    Key(Key<'c>),
    /// The entries of these keys.
    Keys(&'c [Key<'c>]),
    /// The entries, one after the other.
    Entries,
    /// How many entries there are.
    Number,
}

/// What a command may leave in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes<'c> {
    /// Nothing.
    Nothing,
    /// Removals: taken although the disk is full.
    Removals,
    /// Values, which take lasting room.
    Values(Values<'c>),
}

/// The most that a command stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values<'c> {
    /// Number of entries.
    pub entries: usize,
    /// Bytes of their keys and values.
    pub bytes: usize,
    /// The value of this key is stored again beside them.
    pub again: Option<Key<'c>>,
}

/// What comes of sending a command a second time, while nobody else writes its keys. `docs/protocol.md` tells clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// The store is left as after the first time, and the answer tells as much.
    Same,
    /// The store is left as after the first time, and the answer denies it: the condition doesn't hold any more.
    Denied,
    /// It takes effect twice, or what the first answer told is lost.
    Twice,
}

/// One value of so many bytes under this key, and what is stored again.
fn one<'c>(key: &Key<'_>, bytes: usize, again: Option<Key<'c>>) -> Writes<'c> {
    Writes::Values(Values { entries: 1, bytes: key.bytes.len() + bytes, again })
}

impl Command<'_> {
    /// What this command is like.
    ///
    /// ```
    /// use kvd::command::{Command, Reads, Repeat, Writes};
    /// use kvd::mutation::Key;
    /// let key = Key::bytes(b"user:7");
    /// let command = Command::GetDelete { key };
    /// let class = command.class();
    /// assert_eq!((class.reads, class.writes, class.repeat), (Reads::Key(key), Writes::Removals, Repeat::Twice));
    /// assert_eq!(Command::GetMany { keys: vec![key, key] }.class().weight, 2);
    /// ```
    // Whoever asks, asks for one field, of which then nothing but a match is left.
    #[inline(always)]
    pub fn class(&self) -> Class<'_> {
        /// Depends on nothing, and leaves nothing; what differs from it is told.
        const PLAIN: Class<'static> = Class {
            answerer: Answerer::Engine,
            reads: Reads::Nothing,
            writes: Writes::Nothing,
            expiry: Expiry::Never,
            weight: 1,
            repeat: Repeat::Same,
        };
        let server = |inquiry| Class { answerer: Answerer::Server(inquiry), ..PLAIN };
        let store = |order| Class { answerer: Answerer::Store(order), ..PLAIN };
        match self {
            Command::Ping => server(Inquiry::Ping),
            Command::Version => server(Inquiry::Version),
            Command::Stats => Class { weight: COUNT_WEIGHT, ..server(Inquiry::Stats) },
            Command::Sync => store(Order::Sync),
            Command::Compact => store(Order::Compact),
            Command::Get { key } | Command::TimeToLive { key } => Class { reads: Reads::Key(*key), ..PLAIN },
            Command::GetMany { keys } | Command::GetEntries { keys } | Command::Exists { keys } => {
                Class { reads: Reads::Keys(keys), weight: keys.len(), ..PLAIN }
            }
            Command::Scan { .. } => Class { reads: Reads::Entries, weight: SCAN_WEIGHT, ..PLAIN },
            Command::Count => Class { reads: Reads::Number, weight: COUNT_WEIGHT, ..PLAIN },
            Command::Set { key, value, options } => Class {
                // Without a condition nothing is looked up: what is there makes no difference.
                reads: if options.condition == Condition::Always { Reads::Nothing } else { Reads::Key(*key) },
                writes: one(key, value.len(), None),
                expiry: options.expiry,
                repeat: match options.condition {
                    Condition::Always | Condition::Present => Repeat::Same,
                    Condition::Absent | Condition::Version(_) => Repeat::Denied,
                },
                ..PLAIN
            },
            Command::SetMany { pairs } => Class {
                writes: Writes::Values(Values {
                    entries: pairs.len(),
                    bytes: pairs.iter().map(|(key, value)| key.bytes.len() + value.len()).sum(),
                    again: None,
                }),
                weight: pairs.len(),
                ..PLAIN
            },
            Command::SetEntries { entries, expiry } => Class {
                writes: Writes::Values(Values {
                    entries: entries.len(),
                    bytes: entries.iter().map(|entry| entry.key.bytes.len() + entry.value.len()).sum(),
                    again: None,
                }),
                expiry: *expiry,
                weight: entries.len(),
                ..PLAIN
            },
            Command::Increment { key, absent, .. } => Class {
                reads: Reads::Key(*key),
                writes: one(key, LONGEST_INTEGER, None),
                expiry: match absent {
                    Absent::Miss => Expiry::Never,
                    Absent::Make(counter) => counter.expiry,
                },
                repeat: Repeat::Twice,
                ..PLAIN
            },
            Command::Extend { key, bytes, .. } => Class {
                reads: Reads::Key(*key),
                writes: one(key, bytes.len(), Some(*key)),
                repeat: Repeat::Twice,
                ..PLAIN
            },
            Command::Touch { key, expiry } | Command::GetTouch { key, expiry } => {
                Class { reads: Reads::Key(*key), writes: one(key, 0, Some(*key)), expiry: *expiry, ..PLAIN }
            }
            Command::Delete { keys } => {
                Class { reads: Reads::Keys(keys), writes: Writes::Removals, weight: keys.len(), ..PLAIN }
            }
            Command::DeleteIf { key, .. } => {
                Class { reads: Reads::Key(*key), writes: Writes::Removals, repeat: Repeat::Denied, ..PLAIN }
            }
            Command::GetDelete { key } => {
                Class { reads: Reads::Key(*key), writes: Writes::Removals, repeat: Repeat::Twice, ..PLAIN }
            }
            Command::Flush { .. } => {
                Class { reads: Reads::Number, writes: Writes::Removals, weight: COUNT_WEIGHT, ..PLAIN }
            }
        }
    }
}
