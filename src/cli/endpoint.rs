//! Places to listen and places to connect to, as they are written on the command line.
//!
//! What is wrong with one is told in a sentence that names what can be changed. What an interface's name means on this
//! machine is for [`super::machine`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A place where a daemon listens.
///
/// ```
/// use kvd::cli::Endpoint;
/// let endpoint: Endpoint = "tcp://localhost:0".parse().unwrap();
/// assert_eq!(endpoint.to_string(), "tcp://127.0.0.1:*");
/// assert!("tcp://[fe80::1]:43000".parse::<Endpoint>().unwrap_err().contains("interface"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port.
    Tcp {
        /// An address, the name of a network interface, or every address.
        host: Host,
        /// The port; `None` picks a free one.
        port: Option<u16>,
    },
    /// A Unix domain socket: the path of its file, or an abstract name behind an `@`.
    Ipc(String),
}

/// What a TCP port is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Every address of the machine, `*`.
    Any,
    /// One address.
    Address(IpAddr),
    /// An address that means something on one link only, and the interface to that link.
    Link(Ipv6Addr, String),
    /// A name: of a network interface to listen on, of a host to connect to.
    Name(String),
}

impl Host {
    /// Whether listening on this one is listening on that one too.
    fn covers(&self, other: &Host) -> bool {
        let address = |host: &Host| match host {
            Host::Any => Some(Ipv4Addr::UNSPECIFIED.into()),
            Host::Address(address) => Some(address.to_canonical()),
            Host::Link(address, _) => Some((*address).into()),
            Host::Name(_) => None,
        };
        let (Some(this), Some(that)) = (address(self), address(other)) else { return false };
        this == that || this.is_unspecified() && (this.is_ipv6() || that.is_ipv4())
    }
}

/// Most bytes of an ipc path, an `@` counted as one: `sun_path` of `sockaddr_un`, less its zero.
const LONGEST_IPC_PATH: usize = 107;

impl Endpoint {
    /// Whether the socket must be told to speak IPv6.
    pub fn is_ipv6(&self) -> bool {
        matches!(self, Endpoint::Tcp { host: Host::Address(IpAddr::V6(_)) | Host::Link(..), .. })
    }

    /// Whether a TCP port that both ask for can't be listened on for both.
    pub fn overlaps(&self, other: &Endpoint) -> bool {
        match (self, other) {
            (Endpoint::Tcp { host, port: Some(port) }, Endpoint::Tcp { host: other, port: Some(others) }) => {
                port == others && (host.covers(other) || other.covers(host))
            }
            _ => false,
        }
    }
}

fn ipc_path(path: &str) -> Result<String, String> {
    match path {
        "" => return Err("ipc:// needs the path of the socket, such as ipc:///run/kvd.sock".into()),
        "@" => return Err("an abstract socket needs a name, such as ipc://@kvd".into()),
        "*" => {
            return Err("only a port can be picked by kvd: give the path of the socket, such as /run/kvd.sock".into());
        }
        _ => {}
    }
    let what = if path.starts_with('@') { "name of an abstract socket, with its @," } else { "path of a socket" };
    if path.len() > LONGEST_IPC_PATH {
        return Err(format!(
            "the {what} can have {LONGEST_IPC_PATH} bytes at most, and this one has {}: choose a shorter one",
            path.len()
        ));
    }
    if path.contains(is_blank) {
        return Err(format!(
            "kvd takes no blanks in the {what} since blanks separate the endpoints of its ready line: choose another one"
        ));
    }
    Ok(path.into())
}

/// What an endpoint is told that begins like none.
fn without_scheme(text: &str) -> String {
    let scheme = if text.starts_with(['/', '@']) { "ipc://" } else { "tcp://" };
    let offer = format!("{scheme}{text}");
    let meant = if offer.parse::<Endpoint>().is_ok() { format!(": {offer}, if that is meant") } else { String::new() };
    format!("must begin with tcp:// or ipc://{meant}")
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A blank after the comma that stands between two.
        let text = text.trim();
        if let Some(path) = text.strip_prefix("ipc://") {
            return ipc_path(path).map(Endpoint::Ipc);
        }
        if text.is_empty() {
            return Err(
                "an endpoint is missing: give tcp://HOST:PORT or ipc://PATH, with commas between several".into()
            );
        }
        let rest = text.strip_prefix("tcp://").ok_or_else(|| without_scheme(text))?;
        // Not one of those between the brackets.
        let host_ends = rest.rfind(']').map_or(0, |bracket| bracket + 1);
        let port_at = rest.rfind(':').filter(|at| *at >= host_ends);
        let (host, port) = port_at
            .map(|at| (&rest[..at], &rest[at + 1..]))
            .ok_or("needs a port: tcp://HOST:PORT, where PORT may be *")?;
        let port = match port {
            "*" | "0" => None,
            _ => Some(port.parse().map_err(|_| format!("`{port}` is no port: it must be 1 to 65535, or *"))?),
        };
        Ok(Endpoint::Tcp { host: host.parse()?, port })
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(inner) = text.strip_prefix('[') {
            return bracketed(inner).ok_or_else(|| format!("`{text}` is no IPv6 address in brackets"))?;
        }
        match text {
            "" => Err("needs a host: tcp://HOST:PORT".into()),
            "*" => Ok(Host::Any),
            // libzmq resolves no names for a port it binds.
            _ if text.eq_ignore_ascii_case("localhost") => Ok(Host::Address(Ipv4Addr::LOCALHOST.into())),
            _ if text.contains([':', '/', ';', '%', '[', ']']) || text.contains(is_blank) => {
                Err(format!("`{text}` is no host (IPv6 goes in brackets)"))
            }
            _ => Ok(text.parse::<Ipv4Addr>().map_or_else(|_| Host::Name(text.into()), |v4| Host::Address(v4.into()))),
        }
    }
}

/// What stands between brackets, if it is an IPv6 address.
fn bracketed(inner: &str) -> Option<Result<Host, String>> {
    let inner = inner.strip_suffix(']')?;
    let (address, zone) = inner.split_once('%').map_or((inner, None), |(address, zone)| (address, Some(zone)));
    let address: Ipv6Addr = address.parse().ok()?;
    Some(match zone {
        Some(_) if !address.is_unicast_link_local() => {
            Err(format!("[{inner}] has a zone, and only link-local addresses (fe80::…) have one"))
        }
        Some(zone) if zone.is_empty() || zone.contains(['/', '%', ';']) || zone.contains(is_blank) => {
            Err(format!("[{inner}] names no interface behind the %: such as [fe80::1%eth0]"))
        }
        Some(zone) => Ok(Host::Link(address, zone.into())),
        None if address.is_unicast_link_local() => {
            Err(format!("[{inner}] means something on one link only: name its interface, such as [{inner}%eth0]"))
        }
        None => Ok(Host::Address(address.into())),
    })
}

fn is_blank(character: char) -> bool {
    character.is_whitespace() || character.is_control()
}

impl fmt::Display for Endpoint {
    /// As libzmq wants it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Ipc(path) => write!(out, "ipc://{path}"),
            Endpoint::Tcp { host, port } => {
                match host {
                    Host::Any => write!(out, "tcp://*:"),
                    Host::Address(IpAddr::V4(address)) => write!(out, "tcp://{address}:"),
                    Host::Address(IpAddr::V6(address)) => write!(out, "tcp://[{address}]:"),
                    Host::Link(address, zone) => write!(out, "tcp://[{address}%{zone}]:"),
                    Host::Name(name) => write!(out, "tcp://{name}:"),
                }?;
                match port {
                    Some(port) => write!(out, "{port}"),
                    None => write!(out, "*"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_tcp_or_ipc() {
        for (text, canonical) in [
            ("tcp://127.0.0.1:43000", "tcp://127.0.0.1:43000"),
            ("tcp://127.0.0.1:0", "tcp://127.0.0.1:*"),
            ("tcp://localhost:*", "tcp://127.0.0.1:*"),
            ("tcp://LocalHost:*", "tcp://127.0.0.1:*"),
            ("tcp://[::1]:7", "tcp://[::1]:7"),
            ("tcp://*:7", "tcp://*:7"),
            ("tcp://eth0:7", "tcp://eth0:7"),
            ("tcp://[fe80::1%eth0]:7", "tcp://[fe80::1%eth0]:7"),
            ("tcp://[fe80::1%2]:0", "tcp://[fe80::1%2]:*"),
            ("tcp://[::ffff:127.0.0.1]:7", "tcp://[::ffff:127.0.0.1]:7"),
            ("ipc:///run/kvd.sock", "ipc:///run/kvd.sock"),
            ("ipc://@kvd", "ipc://@kvd"),
            (" ipc:///run/kvd.sock", "ipc:///run/kvd.sock"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(endpoint.to_string(), canonical);
        }
        for text in
            ["", "inproc://x", "127.0.0.1:1", "tcp://127.0.0.1", "tcp://:1", "tcp://h:70000", "tcp://::1:1", "ipc://"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text} must be refused");
        }
    }

    #[test]
    fn endpoints_overlap_where_one_of_them_takes_the_port_of_the_other() {
        for (one, other, overlap) in [
            ("tcp://*:1", "tcp://127.0.0.1:1", true),
            ("tcp://*:1", "tcp://0.0.0.0:1", true),
            ("tcp://*:1", "tcp://[::]:1", true),
            ("tcp://[::]:1", "tcp://192.0.2.7:1", true),
            ("tcp://[::]:1", "tcp://[::1]:1", true),
            ("tcp://[::ffff:127.0.0.1]:1", "tcp://127.0.0.1:1", true),
            ("tcp://[fe80::1%eth0]:1", "tcp://[fe80::1%2]:1", true),
            ("tcp://*:1", "tcp://127.0.0.1:2", false),
            ("tcp://*:*", "tcp://127.0.0.1:*", false),
            ("tcp://*:1", "tcp://[::1]:1", false),
            ("tcp://127.0.0.1:1", "tcp://127.0.0.2:1", false),
            ("ipc:///run/kvd.sock", "ipc:///run/kvd.sock", false),
        ] {
            let [a, b] = [one, other].map(|text| text.parse::<Endpoint>().expect(text));
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (overlap, overlap), "{one} {other}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_so_that_it_can_be_changed() {
        let long = format!("ipc:///{}", "x".repeat(107));
        let long_name = format!("ipc://@{}", "x".repeat(110));
        for (text, named) in [
            (&*long, "107 bytes at most, and this one has 108"),
            ("ipc:///run/my kvd.sock", "no blanks"),
            ("ipc://*", "only a port"),
            ("ipc://@", "a name"),
            ("", "an endpoint is missing"),
            ("unix:///run/kvd.sock", "tcp:// or ipc://"),
            ("127.0.0.1:43000", "must begin with tcp:// or ipc://: tcp://127.0.0.1:43000, if that is meant"),
            ("/run/kvd.sock", "ipc:///run/kvd.sock, if that is meant"),
            (&*long_name, "name of an abstract socket, with its @, can have 107 bytes at most, and this one has 111"),
            ("tcp://[::1]", "needs a port"),
            ("tcp://[fe80::1]:7", "[fe80::1%eth0]"),
            ("tcp://[fe80::1%]:7", "names no interface"),
            ("tcp://[::1%lo]:7", "only link-local"),
            ("tcp://my host:7", "is no host"),
            ("tcp://127.0.0.1:65536", "no port"),
        ] {
            let why = text.parse::<Endpoint>().expect_err(text);
            assert!(why.contains(named), "{text}: {why}");
        }
        assert!(format!("ipc:///{}", "x".repeat(106)).parse::<Endpoint>().is_ok());
    }
}
