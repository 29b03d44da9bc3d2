//! What of the machine decides what flags mean: its memory, and the names of its network interfaces.

use super::endpoint::{Endpoint, Host};
use std::net::IpAddr;

/// The machine, as far as flags depend on it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Bytes of memory that this process may use.
    pub memory: u64,
    /// Its network interfaces.
    pub interfaces: Vec<Interface>,
}

/// A network interface.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Longest name of an interface, in bytes (`IFNAMSIZ` less its zero).
const LONGEST_NAME: usize = 15;

/// Why a place to listen is none. Displays as what follows the endpoint in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The machine has no such interface, now. A tunnel or a VLAN may come up later.
    #[error(
        "names the network interface `{name}`, and this machine has none of that name now{known}. Host names are not \
         resolved: give an address or an interface"
    )]
    NoInterface {
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The interface has no address, now.
    #[error("names the network interface `{0}`, which has no address now")]
    NoAddress(String),
    /// No address, and nothing that an interface is called.
    #[error(
        "names no network interface and is no address, and host names are not resolved: give an address of this machine or a \
         network interface"
    )]
    HostName,
}

impl NoPlace {
    /// Whether it may be right at a later start.
    pub fn may_pass(&self) -> bool {
        !matches!(self, NoPlace::HostName)
    }
}

impl Machine {
    /// What an endpoint means here, with the address of an interface in place of its name: the first of version 4, as
    /// libzmq has it, else the first of version 6. And whether only this machine can reach it: an interface is judged by
    /// all of its addresses, since the first one may be another tomorrow.
    ///
    /// # Errors
    /// A [`NoPlace`], if there is no such interface.
    pub fn place(&self, endpoint: &Endpoint) -> Result<(Endpoint, bool), NoPlace> {
        let Endpoint::Tcp { host, port } = endpoint else { return Ok((endpoint.clone(), true)) };
        match host {
            Host::Any => Ok((endpoint.clone(), false)),
            Host::Address(address) => Ok((endpoint.clone(), address.to_canonical().is_loopback())),
            Host::Link(_, zone) => {
                self.interface(zone)?;
                Ok((endpoint.clone(), false))
            }
            Host::Name(name) => {
                let interface =
                    self.interface(name).map_err(|why| if is_host(name) { NoPlace::HostName } else { why })?;
                let mut addresses = interface.addresses.iter();
                let first = addresses.clone().find(|address| address.is_ipv4()).or_else(|| addresses.next());
                let host = match *first.ok_or_else(|| NoPlace::NoAddress(name.clone()))? {
                    IpAddr::V6(address) if address.is_unicast_link_local() => Host::Link(address, name.clone()),
                    address => Host::Address(address),
                };
                let is_local = interface.addresses.iter().all(IpAddr::is_loopback);
                Ok((Endpoint::Tcp { host, port: *port }, is_local))
            }
        }
    }

    /// The interface of this name, or of this number.
    fn interface(&self, name: &str) -> Result<&Interface, NoPlace> {
        let index = name.parse::<u32>().ok();
        let found = self.interfaces.iter().find(|one| one.name == name || Some(one.index) == index);
        found.ok_or_else(|| {
            if name.len() > LONGEST_NAME {
                return NoPlace::HostName;
            }
            let names: Vec<_> = self.interfaces.iter().map(|one| &*one.name).collect();
            let known = if names.is_empty() { String::new() } else { format!(" (it has {})", names.join(", ")) };
            NoPlace::NoInterface { name: name.to_owned(), known }
        })
    }
}

/// Whether a name is that of a host, or an address gone wrong: one with a dot, unless as of a VLAN, `eth0.100`.
fn is_host(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match name.split_once('.') {
        Some((parent, vlan)) => !(parent.starts_with(|first: char| first.is_ascii_alphabetic()) && is_number(vlan)),
        None => is_number(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let interface = |name: &str, index, addresses: &[&str]| Interface {
            name: name.to_owned(),
            index,
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        };
        let interfaces = vec![
            interface("lo", 1, &["127.0.0.1", "::1"]),
            interface("eth0", 2, &["fe80::7", "192.0.2.7"]),
            interface("wg0", 3, &[]),
            interface("v6", 4, &["fe80::9"]),
            interface("lo-and-more", 5, &["127.0.0.2", "10.0.0.1"]),
        ];
        Machine { memory: 8 << 30, interfaces }
    }

    fn place(text: &str) -> Result<(String, bool), NoPlace> {
        let endpoint: Endpoint = text.parse().expect("an endpoint");
        machine().place(&endpoint).map(|(endpoint, local)| (endpoint.to_string(), local))
    }

    #[test]
    fn only_loopback_and_ipc_are_local() {
        for (text, means, local) in [
            ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1", true),
            ("tcp://127.9.9.9:1", "tcp://127.9.9.9:1", true),
            ("tcp://localhost:1", "tcp://127.0.0.1:1", true),
            ("tcp://[::1]:1", "tcp://[::1]:1", true),
            ("tcp://[::ffff:127.0.0.1]:1", "tcp://[::ffff:127.0.0.1]:1", true),
            ("tcp://lo:1", "tcp://127.0.0.1:1", true),
            ("ipc://kvd.sock", "ipc://kvd.sock", true),
            ("ipc://@kvd", "ipc://@kvd", true),
            ("tcp://*:1", "tcp://*:1", false),
            ("tcp://0.0.0.0:1", "tcp://0.0.0.0:1", false),
            ("tcp://[::]:1", "tcp://[::]:1", false),
            ("tcp://[::ffff:192.0.2.7]:1", "tcp://[::ffff:192.0.2.7]:1", false),
            ("tcp://192.168.1.7:1", "tcp://192.168.1.7:1", false),
            ("tcp://eth0:1", "tcp://192.0.2.7:1", false),
            ("tcp://v6:*", "tcp://[fe80::9%v6]:*", false),
            ("tcp://[fe80::7%eth0]:1", "tcp://[fe80::7%eth0]:1", false),
            ("tcp://[fe80::7%2]:1", "tcp://[fe80::7%2]:1", false),
            // It is bound to its first address, which may be another one tomorrow.
            ("tcp://lo-and-more:1", "tcp://127.0.0.2:1", false),
        ] {
            assert_eq!(place(text), Ok((means.to_owned(), local)), "{text}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_may_come_and_a_host_name_never_does() {
        for (text, named, may_pass) in [
            ("tcp://wg0:1", "no address now", true),
            ("tcp://eth7:1", "(it has lo, eth0,", true),
            ("tcp://eth0.100:1", "Host names are not resolved", true),
            ("tcp://[fe80::7%9]:1", "`9`", true),
            ("tcp://db.example:1", "host names are not resolved", false),
            ("tcp://localhost.:1", "host names are not resolved", false),
            ("tcp://256.1.1.1:1", "is no address", false),
            ("tcp://127.1:1", "is no address", false),
            ("tcp://2130706433:1", "is no address", false),
            ("tcp://cache.example.org:1", "host names are not resolved", false),
            ("tcp://[fe80::7%eth7]:1", "`eth7`", true),
        ] {
            let refusal = place(text).expect_err(text);
            assert!(refusal.to_string().contains(named), "{text}: {refusal}");
            assert_eq!(refusal.may_pass(), may_pass, "{text}");
        }
    }
}
