//! The options of verbs: each a name, some with an argument in the frame behind it.
//!
//! Knows which options a verb has and which exclude each other; what stands before and behind them is for `decode` to say.

use super::arguments::{date, flags, number, quote, signed, time_to_live};
use crate::command::{Absent, Condition, Expiry, NewCounter, SetOptions};
use crate::mutation::PICKLED;
use crate::wire::WireError;
use crate::wire::bounds::bad;
use std::ops::Deref;

const EXPIRY: &str = "one of TTL and AT";

/// The options that a request may end with, one by one.
pub struct Options<'a, F> {
    verb: &'static str,
    rest: std::slice::Iter<'a, F>,
}

impl<'a, F: Deref<Target = [u8]>> Options<'a, F> {
    /// The frames after the fixed arguments of a verb.
    pub fn new(verb: &'static str, rest: &'a [F]) -> Self {
        Options { verb, rest: rest.iter() }
    }

    /// The name of the next option, as it was written.
    pub fn next_name(&mut self) -> Option<&'a [u8]> {
        self.rest.next().map(|frame| &**frame)
    }

    /// The frame that belongs to an option.
    pub fn argument(&mut self, option: &str) -> Result<&'a [u8], WireError> {
        let verb = self.verb;
        self.next_name().ok_or_else(|| bad(format!("{verb} ends after {option}, which needs an argument")))
    }

    /// The refusal of an option that the verb does not have.
    pub fn unknown(&self, name: &[u8]) -> WireError {
        bad(format!("{} has no option {}", self.verb, quote(name)))
    }
}

/// Stores an option's value, unless the option, or one that excludes it, came before. `group` names them.
pub fn once<T>(slot: &mut Option<T>, value: T, group: &str) -> Result<(), WireError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(format!("{group} may be given only once"))),
    }
}

/// Whether an option is TTL or AT, which are taken in then.
fn takes_expiry<F: Deref<Target = [u8]>>(
    name: &[u8],
    options: &mut Options<'_, F>,
    slot: &mut Option<Expiry>,
    group: &str,
) -> Result<bool, WireError> {
    if name.eq_ignore_ascii_case(b"TTL") {
        once(slot, time_to_live("TTL", options.argument("TTL")?)?, group)?;
    } else if name.eq_ignore_ascii_case(b"AT") {
        once(slot, date("AT", options.argument("AT")?)?, group)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// The options of a SET, in any order.
pub fn of_set<F: Deref<Target = [u8]>>(frames: &[F]) -> Result<SetOptions, WireError> {
    const CONDITION: &str = "one of NX, XX and IF";
    // The most common SET has none.
    if frames.is_empty() {
        return Ok(SetOptions::default());
    }
    let (mut expiry, mut condition, mut bits, mut pickled) = (None, None, None, None);
    let mut options = Options::new("SET", frames);
    while let Some(name) = options.next_name() {
        if takes_expiry(name, &mut options, &mut expiry, EXPIRY)? {
        } else if name.eq_ignore_ascii_case(b"NX") {
            once(&mut condition, Condition::Absent, CONDITION)?;
        } else if name.eq_ignore_ascii_case(b"XX") {
            once(&mut condition, Condition::Present, CONDITION)?;
        } else if name.eq_ignore_ascii_case(b"IF") {
            let version = number("IF", options.argument("IF")?, u64::MAX)?;
            once(&mut condition, Condition::Version(version), CONDITION)?;
        } else if name.eq_ignore_ascii_case(b"FLAGS") {
            once(&mut bits, flags("FLAGS", options.argument("FLAGS")?)?, "FLAGS")?;
        } else if name.eq_ignore_ascii_case(b"PICKLED") {
            once(&mut pickled, PICKLED, "PICKLED")?;
        } else {
            return Err(options.unknown(name));
        }
    }
    Ok(SetOptions {
        expiry: expiry.unwrap_or_default(),
        condition: condition.unwrap_or_default(),
        flags: bits.unwrap_or(0) | pickled.unwrap_or(0),
    })
}

/// The options of an INCR, in any order.
pub fn of_increment<F: Deref<Target = [u8]>>(frames: &[F]) -> Result<Absent, WireError> {
    let (mut present, mut initial, mut bits, mut expiry) = (None, None, None, None);
    let mut options = Options::new("INCR", frames);
    while let Some(name) = options.next_name() {
        if takes_expiry(name, &mut options, &mut expiry, EXPIRY)? {
        } else if name.eq_ignore_ascii_case(b"XX") {
            once(&mut present, (), "XX")?;
        } else if name.eq_ignore_ascii_case(b"INIT") {
            once(&mut initial, signed("INIT", options.argument("INIT")?)?, "INIT")?;
        } else if name.eq_ignore_ascii_case(b"FLAGS") {
            once(&mut bits, flags("FLAGS", options.argument("FLAGS")?)?, "FLAGS")?;
        } else {
            return Err(options.unknown(name));
        }
    }
    if present.is_none() {
        let (initial, expiry, flags) = (initial.unwrap_or(0), expiry.unwrap_or_default(), bits.unwrap_or(0));
        return Ok(Absent::Make(NewCounter { initial, expiry, flags }));
    }
    match (initial, expiry, bits) {
        (None, None, None) => Ok(Absent::Miss),
        _ => Err(bad("INCR makes no counter where XX is given, so that INIT, FLAGS, TTL and AT can't go with it")),
    }
}

/// The options of an MSETS, and what follows KEYS. `None` where that is missing.
pub fn of_set_entries<F: Deref<Target = [u8]>>(frames: &[F]) -> Result<Option<(Expiry, &[F])>, WireError> {
    let mut expiry = None;
    let mut options = Options::new("MSETS", frames);
    while let Some(name) = options.next_name() {
        if name.eq_ignore_ascii_case(b"KEYS") {
            return Ok(Some((expiry.unwrap_or_default(), options.rest.as_slice())));
        }
        if !takes_expiry(name, &mut options, &mut expiry, EXPIRY)? {
            return Err(options.unknown(name));
        }
    }
    Ok(None)
}

/// The option of a GETEX. `None` where it is missing.
pub fn of_get_touch<F: Deref<Target = [u8]>>(frames: &[F]) -> Result<Option<Expiry>, WireError> {
    const ONE: &str = "one of TTL, AT and PERSIST";
    let mut expiry = None;
    let mut options = Options::new("GETEX", frames);
    while let Some(name) = options.next_name() {
        if takes_expiry(name, &mut options, &mut expiry, ONE)? {
        } else if name.eq_ignore_ascii_case(b"PERSIST") {
            once(&mut expiry, Expiry::Never, ONE)?;
        } else {
            return Err(options.unknown(name));
        }
    }
    Ok(expiry)
}
