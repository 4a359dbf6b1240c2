//! Floor 1. Which master the Sentinels name: votes in, choice out.
//! Knows nothing of roles; what a choice is worth without proof is decided elsewhere.

use crate::topology::names::Names;
use crate::types::{ConfigEpoch, NodeAddr};

/// What one Sentinel names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vote<'a> {
    /// The address.
    pub(super) node: &'a NodeAddr,
    /// Its epoch.
    pub(super) epoch: ConfigEpoch,
}

/// What all of them name together, compared with what is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Choice {
    /// Nobody names anything.
    #[default]
    Nothing,
    /// The master in use, at this epoch or a newer one than ours.
    Current { epoch: ConfigEpoch },
    /// Another node at a newer epoch, or the first one. Several, where as many Sentinels name one
    /// as the other.
    Newer {
        nodes: Vec<NodeAddr>,
        epoch: ConfigEpoch,
    },
    /// Another node at the epoch at which the master in use is named too, or was.
    Contested {
        other: NodeAddr,
        votes: usize,
        against: usize,
        epoch: ConfigEpoch,
    },
    /// Everybody is behind the epoch in use.
    Older {
        nodes: Vec<NodeAddr>,
        epoch: ConfigEpoch,
    },
}

/// Nodes named at the highest epoch, most votes first, with their votes.
pub(super) fn tally<'a>(
    votes: &[Vote<'a>],
    names: &Names,
) -> (ConfigEpoch, Vec<(&'a NodeAddr, usize)>) {
    let highest = votes
        .iter()
        .map(|vote| vote.epoch)
        .max()
        .unwrap_or_default();
    let mut counted: Vec<(&NodeAddr, usize)> = Vec::new();
    for vote in votes.iter().filter(|vote| vote.epoch == highest) {
        match counted
            .iter_mut()
            .find(|(node, _)| names.same(node, vote.node))
        {
            Some((_, count)) => *count += 1,
            None => counted.push((vote.node, 1)),
        }
    }
    counted.sort_by(|(one, ones), (other, others)| others.cmp(ones).then(one.cmp(other)));
    (highest, counted)
}

/// Compares `votes` with the master and the epoch `in_use`.
pub(super) fn choose(
    votes: &[Vote<'_>],
    in_use: Option<(&NodeAddr, ConfigEpoch)>,
    names: &Names,
) -> Choice {
    let (epoch, counted) = tally(votes, names);
    let Some((_, most)) = counted.first() else {
        return Choice::Nothing;
    };
    let best = || {
        let best = counted.iter().filter(|(_, count)| count == most);
        best.map(|(node, _)| (*node).clone()).collect()
    };
    let Some((current, our_epoch)) = in_use else {
        return Choice::Newer {
            nodes: best(),
            epoch,
        };
    };
    if epoch < our_epoch {
        return Choice::Older {
            nodes: best(),
            epoch,
        };
    }
    let mut against = 0;
    let mut other = None;
    for (node, count) in &counted {
        if names.same(node, current) {
            against = *count;
        } else if other.is_none() {
            other = Some(((*node).clone(), *count));
        }
    }
    match other {
        None => Choice::Current { epoch },
        Some(_) if against == 0 && epoch > our_epoch => Choice::Newer {
            nodes: best(),
            epoch,
        },
        Some((other, votes)) => Choice::Contested {
            other,
            votes,
            against,
            epoch,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> NodeAddr {
        text.parse().unwrap()
    }

    fn chosen(
        list: &[(&str, u64)],
        in_use: Option<(&NodeAddr, ConfigEpoch)>,
        names: &Names,
    ) -> Choice {
        let addrs: Vec<_> = list.iter().map(|(node, _)| addr(node)).collect();
        let vote = |(node, (_, epoch)): (_, &(&str, u64))| Vote {
            node,
            epoch: ConfigEpoch::new(*epoch),
        };
        let votes: Vec<_> = addrs.iter().zip(list).map(vote).collect();
        choose(&votes, in_use, names)
    }

    fn check(list: &[(&str, u64)], in_use: Option<(&str, u64)>, want: &Choice) {
        let in_use = in_use.map(|(node, epoch)| (addr(node), ConfigEpoch::new(epoch)));
        let in_use = in_use.as_ref().map(|(node, epoch)| (node, *epoch));
        assert_eq!(chosen(list, in_use, &Names::new()), *want, "{list:?}");
    }

    const A: &str = "10.0.0.1:6379";
    const B: &str = "10.0.0.2:6379";
    const C: &str = "10.0.0.3:6379";

    fn newer(nodes: &[&str], epoch: u64) -> Choice {
        let nodes = nodes.iter().map(|node| addr(node)).collect();
        Choice::Newer {
            nodes,
            epoch: ConfigEpoch::new(epoch),
        }
    }

    #[test]
    fn the_highest_epoch_wins_over_any_number_of_older_views() {
        check(&[(A, 1), (A, 1), (B, 2)], Some((A, 1)), &newer(&[B], 2));
        check(&[(A, 1), (B, 2)], None, &newer(&[B], 2));
    }

    #[test]
    fn a_view_behind_the_others_changes_nothing() {
        let current = Choice::Current {
            epoch: ConfigEpoch::new(5),
        };
        check(&[(B, 4), (A, 5), (C, 0)], Some((A, 5)), &current);
        check(&[(A, 5)], Some((A, 4)), &current);
    }

    #[test]
    fn one_epoch_with_two_masters_is_contested() {
        let contested = |votes, against, epoch| Choice::Contested {
            other: addr(B),
            votes,
            against,
            epoch: ConfigEpoch::new(epoch),
        };
        check(&[(A, 5), (B, 5), (B, 5)], Some((A, 5)), &contested(2, 1, 5));
        check(&[(A, 5), (B, 5)], Some((A, 4)), &contested(1, 1, 5));
        check(&[(B, 5)], Some((A, 5)), &contested(1, 0, 5));
    }

    #[test]
    fn a_first_choice_may_be_a_tie() {
        check(&[(B, 5), (A, 5)], None, &newer(&[A, B], 5));
        check(&[(B, 5), (A, 5), (B, 5)], None, &newer(&[B], 5));
    }

    #[test]
    fn views_that_are_all_behind_are_told_apart() {
        let nodes = vec![addr(B)];
        let older = Choice::Older {
            nodes,
            epoch: ConfigEpoch::new(4),
        };
        check(&[(B, 4), (C, 0)], Some((A, 5)), &older);
        check(&[], Some((A, 5)), &Choice::Nothing);
    }

    #[test]
    fn two_spellings_of_one_node_are_no_disagreement() {
        let mut names = Names::new();
        names.learn_ips("redis-1", vec!["10.0.0.1".parse().unwrap()]);
        let list = [("redis-1:6379", 5), (A, 5)];
        let in_use = addr(A);
        let choice = chosen(&list, Some((&in_use, ConfigEpoch::new(5))), &names);
        assert_eq!(
            choice,
            Choice::Current {
                epoch: ConfigEpoch::new(5)
            }
        );
    }
}
