//! Floor 6. Who executed what: the nodes' own command statistics, as differences.
//! Knows `INFO commandstats`, and nothing of Switchman: it is the nodes that bear witness.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::demo::client::Reply;
use crate::demo::deployment::Deployment;
use crate::demo::process::Process;
use crate::demo::story::ledger::Act;

/// Commands that each running node has executed. A replica counts what it replicates as well.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    nodes: BTreeMap<SocketAddr, BTreeMap<Act, u64>>,
}

impl Traffic {
    /// Asks all nodes that run.
    pub(super) fn read(deployment: &Deployment) -> Self {
        let running = deployment.nodes().iter().filter(|node| node.is_running());
        let nodes = running.filter_map(|node| Some((node.addr(), calls_at(node)?)));
        Self {
            nodes: nodes.collect(),
        }
    }

    /// What was executed since `earlier`; for a node that was not there, all of it.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut change = self.clone();
        for (addr, calls) in &mut change.nodes {
            for (act, count) in calls {
                *count = count.saturating_sub(earlier.calls(*addr, *act));
            }
        }
        change
    }

    /// How often the node has executed the act.
    pub(super) fn calls(&self, node: SocketAddr, act: Act) -> u64 {
        let calls = self.nodes.get(&node);
        calls
            .and_then(|calls| calls.get(&act))
            .copied()
            .unwrap_or(0)
    }

    /// How often the node has executed any write.
    pub(super) fn writes(&self, node: SocketAddr) -> u64 {
        let writes = Act::ALL.into_iter().filter(|act| act.is_write());
        writes.map(|act| self.calls(node, act)).sum()
    }

    /// A table for people, with the role that each node has.
    pub(super) fn table(&self, master: SocketAddr) -> Vec<String> {
        let mut lines = vec![line(["executed by", "GET", "SET", "INCR", "DEL", ""])];
        for &node in self.nodes.keys() {
            let role = if node == master { "master" } else { "replica" };
            let note = if node == master {
                ""
            } else {
                "  (writes: replicated)"
            };
            let name = format!("{role} {node}");
            let [get, set, incr, del] = Act::ALL.map(|act| self.calls(node, act).to_string());
            lines.push(line([&name, &get, &set, &incr, &del, note]));
        }
        lines
    }
}

/// Commands that the node has executed since it was started.
pub(super) fn calls_at(node: &Process) -> Option<BTreeMap<Act, u64>> {
    let info = node.command(&["INFO", "commandstats"]).ok()?;
    Some(Act::ALL.map(|act| (act, calls_in(&info, act))).into())
}

/// The `calls` of a line like `cmdstat_get:calls=21,usec=175,…`; no line, no calls.
fn calls_in(info: &Reply, act: Act) -> u64 {
    let name = format!("cmdstat_{}", act.name().to_lowercase());
    let calls = info.info(&name).and_then(|stats| {
        let calls = stats.split(',').next()?.strip_prefix("calls=")?;
        calls.parse().ok()
    });
    calls.unwrap_or(0)
}

fn line([name, get, set, incr, del, note]: [&str; 6]) -> String {
    format!("{name:<24} {get:>6} {set:>6} {incr:>6} {del:>6}{note}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_command_statistics() {
        let info = Reply::bulk("# Commandstats\r\ncmdstat_get:calls=21,usec=175\r\n");
        assert_eq!(calls_in(&info, Act::Get), 21);
        assert_eq!(calls_in(&info, Act::Set), 0);
    }

    #[test]
    fn a_node_that_was_away_counts_from_nothing() {
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let of = |nodes: &[(u16, u64)]| Traffic {
            nodes: nodes
                .iter()
                .map(|&(port, gets)| (addr(port), BTreeMap::from([(Act::Get, gets)])))
                .collect(),
        };
        let change = of(&[(1, 9), (2, 4)]).since(&of(&[(1, 5)]));
        assert_eq!(change.calls(addr(1), Act::Get), 4);
        assert_eq!(change.calls(addr(2), Act::Get), 4);
    }
}
