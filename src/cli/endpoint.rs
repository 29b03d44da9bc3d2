//! Places to listen and places to connect to, as they are written on the command line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A place where a daemon listens.
///
/// ```
/// use kvd::cli::Endpoint;
/// let endpoint: Endpoint = "tcp://localhost:0".parse().unwrap();
/// assert!(endpoint.is_local());
/// assert_eq!(endpoint.to_string(), "tcp://127.0.0.1:*");
/// assert!(!"tcp://*:43000".parse::<Endpoint>().unwrap().is_local());
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
    /// A Unix domain socket.
    Ipc(String),
}

/// What a TCP port is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Every address of the machine, `*`.
    Any,
    /// One address.
    Address(IpAddr),
    /// A name that libzmq is left to make sense of: a network interface.
    Name(String),
}

impl Endpoint {
    /// Whether only this machine can reach it. A name might be anything, so it is taken for reachable.
    pub fn is_local(&self) -> bool {
        match self {
            Endpoint::Tcp { host: Host::Address(address), .. } => address.is_loopback(),
            Endpoint::Tcp { .. } => false,
            Endpoint::Ipc(_) => true,
        }
    }

    /// Whether the socket must be told to speak IPv6.
    pub fn is_ipv6(&self) -> bool {
        matches!(self, Endpoint::Tcp { host: Host::Address(IpAddr::V6(_)), .. })
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A blank after the comma that stands between two.
        let text = text.trim();
        if let Some(path) = text.strip_prefix("ipc://") {
            return if path.is_empty() || path.contains('\0') {
                Err("ipc:// needs the path of the socket, such as ipc:///run/kvd.sock".into())
            } else {
                Ok(Endpoint::Ipc(path.into()))
            };
        }
        let rest = text.strip_prefix("tcp://").ok_or("must begin with tcp:// or ipc://")?;
        let (host, port) = rest.rsplit_once(':').ok_or("needs a port: tcp://HOST:PORT, where PORT may be *")?;
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
            let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            return address
                .map(|address| Host::Address(address.into()))
                .ok_or_else(|| format!("`{text}` is no IPv6 address in brackets"));
        }
        match text {
            "" => Err("needs a host: tcp://HOST:PORT".into()),
            "*" => Ok(Host::Any),
            // libzmq resolves no names for a port it binds.
            "localhost" => Ok(Host::Address(Ipv4Addr::LOCALHOST.into())),
            _ if text.contains([':', '/', ';', '\0']) => Err(format!("`{text}` is no host (IPv6 goes in brackets)")),
            _ => Ok(text.parse::<Ipv4Addr>().map_or_else(|_| Host::Name(text.into()), |v4| Host::Address(v4.into()))),
        }
    }
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
            ("tcp://[::1]:7", "tcp://[::1]:7"),
            ("tcp://*:7", "tcp://*:7"),
            ("tcp://eth0:7", "tcp://eth0:7"),
            ("ipc:///run/kvd.sock", "ipc:///run/kvd.sock"),
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
    fn only_loopback_and_ipc_are_local() {
        for (text, local) in [
            ("tcp://127.0.0.1:1", true),
            ("tcp://127.9.9.9:1", true),
            ("tcp://localhost:1", true),
            ("tcp://[::1]:1", true),
            ("ipc://kvd.sock", true),
            ("tcp://*:1", false),
            ("tcp://0.0.0.0:1", false),
            ("tcp://[::]:1", false),
            ("tcp://192.168.1.7:1", false),
            ("tcp://lo:1", false),
            ("tcp://example.org:1", false),
        ] {
            assert_eq!(text.parse::<Endpoint>().expect("parses").is_local(), local, "{text}");
        }
    }
}
