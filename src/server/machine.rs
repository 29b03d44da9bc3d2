//! What there is for this process: memory, of the machine or as its cgroup allows, and network interfaces.
//!
//! Knows where Linux says so. What becomes of it is for others to decide.

use crate::cli::{Interface, Machine};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use rustix::system::sysinfo;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Where cgroups are found.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The machine that this process runs on, as it is now.
pub fn machine() -> Machine {
    let mut interfaces: Vec<Interface> = Vec::new();
    // Where the system tells of none, there is none to be named.
    for entry in getifaddrs().into_iter().flatten() {
        let at = interfaces.iter().position(|known| known.name == entry.interface_name);
        let at = at.unwrap_or_else(|| {
            let index = if_nametoindex(entry.interface_name.as_str()).unwrap_or(0);
            interfaces.push(Interface { name: entry.interface_name.clone(), index, addresses: Vec::new() });
            interfaces.len() - 1
        });
        let address = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
        });
        if let Some(interface) = interfaces.get_mut(at) {
            interface.addresses.extend(address);
        }
    }
    Machine { memory: machine_memory(), interfaces }
}

/// Bytes of memory that this process may use: those of the machine, or of the strictest cgroup that it is in.
fn machine_memory() -> u64 {
    let info = sysinfo();
    let machine = u64::from(info.mem_unit).saturating_mul(info.totalram);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_limit(&groups, |path| fs::read_to_string(path).ok()).map_or(machine, |limit| limit.min(machine))
}

/// The least of the limits in the files of the groups that `/proc/self/cgroup` names, and of those above them.
fn cgroup_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        // Version 2 names no controllers; version 1 has a tree for each.
        let (root, file) = match controllers {
            "" => (CGROUPS.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (format!("{CGROUPS}/memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = read(&Path::new(&root).join(group).join(file));
            // `max` is no number, and no limit.
            limits.extend(limit.and_then(|text| text.trim().parse::<u64>().ok()));
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        cgroup_limit(groups, |path| {
            let path = path.to_str()?;
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_strictest_group_counts() {
        let files = [
            ("/sys/fs/cgroup/system.slice/kvd.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "2000000\n"),
            ("/sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "1000000\n"),
        ];
        assert_eq!(limit("0::/system.slice/kvd.service\n", &files), Some(2_000_000));
        assert_eq!(limit("4:cpu,memory:/pod\n1:name=systemd:/x\n", &files), Some(1_000_000));
        assert_eq!(limit("0::/other\n", &files), None);
        assert_eq!(limit("", &files), None);
    }

    #[test]
    fn there_is_some_memory_and_a_loopback() {
        let machine = machine();
        assert!(machine.memory > 1 << 20);
        let lo = machine.interfaces.iter().find(|interface| interface.name == "lo").expect("a loopback interface");
        assert!(lo.index > 0 && lo.addresses.iter().all(std::net::IpAddr::is_loopback), "{lo:?}");
    }
}
