//! A load by its name: `set50x16` is 50 peers, each with 16 SETs in flight.

use crate::options::Options;
use kvd::tools::bench::load::Plan;
use kvd::tools::bench::mix::Mix;
use std::fmt;
use std::str::FromStr;

/// What is asked, by how many, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// GETs of a hundred commands; the others are SETs.
    pub reads: u8,
    /// Connections.
    pub peers: usize,
    /// Requests that each connection keeps unanswered.
    pub in_flight: usize,
}

impl Load {
    /// SETs alone.
    pub const fn set(peers: usize, in_flight: usize) -> Load {
        Load { reads: 0, peers, in_flight }
    }

    /// GETs alone.
    pub const fn get(peers: usize, in_flight: usize) -> Load {
        Load { reads: 100, peers, in_flight }
    }

    /// As a plan, with the keys and the values that the options want.
    pub fn plan(self, options: &Options) -> Plan {
        Plan {
            peers: self.peers,
            in_flight: self.in_flight,
            mix: Mix::of_reads(self.reads),
            keys: options.keys(),
            values: options.value(),
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
        write!(out, "{}x{}", self.peers, self.in_flight)
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
        let sizes = numbers.split_once('x').and_then(|(peers, in_flight)| {
            let (peers, in_flight) = (peers.parse().ok()?, in_flight.parse().ok()?);
            (peers > 0 && in_flight > 0).then_some((peers, in_flight))
        });
        let (peers, in_flight) = sizes.ok_or("peers and requests in flight are two numbers, as in set50x16")?;
        Ok(Load { reads, peers, in_flight })
    }
}
