//! A load by its name: `set50x16` is 50 peers, each with 16 SETs in flight; `set50x1x16` has one message of 16 SETs in
//! flight instead; `set50x16/1KiB` has values of that length.

use crate::options::Options;
use crate::server::Kind;
use kvd::tools::bench::load::Plan;
use kvd::tools::bench::mix::Mix;
use kvd::tools::bench::packed::Packed;
use kvd::tools::bench::protocol::Protocol;
use kvd::tools::bench::values::ValueSize;
use std::fmt;
use std::str::FromStr;

/// Bytes of all values of a store together, at most: large ones are fewer.
const STORE: usize = 256 << 20;

/// What is asked, by how many, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// GETs of a hundred commands; the others are SETs.
    pub reads: u8,
    /// Connections.
    pub peers: usize,
    /// Requests that each connection keeps unanswered.
    pub in_flight: usize,
    /// Commands of a request. More than one are a packed message of kvd; on others, as many requests in flight.
    pub commands: usize,
    /// Bytes of a value, if it is not that of the options.
    pub value: Option<usize>,
}

impl Load {
    /// SETs alone.
    pub const fn set(peers: usize, in_flight: usize) -> Load {
        Load { reads: 0, peers, in_flight, commands: 1, value: None }
    }

    /// GETs alone.
    pub const fn get(peers: usize, in_flight: usize) -> Load {
        Load { reads: 100, ..Load::set(peers, in_flight) }
    }

    /// Bytes of a value.
    pub fn bytes(self, options: &Options) -> usize {
        self.value.unwrap_or(options.value().largest)
    }

    /// How this server is spoken to.
    pub fn protocol(self, kind: Kind) -> &'static dyn Protocol {
        if self.commands > 1 && kind.base() == Kind::Kvd { &Packed } else { kind.protocol() }
    }

    /// As a plan for this server.
    pub fn plan(self, options: &Options, kind: Kind) -> Plan {
        let batches = self.protocol(kind).batches();
        Plan {
            peers: self.peers,
            in_flight: if batches { self.in_flight } else { self.in_flight * self.commands },
            commands: if batches { self.commands } else { 1 },
            mix: Mix::of_reads(self.reads),
            keys: options.keys().min((STORE / self.bytes(options).max(1)) as u64),
            values: ValueSize::fixed(self.bytes(options)),
            ..Plan::default()
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reads {
            0 => write!(out, "set"),
            50 => write!(out, "mix"),
            100 => write!(out, "get"),
            reads => write!(out, "mix{reads}:"),
        }?;
        write!(out, "{}x{}", self.peers, self.in_flight)?;
        if self.commands > 1 {
            write!(out, "x{}", self.commands)?;
        }
        match self.value {
            None => Ok(()),
            Some(value) if value >= 1 << 20 && value.is_multiple_of(1 << 20) => write!(out, " of {} MiB", value >> 20),
            Some(value) if value >= 1 << 10 && value.is_multiple_of(1 << 10) => write!(out, " of {} KiB", value >> 10),
            Some(value) => write!(out, " of {value} B"),
        }
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Load, String> {
        let named =
            [("set", 0), ("get", 100)].into_iter().find_map(|(name, reads)| Some((reads, text.strip_prefix(name)?)));
        let mixed = || {
            let rest = text.strip_prefix("mix")?;
            match rest.split_once(':') {
                None => Some((50, rest)),
                Some((percent, rest)) => Some((percent.parse().ok().filter(|percent| *percent <= 100)?, rest)),
            }
        };
        let (reads, numbers) =
            named.or_else(mixed).ok_or("a load starts with set, get, mix or mix90:, as in set50x16")?;
        let (numbers, value) = match numbers.split_once(" of ").or_else(|| numbers.split_once('/')) {
            None => (numbers, None),
            Some((numbers, value)) => {
                (numbers, Some(value.parse::<ValueSize>()?.single().ok_or("a load has values of one size")?))
            }
        };
        let numbers: Option<Vec<usize>> = numbers.split('x').map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[peers, in_flight]) if peers > 0 && in_flight > 0 => {
                Ok(Load { reads, peers, in_flight, commands: 1, value })
            }
            Some(&[peers, in_flight, commands]) if peers > 0 && in_flight > 0 && commands > 0 => {
                Ok(Load { reads, peers, in_flight, commands, value })
            }
            _ => {
                Err("peers, requests in flight and commands of a request are numbers, as in set50x16 or set50x1x16"
                    .into())
            }
        }
    }
}
