//! Floor 1. When two addresses are one node: equal, resolved to a common IP, or one process.
//! Knows what the shell has resolved so far; resolves nothing itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::types::NodeAddr;

/// Sentinels may announce one node by name and by IP at the same time (`announce-hostnames` is a
/// setting of each of them), so addresses are compared here and not by their letters.
#[derive(Clone, Debug, Default)]
pub struct Names {
    ips: BTreeMap<String, Vec<IpAddr>>,
    run_ids: BTreeMap<NodeAddr, String>,
}

impl Names {
    /// Nothing resolved yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what `host` resolves to now. A failed look-up (no IPs) leaves the last result.
    pub fn learn_ips(&mut self, host: &str, ips: Vec<IpAddr>) {
        if !ips.is_empty() {
            let ips = ips.into_iter().map(|ip| ip.to_canonical()).collect();
            self.ips.insert(host.to_owned(), ips);
        }
    }

    /// Takes the `run_id` of the process that answers at `addr`, `None` to forget it.
    pub fn learn_run_id(&mut self, addr: &NodeAddr, run_id: Option<&str>) {
        let known = self.run_ids.get(addr).map(String::as_str);
        match run_id {
            same if same == known => {}
            Some(run_id) => {
                self.run_ids.insert(addr.clone(), run_id.to_owned());
            }
            None => {
                self.run_ids.remove(addr);
            }
        }
    }

    /// Takes what a Sentinel says of the process at `addr`; its own word counts more.
    pub fn learn_run_id_if_unknown(&mut self, addr: &NodeAddr, run_id: Option<&str>) {
        if let Some(run_id) = run_id {
            self.run_ids
                .entry(addr.clone())
                .or_insert_with(|| run_id.to_owned());
        }
    }

    /// Forgets every host and address for which `keep` has no use.
    pub fn retain(&mut self, keep_host: impl Fn(&str) -> bool, keep: impl Fn(&NodeAddr) -> bool) {
        self.ips.retain(|host, _| keep_host(host));
        self.run_ids.retain(|addr, _| keep(addr));
    }

    /// Whether both addresses lead to the same node, as far as is known.
    pub fn same(&self, one: &NodeAddr, other: &NodeAddr) -> bool {
        if one == other {
            return true;
        }
        let run_id = self.run_ids.get(one);
        if run_id.is_some() && run_id == self.run_ids.get(other) {
            return true;
        }
        if one.port() != other.port() {
            return false;
        }
        if let (Some(ip), Some(other)) = (one.ip(), other.ip()) {
            return ip == other;
        }
        let others = self.ips_of(other);
        self.ips_of(one).iter().any(|ip| others.contains(ip))
    }

    /// Whether both addresses can only be one place: equal, or resolved to one and the same IP.
    ///
    /// A name that stands for several Sentinels (a headless Kubernetes service) is none of them.
    pub fn same_place(&self, one: &NodeAddr, other: &NodeAddr) -> bool {
        let same_ip = || {
            let ips = self.ips_of(one);
            ips.len() == 1 && ips == self.ips_of(other)
        };
        one == other || (one.port() == other.port() && same_ip())
    }

    /// Whether `addr` leads to this machine itself; `None` while its host is not resolved.
    pub fn is_loopback(&self, addr: &NodeAddr) -> Option<bool> {
        if let Some(ip) = addr.ip() {
            return Some(ip.is_loopback());
        }
        let ips = self.ips_of(addr);
        let known = addr.host() == "localhost" || !ips.is_empty();
        known.then(|| ips.iter().all(IpAddr::is_loopback))
    }

    fn ips_of<'a>(&'a self, addr: &'a NodeAddr) -> &'a [IpAddr] {
        match addr.ips() {
            [] => self.ips.get(addr.host()).map_or(&[], Vec::as_slice),
            ips => ips,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> NodeAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_and_its_ip_are_one_node_once_resolved() {
        let mut names = Names::new();
        let (name, ip) = (addr("redis-1:6379"), addr("10.0.0.1:6379"));
        assert!(!names.same(&name, &ip));
        names.learn_ips("redis-1", vec!["10.0.0.1".parse().unwrap()]);
        assert!(names.same(&name, &ip));
        assert!(!names.same(&name, &addr("10.0.0.1:6380")));
        names.learn_ips("redis-1", Vec::new());
        assert!(
            names.same(&name, &ip),
            "a failed look-up takes nothing away"
        );
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_is_the_same_address() {
        assert!(Names::new().same(&addr("10.0.0.1:6379"), &addr("[::ffff:10.0.0.1]:6379")));
    }

    #[test]
    fn one_process_behind_two_addresses_is_one_node() {
        let mut names = Names::new();
        let (inner, outer) = (addr("10.0.0.1:6379"), addr("203.0.113.5:7001"));
        names.learn_run_id(&inner, Some("f00d"));
        names.learn_run_id(&outer, Some("f00d"));
        assert!(names.same(&inner, &outer));
        names.learn_run_id(&outer, Some("beef"));
        assert!(!names.same(&inner, &outer));
        names.learn_run_id(&outer, None);
        assert!(!names.same(&inner, &outer));
    }

    #[test]
    fn a_name_for_many_is_the_place_of_none() {
        let mut names = Names::new();
        let (service, one) = (addr("sentinels:26379"), addr("10.0.1.1:26379"));
        names.learn_ips("sentinels", vec!["10.0.1.1".parse().unwrap()]);
        assert!(names.same_place(&service, &one));
        let ips = ["10.0.1.1", "10.0.1.2"].map(|ip| ip.parse().unwrap());
        names.learn_ips("sentinels", ips.to_vec());
        assert!(!names.same_place(&service, &one));
        assert!(names.same_place(&one, &one));
    }

    #[test]
    fn loopback_is_a_matter_of_where_a_name_leads() {
        let mut names = Names::new();
        let at = |host: &str| NodeAddr::new(host, 1).unwrap();
        assert_eq!(names.is_loopback(&at("127.0.1.1")), Some(true));
        assert_eq!(names.is_loopback(&at("::1")), Some(true));
        assert_eq!(names.is_loopback(&at("localhost")), Some(true));
        assert_eq!(names.is_loopback(&at("10.0.0.1")), Some(false));
        assert_eq!(names.is_loopback(&at("redis-1")), None);
        names.learn_ips("redis-1", vec!["127.0.1.1".parse().unwrap()]);
        assert_eq!(names.is_loopback(&at("redis-1")), Some(true));
    }
}
