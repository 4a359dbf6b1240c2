//! Floor 0. The recorder behind the `metrics` facade: counters and gauges by the exporter,
//! histograms in fixed buckets of our own, because the exporter's keep each sample until a scrape.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as Facade,
    SharedString, Unit,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::telemetry::families::{FAMILIES, Family, Kind};
use crate::telemetry::histogram::{BOUNDS, Fixed};

/// What the exporter may want to know of a call site; it uses none of it.
const METADATA: Metadata<'static> = Metadata::new("switchman", Level::INFO, None);

/// Keeps every series. A value: never installed as the process-wide recorder.
#[derive(Debug)]
pub(super) struct Recorder {
    exporter: PrometheusRecorder,
    /// By name and then by labels as they are written; locked to register and to render only.
    histograms: Mutex<BTreeMap<String, BTreeMap<String, Arc<Fixed>>>>,
}

impl Recorder {
    /// No series, but the description of every family.
    pub(super) fn new() -> Self {
        let exporter = PrometheusBuilder::new().build_recorder();
        for family in FAMILIES {
            let (name, help) = (KeyName::from_const_str(family.name), family.help.into());
            match family.kind {
                Kind::Counter => exporter.describe_counter(name, None, help),
                Kind::Gauge => exporter.describe_gauge(name, None, help),
                Kind::Histogram => {}
            }
        }
        Self {
            exporter,
            histograms: Mutex::default(),
        }
    }

    /// The counter of `family` with these label values, in the family's order.
    pub(super) fn counter(&self, family: &Family, labels: &[&str]) -> Counter {
        self.register_counter(&key(family, labels), &METADATA)
    }

    /// The gauge of `family` with these label values, in the family's order.
    pub(super) fn gauge(&self, family: &Family, labels: &[&str]) -> Gauge {
        self.register_gauge(&key(family, labels), &METADATA)
    }

    /// The histogram of `family` with these label values, in the family's order, for one duration
    /// at a time.
    pub(super) fn histogram(&self, family: &Family, labels: &[&str]) -> Histogram {
        self.register_histogram(&key(family, labels), &METADATA)
    }

    /// The same histogram for batches.
    pub(super) fn fixed(&self, family: &Family, labels: &[&str]) -> Arc<Fixed> {
        self.fixed_at(&key(family, labels))
    }

    /// Every series as text, families and series in the order of their names.
    pub(super) fn render(&self) -> String {
        let exported = self.exporter.handle().render();
        let mut blocks: Vec<Vec<&str>> = exported
            .split("\n\n")
            .filter(|block| !block.is_empty())
            .map(|block| block.lines().collect())
            .collect();
        // The exporter's order is random; a fixed one lets people compare two scrapes.
        for block in &mut blocks {
            block.sort_by_key(|line| (!line.starts_with('#'), *line));
        }
        blocks.sort_unstable();
        let mut text = String::with_capacity(exported.len() * 2);
        for block in blocks {
            for line in block {
                text.push_str(line);
                text.push('\n');
            }
            text.push('\n');
        }
        self.render_histograms(&mut text);
        text
    }

    fn render_histograms(&self, text: &mut String) {
        let histograms = self
            .histograms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (name, series) in &*histograms {
            let family = FAMILIES.iter().find(|family| family.name == name);
            let help = family.map_or("", |family| family.help);
            push(
                text,
                format_args!("# HELP {name} {help}\n# TYPE {name} histogram\n"),
            );
            for (labels, fixed) in series {
                render_histogram(text, name, labels, fixed);
            }
            text.push('\n');
        }
    }

    fn fixed_at(&self, key: &Key) -> Arc<Fixed> {
        let labels = written(key.labels());
        let mut histograms = self
            .histograms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let series = histograms.entry(key.name().to_owned()).or_default();
        Arc::clone(series.entry(labels).or_default())
    }
}

impl Facade for Recorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        // The table of families describes every histogram.
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.exporter.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.exporter.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.fixed_at(key))
    }
}

fn key(family: &Family, values: &[&str]) -> Key {
    assert_eq!(
        family.labels.len(),
        values.len(),
        "a value for each label of {}",
        family.name
    );
    let labels: Vec<Label> = family
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(family.name, labels)
}

fn render_histogram(text: &mut String, name: &str, labels: &str, fixed: &Fixed) {
    let (buckets, sum) = fixed.read();
    let mut count = 0;
    let bounds = BOUNDS.iter().map(|(_, written)| *written).chain(["+Inf"]);
    for (bound, times) in bounds.zip(buckets) {
        count += times;
        push(
            text,
            format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}\n"),
        );
    }
    push(
        text,
        format_args!("{name}_sum{{{labels}}} {}\n", sum.as_secs_f64()),
    );
    push(text, format_args!("{name}_count{{{labels}}} {count}\n"));
}

/// Labels as the exposition format writes them; backslash, quote and newline are escaped there.
fn written<'a>(labels: impl Iterator<Item = &'a Label>) -> String {
    let mut text = String::new();
    for label in labels {
        let comma = if text.is_empty() { "" } else { "," };
        let value = label
            .value()
            .replace('\\', r"\\")
            .replace('"', "\\\"")
            .replace('\n', r"\n");
        push(
            &mut text,
            format_args!("{comma}{}=\"{value}\"", label.key()),
        );
    }
    text
}

/// Appends formatted text.
pub(super) fn push(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args)
        .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::families::HOLD_DURATION;

    #[test]
    fn a_histogram_is_cumulative_and_agrees_with_its_count() {
        let recorder = Recorder::new();
        let fixed = recorder.fixed(&HOLD_DURATION, &["a\"b\\c"]);
        fixed.record(Duration::from_micros(60));
        recorder
            .histogram(&HOLD_DURATION, &["a\"b\\c"])
            .record(61.0);
        let text = recorder.render();
        let series = r#"{master_name="a\"b\\c""#;
        for line in [
            format!("switchman_hold_duration_seconds_bucket{series},le=\"0.00005\"}} 0"),
            format!("switchman_hold_duration_seconds_bucket{series},le=\"0.0001\"}} 1"),
            format!("switchman_hold_duration_seconds_bucket{series},le=\"60\"}} 1"),
            format!("switchman_hold_duration_seconds_bucket{series},le=\"+Inf\"}} 2"),
            format!("switchman_hold_duration_seconds_sum{series}}} 61.00006"),
            format!("switchman_hold_duration_seconds_count{series}}} 2"),
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line}\nnot in\n{text}"
            );
        }
    }
}
