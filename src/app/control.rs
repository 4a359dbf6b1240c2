//! Floor 8. An operator's orders → the group that is meant, and its answer in the operator's words.

use super::Group;
use crate::admin::{Control, Ordered, Refused, StepView, SwitchoverEnd, SwitchoverView};
use crate::config::Settings;
use crate::sentinel::{NotBegun, Orders};
use crate::switchover::{Fork, Outcome, Report};

/// One group, as far as orders go.
type Target = (String, Orders);

/// What an operator may order of `groups`.
pub(super) fn control(settings: &Settings, groups: &[Group]) -> Control {
    let names = settings.groups.iter().map(|group| &group.master_name);
    let targets: Vec<Target> = names
        .zip(groups)
        .map(|(name, group)| (name.to_string(), group.handle.orders.clone()))
        .collect();
    Control {
        token: settings.admin.token.clone(),
        switch_over: Box::new(move |name| order(find(&targets, name))),
    }
}

fn order(target: Result<Target, Refused>) -> Ordered {
    Box::pin(async move {
        let (name, orders) = target?;
        match orders.switch_over().await {
            Ok(report) => Ok(view(name, report)),
            Err(NotBegun::Busy) => Err(Refused::Busy),
            Err(NotBegun::Stopping) => Err(Refused::Stopping),
        }
    })
}

fn find(targets: &[Target], name: Option<String>) -> Result<Target, Refused> {
    let known = || {
        let names: Vec<&str> = targets.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    };
    match (name, targets) {
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(Refused::Several { known: known() }),
        (Some(asked), _) => {
            let found = targets.iter().find(|(name, _)| *name == asked);
            found.cloned().ok_or_else(|| Refused::Unknown {
                asked,
                known: known(),
            })
        }
    }
}

fn view(master_name: String, report: Report) -> SwitchoverView {
    let steps = report.steps.into_iter().map(|step| StepView {
        step: step.name.word(),
        at: step.at,
        detail: step.detail,
    });
    SwitchoverView {
        master_name,
        steps: steps.collect(),
        end: match report.outcome {
            Outcome::Switched { from, to, fork } => SwitchoverEnd::Switched {
                from: from.to_string(),
                to: to.to_string(),
                lossless: match fork {
                    Fork::Held => Some(true),
                    Fork::Broken => Some(false),
                    Fork::Unseen => None,
                },
            },
            Outcome::GaveUp {
                step,
                reason,
                state,
            } => SwitchoverEnd::GaveUp {
                step: step.word(),
                reason,
                state,
            },
        },
    }
}
