//! What peers asked of each key and what they were told, and whether an order of events explains it: linearizability
//! (Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent Objects", ACM TOPLAS 1990), key by key, which
//! is enough, since it is local. The search is that of `todc-utils` (Wing and Gong, 1993, with Lowe's memory, 2017); here stands
//! only what one key is.
//!
//! A command whose reply was lost, with its peer or with the daemon, may have taken effect at any time since, or never. The
//! versions that replies tell are part of it: they rise with each change of a key, and a read tells that of the value.

use std::collections::BTreeMap;
use std::rc::Rc;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

/// What may be asked of a key.
#[derive(Clone, Debug)]
pub enum Deed {
    Set(Rc<str>),
    /// SET with NX.
    Add(Rc<str>),
    /// SET with IF and this version.
    Replace(u64, Rc<str>),
    Get,
    /// DEL or FLUSH.
    Remove,
    GetRemove,
    /// And what an absent one counts as; without that it is a miss.
    Increment(i64, Option<i64>),
    /// DELIF with this version.
    RemoveIf(u64),
    GetTouch,
    Append(Rc<str>),
    Touch,
}

/// What a peer was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It took effect, under this version.
    Stored(u64),
    /// It took effect, if there was anything to do.
    Done,
    /// It took effect: this is the value now.
    Number(i64),
    /// It took effect: so many bytes has the value now.
    Length(usize),
    /// What DEL removed.
    Removed(bool),
    /// There is a value, and it stays.
    Exists,
    /// There is a value of this version, and it stays.
    Conflict(u64),
    Missing,
    Value(Rc<str>, Option<u64>),
    /// Refused: nothing was changed.
    Refused,
}

/// A key, as replies can tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Register {
    value: Option<Rc<str>>,
    /// The version that last wrote it is this one, or a later one where nobody was told, which is vague.
    version: u64,
    is_vague: bool,
}

impl Register {
    fn write(&mut self, value: Option<Rc<str>>, version: Option<u64>) -> bool {
        let is_later = version.is_none_or(|version| version > self.version);
        (self.value, self.is_vague) = (value, version.is_none());
        self.version = version.unwrap_or(self.version);
        is_later
    }

    fn is_of(&mut self, version: u64) -> bool {
        let fits = if self.is_vague { version >= self.version } else { version == self.version };
        (self.version, self.is_vague) = (version, false);
        fits
    }

    /// The sum of an INCR.
    fn sum(&self, by: i64, initial: Option<i64>) -> Option<i64> {
        self.value.as_ref().map_or(initial, |value| value.parse().ok())?.checked_add(by)
    }

    fn appended(&self, text: &str) -> Option<Rc<str>> {
        self.value.as_ref().map(|value| format!("{value}{text}").into())
    }

    /// Does it, if it can have gone as it was told.
    fn goes(&mut self, deed: &Deed, seen: &Seen) -> bool {
        match (deed, seen) {
            (_, Seen::Refused) => true,
            (Deed::Set(value), Seen::Stored(version)) => self.write(Some(Rc::clone(value)), Some(*version)),
            (Deed::Add(value), Seen::Stored(version)) => {
                self.value.is_none() && self.write(Some(Rc::clone(value)), Some(*version))
            }
            (Deed::Add(_), Seen::Exists) => self.value.is_some(),
            (Deed::Replace(of, value), Seen::Stored(version)) => {
                self.value.is_some() && self.is_of(*of) && self.write(Some(Rc::clone(value)), Some(*version))
            }
            (Deed::Replace(of, _) | Deed::RemoveIf(of), Seen::Conflict(version)) => {
                version != of && self.value.is_some() && self.is_of(*version)
            }
            (Deed::Get, Seen::Value(value, version)) => {
                self.value.as_ref() == Some(value) && version.is_none_or(|version| self.is_of(version))
            }
            (Deed::GetRemove, Seen::Value(value, version)) => {
                let fits = self.value.as_ref() == Some(value) && version.is_none_or(|version| self.is_of(version));
                fits && self.write(None, None)
            }
            (
                Deed::Replace(..)
                | Deed::Get
                | Deed::GetRemove
                | Deed::Append(_)
                | Deed::Touch
                | Deed::Increment(_, None)
                | Deed::RemoveIf(_)
                | Deed::GetTouch,
                Seen::Missing,
            )
            | (Deed::Remove, Seen::Removed(false)) => self.value.is_none(),
            (Deed::Remove, Seen::Removed(true)) => self.value.is_some() && self.write(None, None),
            (Deed::Remove, Seen::Done) => self.write(None, None),
            (Deed::RemoveIf(of), Seen::Done) => self.value.is_some() && self.is_of(*of) && self.write(None, None),
            (Deed::GetTouch, Seen::Value(value, version)) => {
                self.value.as_ref() == Some(value) && self.write(Some(Rc::clone(value)), *version)
            }
            (Deed::Increment(by, initial), Seen::Number(sum)) => {
                self.sum(*by, *initial) == Some(*sum) && self.write(Some(sum.to_string().into()), None)
            }
            (Deed::Append(bytes), Seen::Length(length)) => {
                let whole = self.appended(bytes);
                whole.as_ref().is_some_and(|whole| whole.len() == *length) && self.write(whole, None)
            }
            (Deed::Touch, Seen::Done) => self.value.is_some() && self.write(self.value.clone(), None),
            _ => false,
        }
    }

    /// Takes effect although nobody was told: where it can't have, it was refused, and nothing is changed. A fleeting value
    /// may have gone just before.
    fn goes_unheard(&mut self, deed: &Deed, is_fleeting: bool) {
        match deed {
            Deed::Add(_) if self.value.is_some() && !is_fleeting => {}
            Deed::Replace(of, _) | Deed::RemoveIf(of)
                if self.value.is_none() || !self.is_vague && self.version != *of => {}
            Deed::Set(value) | Deed::Add(value) | Deed::Replace(_, value) => {
                self.write(Some(Rc::clone(value)), None);
            }
            Deed::Remove | Deed::GetRemove | Deed::RemoveIf(_) => {
                self.write(None, None);
            }
            Deed::Increment(by, initial) => {
                if let Some(sum) = self.sum(*by, *initial) {
                    self.write(Some(sum.to_string().into()), None);
                }
            }
            Deed::Append(bytes) => {
                if let Some(whole) = self.appended(bytes) {
                    self.write(Some(whole), None);
                }
            }
            Deed::Touch | Deed::GetTouch if self.value.is_some() => {
                self.write(self.value.clone(), None);
            }
            Deed::Touch | Deed::GetTouch | Deed::Get => {}
        }
    }
}

/// What was asked, and what was told: nothing when it was asked, or where the reply was lost.
type Told = (Deed, Option<Seen>);

/// A key whose value may go at any time, by expiry or eviction, if it is `FLEETING`.
struct Key<const FLEETING: bool>;

impl<const FLEETING: bool> Specification for Key<FLEETING> {
    type State = Register;
    type Operation = Told;

    fn init() -> Register {
        Register::default()
    }

    fn apply((deed, seen): &Told, before: &Register) -> (bool, Register) {
        let mut after = before.clone();
        let Some(seen) = seen else {
            after.goes_unheard(deed, FLEETING);
            return (true, after);
        };
        if after.goes(deed, seen) {
            return (true, after);
        }
        after = Register { value: None, ..before.clone() };
        if FLEETING && before.value.is_some() && after.goes(deed, seen) {
            return (true, after);
        }
        (false, before.clone())
    }
}

/// What happened to one key, in the order in which it did.
#[derive(Debug, Default)]
struct Events {
    is_fleeting: bool,
    deeds: Vec<Deed>,
    /// Which of these was asked, or told of.
    order: Vec<(usize, Option<Seen>)>,
}

/// Which commands whose reply was lost are taken into account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lost {
    /// None.
    Left,
    /// Those of which somebody has seen what they wrote.
    Seen,
    /// Those that leave nothing to be seen by, as well.
    Nameless,
    All,
}

impl Events {
    /// What makes sense without a lost command does with it as well: it may have been the last one, or none. Each of them
    /// may double the search, which is short without them.
    fn make_sense(&self) -> bool {
        [Lost::Left, Lost::Seen, Lost::Nameless, Lost::All].into_iter().any(|lost| {
            let actions = self.actions(lost);
            if actions.is_empty() {
                return true;
            }
            let history = History::from_actions(actions);
            if self.is_fleeting {
                WGLChecker::<Key<true>>::is_linearizable(history)
            } else {
                WGLChecker::<Key<false>>::is_linearizable(history)
            }
        })
    }

    /// What the search takes; each command is told of, a lost one at the end.
    fn actions(&self, lost: Lost) -> Vec<(usize, Action<Told>)> {
        let mut is_lost = vec![true; self.deeds.len()];
        self.order.iter().filter(|(_, seen)| seen.is_some()).for_each(|(index, _)| is_lost[*index] = false);
        let counts: Vec<bool> =
            (0..is_lost.len()).map(|index| !is_lost[index] || self.grade(&self.deeds[index]) <= lost).collect();
        let deed = |index: usize| self.deeds[index].clone();
        let events = self.order.iter().filter(|(index, _)| counts[*index]);
        let events = events.map(|(index, seen)| match seen {
            None => (*index, Action::Call((deed(*index), None))),
            Some(seen) => (*index, Action::Response((deed(*index), Some(seen.clone())))),
        });
        let unheard = (0..is_lost.len()).filter(|index| counts[*index] && is_lost[*index]);
        events.chain(unheard.map(|index| (index, Action::Response((deed(index), None))))).collect()
    }

    /// When a command is taken into account whose reply was lost.
    fn grade(&self, deed: &Deed) -> Lost {
        let (Deed::Set(text) | Deed::Add(text) | Deed::Replace(_, text) | Deed::Append(text)) = deed else {
            return if matches!(deed, Deed::Get) { Lost::All } else { Lost::Nameless };
        };
        let shows = |seen: &Option<Seen>| matches!(seen, Some(Seen::Value(value, _)) if value.contains(&**text));
        if self.order.iter().any(|(_, seen)| shows(seen)) { Lost::Seen } else { Lost::All }
    }
}

/// A command that was sent and is not answered yet, of one key.
#[derive(Clone, Debug)]
pub struct Open {
    key: Vec<u8>,
    index: usize,
}

/// What happened to all keys.
#[derive(Default)]
pub struct Histories {
    keys: BTreeMap<Vec<u8>, Events>,
}

impl Histories {
    /// A command is sent. A fleeting key may lose its value at any time.
    pub fn asks(&mut self, key: &[u8], is_fleeting: bool, deed: Deed) -> Open {
        let events = self.keys.entry(key.to_vec()).or_default();
        events.is_fleeting = is_fleeting;
        let index = events.deeds.len();
        events.order.push((index, None));
        events.deeds.push(deed);
        Open { key: key.to_vec(), index }
    }

    /// Its reply came. One whose reply is lost is told of by nothing.
    pub fn told(&mut self, open: &Open, seen: Seen) {
        let events = self.keys.get_mut(&open.key).expect("a key that was asked for");
        events.order.push((open.index, Some(seen)));
    }

    /// The first key of whose history no order of events makes sense.
    pub fn senseless(&self) -> Option<String> {
        let (key, events) = self.keys.iter().find(|(_, events)| !events.make_sense())?;
        let line = |(index, seen): &(usize, Option<Seen>)| match seen {
            None => format!("  {index} asks {:?}\n", events.deeds[*index]),
            Some(seen) => format!("  {index} is told {seen:?}\n"),
        };
        Some(format!("{}:\n{}", key.escape_ascii(), events.order.iter().map(line).collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Rc<str> {
        text.into()
    }

    fn read(text: &str, version: u64) -> Seen {
        Seen::Value(value(text), Some(version))
    }

    /// Whether it makes sense that these are done one after the other.
    fn makes_sense(is_fleeting: bool, deeds: &[(Deed, Seen)]) -> bool {
        let mut histories = Histories::default();
        for (deed, seen) in deeds {
            let open = histories.asks(b"k", is_fleeting, deed.clone());
            histories.told(&open, seen.clone());
        }
        histories.senseless().is_none()
    }

    #[test]
    fn a_read_tells_what_was_written_last() {
        let write = |text, version| (Deed::Set(value(text)), Seen::Stored(version));
        assert!(makes_sense(false, &[write("a", 1), write("b", 2), (Deed::Get, read("b", 2))]));
        assert!(!makes_sense(false, &[write("a", 1), write("b", 2), (Deed::Get, read("a", 1))]), "a stale read");
        assert!(!makes_sense(false, &[write("a", 1), (Deed::Get, read("a", 2))]), "a version that never was");
        assert!(!makes_sense(false, &[write("a", 2), write("b", 1)]), "a version that falls");
        assert!(!makes_sense(false, &[write("a", 1), (Deed::Get, Seen::Missing)]), "a lost write");
        assert!(!makes_sense(false, &[(Deed::Get, read("a", 1))]), "a value from nowhere");
        assert!(!makes_sense(
            false,
            &[write("a", 1), (Deed::Set(value("b")), Seen::Refused), (Deed::Get, read("b", 2))]
        ));
        assert!(!makes_sense(false, &[write("1", 1), (Deed::Increment(1, Some(0)), Seen::Number(3))]));
        assert!(!makes_sense(false, &[write("a", 1), (Deed::Add(value("b")), Seen::Stored(2))]));
        assert!(!makes_sense(false, &[write("a", 1), (Deed::Replace(3, value("b")), Seen::Stored(4))]));
    }

    #[test]
    fn what_is_fleeting_may_go_and_never_returns() {
        let write = (Deed::Set(value("a")), Seen::Stored(1));
        assert!(makes_sense(true, &[write.clone(), (Deed::Get, Seen::Missing)]));
        assert!(!makes_sense(true, &[write, (Deed::Get, Seen::Missing), (Deed::Get, read("a", 1))]));
    }

    #[test]
    fn a_lost_reply_says_nothing_and_what_was_seen_of_it_stays() {
        let mut histories = Histories::default();
        histories.asks(b"k", false, Deed::Set(value("a")));
        let open = histories.asks(b"k", false, Deed::Get);
        histories.told(&open, Seen::Missing);
        assert_eq!(histories.senseless(), None, "not yet, or never");
        let open = histories.asks(b"k", false, Deed::Get);
        histories.told(&open, read("a", 7));
        assert_eq!(histories.senseless(), None, "by now");
        let open = histories.asks(b"k", false, Deed::Get);
        histories.told(&open, Seen::Missing);
        assert!(histories.senseless().is_some(), "it was seen");
    }
}
