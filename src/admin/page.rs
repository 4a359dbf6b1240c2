//! Floor 4. The status page: one HTML document without scripts or anything from elsewhere.
//! Everything that is not written here is escaped.

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::admin::{
    GroupView, Incident, NodeView, Outcome, PhaseView, ReplicaView, SentinelView, View,
};

const STYLE: &str = include_str!("page.css");
/// Seconds until the browser asks again.
const REFRESH: u32 = 5;

/// The whole page.
pub(super) fn page(view: &View) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    page.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.raw(&format!(
        "<meta http-equiv=\"refresh\" content=\"{REFRESH}\">"
    ));
    page.raw(&format!("<title>Switchman: {}</title>", summary(view)));
    page.raw(&format!("<style>{STYLE}</style></head><body>"));
    page.header(view);
    for group in &view.groups {
        page.group(group);
    }
    page.raw("</body></html>\n");
    page.0
}

/// The state of everything in a few words of ours, for the title.
fn summary(view: &View) -> &'static str {
    let any = |phase: fn(&PhaseView) -> bool| view.groups.iter().any(|group| phase(&group.phase));
    if view.draining {
        "stopping"
    } else if any(|phase| matches!(phase, PhaseView::Unknown)) {
        "no master"
    } else if any(|phase| matches!(phase, PhaseView::Switching { .. })) {
        "switching"
    } else {
        "stable"
    }
}

struct Page(String);

impl Page {
    /// Appends HTML of our own.
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    /// Appends `before`, `text` escaped, `after`.
    fn text(&mut self, before: &str, text: impl Display, after: &str) {
        self.raw(before);
        for letter in text.to_string().chars() {
            match letter {
                '&' => self.raw("&amp;"),
                '<' => self.raw("&lt;"),
                '>' => self.raw("&gt;"),
                '"' => self.raw("&quot;"),
                '\'' => self.raw("&#39;"),
                plain => self.0.push(plain),
            }
        }
        self.raw(after);
    }

    fn header(&mut self, view: &View) {
        self.raw("<header><h1>Switchman</h1>");
        self.text("<span class=\"dim\">", &view.version, "</span>");
        self.text("<span class=\"dim\">up ", span(view.uptime), "</span>");
        self.text("<span>", view.clients, "");
        self.text(" of at most ", view.max_clients, " clients</span>");
        self.text("<span class=\"dim\">", view.workers, " workers</span>");
        if view.draining {
            self.raw("<strong class=\"busy\">stopping</strong>");
        }
        self.raw("</header>");
    }

    fn group(&mut self, group: &GroupView) {
        let (class, word) = match group.phase {
            PhaseView::Unknown => ("bad", "no master known".to_owned()),
            PhaseView::Stable => ("good", "stable".to_owned()),
            PhaseView::Switching { elapsed } => {
                ("busy", format!("switching for {}", span(elapsed)))
            }
        };
        self.raw(&format!(
            "<section><span class=\"phase {class}\">{word}</span>"
        ));
        self.text("<h2>", &group.master_name, "</h2><dl>");
        let listeners = group.listeners.iter().map(ToString::to_string);
        self.fact(
            "clients connect to",
            listeners.collect::<Vec<_>>().join(", "),
        );
        self.fact("clients", group.clients);
        self.fact("held", group.held_clients);
        self.fact("hold at most", span(group.hold));
        self.fact("epoch", group.config_epoch);
        self.fact("generation", group.generation);
        if !group.waiting.is_empty() {
            self.fact("waits", &group.waiting);
        }
        if !group.master_reads.is_empty() {
            self.fact("reads of the master", counts(&group.master_reads));
        }
        if !group.fences.forbidden.is_empty() {
            self.fact("late writes", not_ended(&group.fences.forbidden));
        }
        self.raw("</dl><h3>Nodes</h3><table><tr><th>address<th>role<th>in use<th>reads<th>lag");
        self.raw("<th>left<th></tr>");
        for node in &group.nodes {
            self.node(group, node);
        }
        self.raw("</table>");
        if !group.sentinels.is_empty() {
            self.raw("<h3>Sentinels</h3>");
            if let Some(majority) = &group.majority {
                self.text("<p class=\"dim\">", majority, "</p>");
            }
            self.raw("<table><tr><th>address<th>state<th></tr>");
            for sentinel in &group.sentinels {
                self.sentinel(sentinel);
            }
            self.raw("</table>");
        }
        self.incidents(&group.incidents);
        self.raw("</section>");
    }

    fn fact(&mut self, name: &str, value: impl Display) {
        self.raw(&format!("<div><dt>{name}</dt>"));
        self.text("<dd>", value, "</dd></div>");
    }

    fn node(&mut self, group: &GroupView, node: &NodeView) {
        self.text("<tr><td><code>", &node.addr, "</code>");
        self.text("<td>", node.role.word(), "");
        self.raw(if node.in_use {
            "<td class=\"good\">yes"
        } else {
            "<td class=\"bad\">no"
        });
        self.text("<td class=\"number\">", group.share_of_reads(node), " %");
        let replica = node.replica.as_ref();
        self.text(
            "<td class=\"number\">",
            replica.map_or_else(String::new, lag),
            "",
        );
        let left = replica.map(|replica| counts(&replica.ejections));
        self.text("<td>", left.unwrap_or_default(), "");
        self.text("<td class=\"dim\">", &node.detail, "");
        if let Some(zone) = replica.and_then(|replica| replica.zone.as_deref()) {
            self.text(" zone ", zone, "");
        }
        self.raw("</tr>");
    }

    fn sentinel(&mut self, sentinel: &SentinelView) {
        self.text("<tr><td><code>", &sentinel.addr, "</code>");
        self.raw(if sentinel.up {
            "<td class=\"good\">up"
        } else {
            "<td class=\"bad\">down"
        });
        self.text("<td class=\"dim\">", &sentinel.detail, "</tr>");
    }

    fn incidents(&mut self, incidents: &[Incident]) {
        self.raw("<h3>Switches</h3>");
        if incidents.is_empty() {
            self.raw("<p class=\"dim\">None since the process started.</p>");
            return;
        }
        self.raw("<table><tr><th>when<th>from<th>to<th>outcome<th>took<th>held<th>longest");
        self.raw("<th>refused<th>sent again<th>uncertain</tr>");
        for incident in incidents {
            self.incident(incident);
        }
        self.raw("</table>");
    }

    fn incident(&mut self, incident: &Incident) {
        let class = match incident.outcome {
            Outcome::Running => "busy",
            Outcome::Completed => "good",
            Outcome::Abandoned => "dim",
        };
        let node = |node: &Option<String>| node.clone().unwrap_or_else(|| "?".to_owned());
        let when = humantime::format_rfc3339_seconds(incident.started_at);
        self.text(
            "<tr><td class=\"number\"><details><summary>",
            when,
            "</summary><ol>",
        );
        self.text("<li>", &incident.cause, "</li>");
        for event in &incident.events {
            self.text("<li>", format_args!("{:+} ms", event.at_ms), "");
            self.text(" ", &event.what, "</li>");
        }
        self.text(
            "</ol></details><td><code>",
            node(&incident.old_master),
            "</code>",
        );
        self.text("<td><code>", node(&incident.new_master), "</code>");
        self.raw(&format!(
            "<td class=\"{class}\">{}",
            incident.outcome.word()
        ));
        self.text("<td class=\"number\">", span(incident.took), "");
        let cost = &incident.cost;
        self.text("<td class=\"number\">", cost.held_requests, "");
        self.text("<td class=\"number\">", span(cost.longest_hold), "");
        for number in [
            cost.expired_requests,
            cost.resent_requests,
            cost.uncertain_requests,
        ] {
            self.text("<td class=\"number\">", number, "");
        }
        self.raw("</tr>");
    }
}

/// How far behind a replica is, as far as that is known.
fn lag(replica: &ReplicaView) -> String {
    let bytes = replica.lag_bytes.map(|bytes| format!("{bytes} B"));
    let parts = [bytes, replica.lag.map(span)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What happened, and how often.
fn counts(counts: &[(&'static str, u64)]) -> String {
    let all = counts.iter().map(|(name, count)| format!("{name} {count}"));
    all.collect::<Vec<_>>().join(", ")
}

/// What it means that a node forbids to end connections.
fn not_ended(forbidden: &str) -> String {
    format!("not kept from being applied after a timeout: {forbidden}")
}

/// A time as people say it: the two largest units, or milliseconds.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 1 {
        return format!("{} ms", time.as_millis());
    }
    if seconds < 60 {
        return format!("{:.1} s", time.as_secs_f64());
    }
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    let parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")];
    for (number, unit) in parts
        .into_iter()
        .skip_while(|(number, _)| *number == 0)
        .take(2)
    {
        let blank = if text.is_empty() { "" } else { " " };
        write!(text, "{blank}{number} {unit}").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::tests::healthy;

    #[test]
    fn what_others_wrote_is_escaped() {
        let mut view = healthy();
        view.groups[0].master_name = "<script>alert('&\"')</script>".to_owned();
        let page = page(&view);
        assert!(page.contains("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"));
        assert!(page.contains("&lt;refused&gt;"));
        assert!(!page.contains("<script"));
    }

    #[test]
    fn the_page_shows_nodes_sentinels_and_switches() {
        let page = page(&healthy());
        for part in [
            "redis-1:6379",
            "redis-1:26379",
            "2023-11-14T22:13:20Z",
            "1.1 s",
            "1 d 1 h",
            "75 %",
            " zone a",
            "14 B, 0 ms",
            "unreachable 2, lag 1",
            "unsettled 7",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(page.contains("<title>Switchman: stable</title>"));
    }

    #[test]
    fn the_page_says_what_switchman_may_not_do() {
        let mut view = healthy();
        assert!(!page(&view).contains("late writes"));
        view.groups[0].fences.forbidden = "redis-1:6379: NOPERM".to_owned();
        assert!(page(&view).contains("after a timeout: redis-1:6379: NOPERM"));
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        for (millis, want) in [
            (7, "7 ms"),
            (1_100, "1.1 s"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h 0 min"),
            (90_061_000, "1 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), want);
        }
    }
}
