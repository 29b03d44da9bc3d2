//! The flags of `kvd bench`, and the load that they make.

use super::daemon::DEFAULT_BIND;
use super::endpoint::{Endpoint, Host};
use super::values;
use crate::command::{Expiry, MAX_KEY, MAX_PACKED_COMMANDS};
use crate::tools::bench::address::Address;
use crate::tools::bench::keys::{Distribution, KeyShape};
use crate::tools::bench::load::Plan;
use crate::tools::bench::mix::{Mix, Operation, Ycsb};
use crate::tools::bench::session::{Dialect, Settings};
use crate::tools::bench::tally::Until;
use crate::tools::bench::values::ValueSize;
use crate::tools::bench::zipf::THETA;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use std::net::IpAddr;
use std::time::Duration;

/// Most `--peers`.
const MOST_PEERS: usize = 10_000;
/// Most `--in-flight`.
const MOST_IN_FLIGHT: usize = 100_000;
/// Largest `--theta`; beyond, there is hardly a second key.
const LARGEST_THETA: f64 = 10.0;
/// Least and most `--rate`: one in eleven days, and what a clock of nanoseconds tells apart.
const RATES: [f64; 2] = [1e-6, 1e9];
/// Least and most of a time in seconds: what a socket can wait for, and 30 years, so that no sum is beyond the clock.
const TIMES: [f64; 2] = [1e-3, 1e9];
/// Longest `--ttl`, in milliseconds: the longest time that kvd takes.
const LONGEST_TTL: u64 = i64::MAX as u64;
/// How long it takes if neither `--seconds` nor `--requests` says so.
const SECONDS: f64 = 10.0;

/// What was typed after `kvd bench`.
#[expect(clippy::doc_markdown, reason = "these comments are the help, read as plain text")]
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct BenchFlags {
    /// Where kvd listens: tcp://HOST:PORT or ipc://PATH
    #[arg(long, value_name = "ENDPOINT", default_value = DEFAULT_BIND)]
    endpoint: Endpoint,

    /// How it is spoken to
    #[arg(long, value_enum, default_value_t = Dialect::Frames)]
    dialect: Dialect,

    /// Connections
    #[arg(long, value_parser = values::whole::<usize>, value_name = "N", default_value_t = 50)]
    peers: usize,

    /// Messages that each peer keeps unanswered
    #[arg(long, value_parser = values::whole::<usize>, value_name = "N", default_value_t = 16)]
    in_flight: usize,

    /// Commands of a message; more than 1 with the packed dialect only
    #[arg(long, value_parser = values::whole::<usize>, value_name = "N", default_value_t = 1)]
    commands: usize,

    /// How many keys there are
    #[arg(long, value_parser = values::whole::<u64>, value_name = "N", default_value_t = 100_000)]
    keys: u64,

    /// Bytes of a key
    #[arg(long, value_parser = values::size, value_name = "SIZE", default_value = "16")]
    key_size: ByteSize,

    /// How often each key is asked for [default: uniform, or as the workload wants it]
    #[arg(long, value_enum)]
    distribution: Option<Keys>,

    /// Exponent of `zipf` and `latest`, also where a workload chooses them [default: 0.99]
    #[arg(long, value_parser = values::number, value_name = "NUMBER")]
    theta: Option<f64>,

    /// Bytes of a value, or a range of them such as 10..1KiB [default: 100, those of a workload 1000]
    #[arg(long, value_name = "SIZE")]
    value: Option<ValueSize>,

    /// GETs of a hundred commands; the others are SETs [default: 90]
    #[arg(long, value_parser = values::whole::<u8>, value_name = "PERCENT", conflicts_with = "workload")]
    reads: Option<u8>,

    /// A core workload of YCSB (Cooper et al., SoCC 2010) instead of GETs and SETs
    #[arg(long, value_enum)]
    workload: Option<Ycsb>,

    /// Let what is written expire after this time, such as 30s
    #[arg(long, value_parser = values::duration, value_name = "DURATION")]
    ttl: Option<humantime::Duration>,

    /// Commands a second, whether or not earlier ones are answered; without it, as fast as it goes
    #[arg(long, value_parser = values::number, value_name = "N")]
    rate: Option<f64>,

    /// How long it takes [default: 10, or as long as the requests take]
    #[arg(long, value_parser = values::number, value_name = "N")]
    seconds: Option<f64>,

    /// How many commands are counted, at most
    #[arg(long, value_parser = values::whole::<u64>, value_name = "N")]
    requests: Option<u64>,

    /// Seconds that go before and do not count
    #[arg(long, value_parser = values::number, value_name = "N", default_value_t = 0.0)]
    warm_up: f64,

    /// Store every key first, each once
    #[arg(long, visible_alias = "load")]
    fill: bool,

    /// Seconds after which a peer without a reply ends the run
    #[arg(long, value_parser = values::number, value_name = "N", default_value_t = 10.0)]
    timeout: f64,

    /// Another number makes other choices of keys
    #[arg(long, value_parser = values::whole::<u64>, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
With --rate latency runs from the moment at which a command was due, so a pause of the server counts for every command
that should have been asked meanwhile. Without it, from handing a command to the socket.
For as long as --timeout after the end, commands that are late are still asked. The rest is told as never asked.

Keys are `key:` and a number. They are stored by --fill, else whatever the store holds is read; a key that is absent
counts as a miss. Workload E scans with SCAN from a random place: kvd's keys have no order.

Exit codes:
  0  it ran to its end, or to Ctrl-C
  1  it could not begin: no connection, or no kvd
  2  a flag is wrong
  3  a connection broke, or a peer got no reply in time; what was measured until then is printed
  4  it ran to its end, and some commands were refused";

/// What `--distribution` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keys {
    /// Each as often as another
    Uniform,
    /// Few keys often: the k-th most popular in proportion to 1 / k^theta
    Zipf,
    /// The same, and the key stored last is the most popular
    Latest,
    /// One after the other
    Sequential,
}

/// Why flags make no load. Displays as a sentence that tells what would be right.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BenchFlagsError {
    /// A number outside its bounds.
    #[error("{flag} is {given}, but must be from {smallest} to {largest}")]
    Bounds {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: String,
        /// The least that is possible.
        smallest: String,
        /// The most that is possible.
        largest: String,
    },
    /// A number that can only be positive.
    #[error("{flag} is {given}, but must be above 0")]
    NotPositive {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: f64,
    },
    /// An endpoint to listen on, not to connect to.
    #[error("--endpoint {0} names no place to connect to: give a host and a port, such as {DEFAULT_BIND}")]
    NoPlace(Endpoint),
    /// Several commands in a message of a dialect that has one.
    #[error("--commands {0} needs --dialect packed: messages of the other dialects hold one command")]
    OneCommand(usize),
    /// What the pickle dialect can't say.
    #[error("--dialect pickle has get and set only, so {0} can't be used with it")]
    PickleCannot(&'static str),
    /// An exponent for keys that have none.
    #[error("--theta needs --distribution zipf or latest, or a workload: other keys come as often as each other")]
    NoTheta,
    /// Keys too short for their number.
    #[error("--key-size {size} tells {distinct} keys apart, but --keys is {keys}")]
    ShortKeys {
        /// Bytes of a key.
        size: usize,
        /// How many such keys there are.
        distinct: u64,
        /// How many are wanted.
        keys: u64,
    },
    /// Keys too short for new ones, which would take the places of old ones.
    #[error(
        "--key-size {size} tells {distinct} keys apart, and --workload {} adds new ones: give --keys half of that",
        workload.name()
    )]
    NoRoomForNewKeys {
        /// Bytes of a key.
        size: usize,
        /// How many such keys there are.
        distinct: u64,
        /// Who adds some.
        workload: Ycsb,
    },
}

impl BenchFlags {
    /// Checks what was typed.
    ///
    /// # Errors
    /// A [`BenchFlagsError`] for the first value that can't be.
    pub fn validate(&self) -> Result<Settings, BenchFlagsError> {
        let key_size = usize::try_from(self.key_size.as_u64()).unwrap_or(usize::MAX);
        let shape = KeyShape::of_size(within("--key-size", key_size, 1, MAX_KEY)?);
        let keys = within("--keys", self.keys, 1, u64::MAX >> 1)?;
        if keys > shape.distinct() {
            return Err(BenchFlagsError::ShortKeys { size: shape.size(), distinct: shape.distinct(), keys });
        }
        let mix = match self.workload {
            Some(workload) => workload.mix(),
            None => Mix::of_reads(within("--reads", self.reads.unwrap_or(90), 0, 100)?),
        };
        if let Some(workload) = self.workload.filter(|_| mix.percent(Operation::Insert) > 0)
            && keys > shape.distinct() / 2
        {
            return Err(BenchFlagsError::NoRoomForNewKeys { size: shape.size(), distinct: shape.distinct(), workload });
        }
        let commands = within("--commands", self.commands, 1, MAX_PACKED_COMMANDS)?;
        if commands > 1 && self.dialect != Dialect::Packed {
            return Err(BenchFlagsError::OneCommand(commands));
        }
        if self.dialect == Dialect::Pickle && mix.percent(Operation::Scan) > 0 {
            return Err(BenchFlagsError::PickleCannot("--workload e"));
        }
        if self.dialect == Dialect::Pickle && self.ttl.is_some() {
            return Err(BenchFlagsError::PickleCannot("--ttl"));
        }
        let default_value = if self.workload.is_some() { Ycsb::VALUE } else { 100 };
        let plan = Plan {
            peers: within("--peers", self.peers, 1, MOST_PEERS)?,
            in_flight: within("--in-flight", self.in_flight, 1, MOST_IN_FLIGHT)?,
            commands,
            mix,
            keys,
            first_key: 0,
            shape,
            distribution: self.distribution()?,
            values: self.value.unwrap_or(ValueSize::fixed(default_value)),
            expiry: self.expiry()?,
            rate: self.rate.map(|rate| within("--rate", rate, RATES[0], RATES[1])).transpose()?,
            warm_up: if self.warm_up == 0.0 { Duration::ZERO } else { seconds("--warm-up", self.warm_up)? },
            until: self.until()?,
            patience: seconds("--timeout", self.timeout)?,
            seed: self.seed,
        };
        let address = address(&self.endpoint)?;
        Ok(Settings { address, dialect: self.dialect, workload: self.workload, fill: self.fill, json: self.json, plan })
    }

    fn distribution(&self) -> Result<Distribution, BenchFlagsError> {
        let theta = positive("--theta", self.theta.unwrap_or(THETA))?;
        if theta > LARGEST_THETA {
            return Err(bounds("--theta", &theta, &0, &LARGEST_THETA));
        }
        let distribution = match (self.distribution, self.workload) {
            (None, Some(workload)) => workload.distribution(theta),
            (None | Some(Keys::Uniform), _) => Distribution::Uniform,
            (Some(Keys::Zipf), _) => Distribution::Zipf(theta),
            (Some(Keys::Latest), _) => Distribution::Latest(theta),
            (Some(Keys::Sequential), _) => Distribution::Sequential,
        };
        match distribution {
            Distribution::Uniform | Distribution::Sequential if self.theta.is_some() => Err(BenchFlagsError::NoTheta),
            distribution => Ok(distribution),
        }
    }

    fn expiry(&self) -> Result<Expiry, BenchFlagsError> {
        let Some(ttl) = self.ttl else { return Ok(Expiry::Never) };
        let milliseconds = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        if (1..=LONGEST_TTL).contains(&milliseconds) {
            return Ok(Expiry::In(milliseconds));
        }
        Err(bounds("--ttl", &ttl, &"1ms", &humantime::Duration::from(Duration::from_millis(LONGEST_TTL))))
    }

    fn until(&self) -> Result<Until, BenchFlagsError> {
        let count = match self.requests {
            Some(0) => return Err(BenchFlagsError::NotPositive { flag: "--requests", given: 0.0 }),
            requests => requests.unwrap_or(u64::MAX),
        };
        let elapsed = match self.seconds {
            Some(given) => seconds("--seconds", given)?,
            None if self.requests.is_some() => Duration::MAX,
            None => Duration::from_secs_f64(SECONDS),
        };
        Ok(Until { elapsed, count })
    }
}

fn bounds(
    flag: &'static str,
    given: &impl ToString,
    smallest: &impl ToString,
    largest: &impl ToString,
) -> BenchFlagsError {
    let [given, smallest, largest] = [given.to_string(), smallest.to_string(), largest.to_string()];
    BenchFlagsError::Bounds { flag, given, smallest, largest }
}

fn within<N: Copy + PartialOrd + ToString>(
    flag: &'static str,
    given: N,
    smallest: N,
    largest: N,
) -> Result<N, BenchFlagsError> {
    // Said so that what is no number at all is refused as well.
    if smallest <= given && given <= largest { Ok(given) } else { Err(bounds(flag, &given, &smallest, &largest)) }
}

fn positive(flag: &'static str, given: f64) -> Result<f64, BenchFlagsError> {
    if given > 0.0 && given.is_finite() { Ok(given) } else { Err(BenchFlagsError::NotPositive { flag, given }) }
}

fn seconds(flag: &'static str, given: f64) -> Result<Duration, BenchFlagsError> {
    Ok(Duration::from_secs_f64(within(flag, given, TIMES[0], TIMES[1])?))
}

/// Where to connect to.
fn address(endpoint: &Endpoint) -> Result<Address, BenchFlagsError> {
    match endpoint {
        Endpoint::Ipc(path) => Ok(Address::Unix(path.into())),
        Endpoint::Tcp { host, port: Some(port) } => match host {
            Host::Address(IpAddr::V6(address)) => Ok(Address::Tcp(format!("[{address}]:{port}"))),
            Host::Address(address) => Ok(Address::Tcp(format!("{address}:{port}"))),
            Host::Link(address, zone) => Ok(Address::Tcp(format!("[{address}%{zone}]:{port}"))),
            Host::Name(name) => Ok(Address::Tcp(format!("{name}:{port}"))),
            Host::Any => Err(BenchFlagsError::NoPlace(endpoint.clone())),
        },
        Endpoint::Tcp { .. } => Err(BenchFlagsError::NoPlace(endpoint.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Flags, Tool};

    fn settings(arguments: &str) -> Result<Settings, String> {
        let words = ["kvd", "bench"].into_iter().chain(arguments.split_whitespace());
        match Flags::read(words.map(Into::into), &|_| None).map_err(|error| error.to_string())?.tool {
            Some(Tool::Bench(flags)) => flags.validate().map_err(|error| error.to_string()),
            _ => Err("no bench".to_owned()),
        }
    }

    #[test]
    fn without_flags_everything_has_its_documented_default() {
        let settings = settings("").expect("is possible");
        assert_eq!(settings.address.to_string(), DEFAULT_BIND);
        let plan = settings.plan;
        assert_eq!((plan.peers, plan.in_flight, plan.commands, plan.keys), (50, 16, 1, 100_000));
        assert_eq!((plan.mix, plan.distribution), (Mix::of_reads(90), Distribution::Uniform));
        assert_eq!((plan.values, plan.shape), (ValueSize::fixed(100), KeyShape::of_size(16)));
        assert_eq!((plan.until, plan.warm_up), (Until::elapsed(Duration::from_secs(10)), Duration::ZERO));
        assert!(plan.rate.is_none() && plan.expiry == Expiry::Never && !settings.fill && !settings.json);
    }

    #[test]
    fn what_is_typed_is_what_is_run() {
        let settings = settings(
            "--endpoint ipc:///run/kvd.sock --dialect packed --peers 3 --in-flight 2 --commands 8 --keys 1000 \
             --key-size 32 --distribution zipf --theta 1.1 --value 10..1KiB --reads 75 --ttl 90s --rate 500.5 \
             --seconds 1.5 --requests 10 --warm-up 0.5 --load --timeout 3 --seed 9 --json",
        );
        let settings = settings.expect("is possible");
        assert_eq!(settings.address, Address::Unix("/run/kvd.sock".into()));
        assert!(settings.fill && settings.json && settings.dialect == Dialect::Packed);
        let plan = settings.plan;
        assert_eq!((plan.peers, plan.in_flight, plan.commands, plan.keys), (3, 2, 8, 1000));
        assert_eq!((plan.mix, plan.distribution), (Mix::of_reads(75), Distribution::Zipf(1.1)));
        assert_eq!((plan.values.smallest, plan.values.largest, plan.shape.size()), (10, 1024, 32));
        assert_eq!((plan.expiry, plan.rate, plan.seed), (Expiry::In(90_000), Some(500.5), 9));
        assert_eq!(plan.until, Until { elapsed: Duration::from_millis(1500), count: 10 });
        assert_eq!((plan.warm_up, plan.patience), (Duration::from_millis(500), Duration::from_secs(3)));
    }

    #[test]
    fn workloads_bring_their_own_keys_and_values() {
        let plan = settings("--workload d").expect("is possible").plan;
        assert_eq!((plan.mix, plan.distribution), (Ycsb::D.mix(), Distribution::Latest(THETA)));
        assert_eq!(plan.values, ValueSize::fixed(1000));
        let plan = settings("--workload a --keys 1000 --key-size 3").expect("is possible, since A adds none").plan;
        assert_eq!((plan.mix, plan.distribution), (Ycsb::A.mix(), Distribution::Zipf(THETA)));
        let plan = settings("--workload d --theta 1.2").expect("is possible").plan;
        assert_eq!(plan.distribution, Distribution::Latest(1.2));
        let plan = settings("--workload a --value 5 --distribution uniform").expect("is possible").plan;
        assert_eq!((plan.distribution, plan.values), (Distribution::Uniform, ValueSize::fixed(5)));
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        for (arguments, named) in [
            ("--peers 0", "--peers"),
            ("--in-flight 0", "--in-flight"),
            ("--commands 2", "--dialect packed"),
            ("--commands 5000 --dialect packed", "--commands"),
            ("--keys 0", "--keys"),
            ("--keys 1001 --key-size 3", "1000 keys"),
            ("--workload d --keys 1000 --key-size 3", "--workload d"),
            ("--workload e --keys 501 --key-size 3", "--workload e"),
            ("--key-size 0", "--key-size"),
            ("--key-size 65KiB", "--key-size"),
            ("--value 2..1", "--value"),
            ("--value 2GiB", "--value"),
            ("--theta 0", "--theta"),
            ("--theta 11", "--theta"),
            ("--theta 1.2", "--theta needs"),
            ("--theta 1.2 --workload a --distribution uniform", "--theta needs"),
            ("--reads 101", "--reads"),
            ("--reads 50 --workload a", "--workload"),
            ("--rate 0", "--rate"),
            ("--rate inf", "--rate"),
            ("--seconds 0", "--seconds"),
            ("--rate 1e-19", "--rate"),
            ("--seconds 1e300", "--seconds"),
            ("--seconds NaN", "--seconds"),
            ("--requests 0", "--requests"),
            ("--warm-up=-1", "--warm-up"),
            ("--warm-up 1e19", "--warm-up"),
            ("--warm-up 1e19 --seconds 1e19", "--warm-up"),
            ("--timeout 0", "--timeout"),
            ("--timeout 1e-10", "--timeout"),
            ("--ttl 500us", "--ttl"),
            ("--ttl 0s", "--ttl"),
            ("--ttl 300000000years", "--ttl"),
            ("--dialect pickle --ttl 1s", "--ttl"),
            ("--dialect pickle --workload e", "--workload e"),
            ("--endpoint tcp://*:1", "--endpoint"),
            ("--endpoint tcp://127.0.0.1:*", "--endpoint"),
            ("--endpoint nowhere", "--endpoint"),
        ] {
            let error = settings(arguments).expect_err(arguments);
            assert!(error.contains(named), "{arguments}: {error}");
        }
    }
}
