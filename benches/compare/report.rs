//! Floor 6. From measurements to medians, ratios and a verdict. Pure arithmetic and one writer.

use std::collections::BTreeMap;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::aims;
use crate::aims::Verdict;
use crate::idle::Idle;
use crate::load::Sample;
use crate::options::Options;
use crate::targets::Target;

/// Collects what was measured and prints it: as it comes in JSON, as tables at the end.
pub(crate) struct Report<W> {
    out: W,
    json: bool,
    /// Whether somebody watches: the line that tells how far the run is makes sense to them only.
    watched: bool,
    pipelines: Vec<usize>,
    results: Results,
}

/// All that was measured.
#[derive(Default)]
pub(crate) struct Results {
    /// One figure per round, in the order of rounds.
    loads: BTreeMap<(usize, Target), Vec<Sample>>,
    idles: BTreeMap<Target, Idle>,
    /// GETs that each node has served, the master first, while a target was driven.
    reads: BTreeMap<Target, Vec<u64>>,
}

impl<W: Write + IsTerminal> Report<W> {
    /// An empty report.
    pub(crate) fn new(options: &Options, out: W) -> Self {
        Self {
            watched: out.is_terminal() && !options.json,
            out,
            json: options.json,
            pipelines: options.pipelines(),
            results: Results::default(),
        }
    }

    /// Names a target that is not installed.
    pub(crate) fn absent(&mut self, target: Target, program: &str) -> io::Result<()> {
        if self.json {
            let line = json!({ "kind": "absent", "target": target.to_string() });
            return writeln!(self.out, "{line}");
        }
        writeln!(self.out, "{target} is left out: {program} is not installed")
    }

    /// Takes one window.
    pub(crate) fn sample(
        &mut self,
        round: usize,
        target: Target,
        pipeline: usize,
        sample: Sample,
    ) -> io::Result<()> {
        self.results
            .loads
            .entry((pipeline, target))
            .or_default()
            .push(sample);
        if self.watched {
            write!(
                self.out,
                "\rround {}, pipeline {pipeline}, {target:<20}",
                round + 1
            )?;
            self.out.flush()?;
        }
        if !self.json {
            return Ok(());
        }
        let line = json!({
            "kind": "load",
            "round": round,
            "target": target.to_string(),
            "pipeline": pipeline,
            "commands": sample.commands,
            "seconds": sample.elapsed.as_secs_f64(),
            "commands_per_second": per_second(&sample),
            "processor_us_per_command": processor_us(&sample),
            "generator_us_per_command": micros(sample.own_processor) / float(sample.commands),
            "p50_us": micros(sample.p50),
            "p99_us": micros(sample.p99),
        });
        writeln!(self.out, "{line}")
    }

    /// Takes the GETs that each node has served so far, before and after a target was driven.
    pub(crate) fn reads(&mut self, target: Target, before: &[u64], after: &[u64]) {
        let sums = self.results.reads.entry(target).or_default();
        sums.resize(after.len(), 0);
        let driven = after.iter().zip(before).map(|(late, early)| late - early);
        sums.iter_mut().zip(driven).for_each(|(sum, it)| *sum += it);
    }

    /// Takes the memory of one target.
    pub(crate) fn idle(&mut self, target: Target, idle: Idle) -> io::Result<()> {
        self.results.idles.insert(target, idle);
        if !self.json {
            return Ok(());
        }
        let line = json!({
            "kind": "idle",
            "target": target.to_string(),
            "clients": idle.clients,
            "start_kb": idle.start_kb,
            "full_kb": idle.full_kb,
            "kb_per_client": idle.kb_per_client(),
            "marginal_kb_per_client": idle.marginal_kb_per_client(),
        });
        writeln!(self.out, "{line}")
    }

    /// Prints tables and aims; whether no aim was missed.
    pub(crate) fn finish(&mut self) -> io::Result<bool> {
        let verdicts = aims::judge(&self.results);
        let met = verdicts.iter().all(Verdict::met);
        if self.json {
            for (target, reads) in &self.results.reads {
                let line = json!({ "kind": "reads", "target": target.to_string(), "nodes": reads });
                writeln!(self.out, "{line}")?;
            }
            for verdict in &verdicts {
                writeln!(self.out, "{}", verdict.to_json())?;
            }
            return Ok(met);
        }
        if self.watched {
            write!(self.out, "\r{:<50}\r", "")?;
        }
        for pipeline in self.pipelines.clone() {
            self.load_table(pipeline)?;
        }
        self.read_table()?;
        self.idle_table()?;
        for verdict in &verdicts {
            writeln!(self.out, "{verdict}")?;
        }
        self.out.flush()?;
        Ok(met)
    }

    fn load_table(&mut self, pipeline: usize) -> io::Result<()> {
        writeln!(
            self.out,
            "\npipeline {pipeline:<9} commands/s  of direct  CPU us/cmd    p50 us    p99 us  \
             generator us/cmd"
        )?;
        let results = &self.results;
        for target in results.targets(pipeline) {
            let figure = |of: fn(&Sample) -> Option<f64>| results.median(pipeline, target, of);
            let ratio = results.ratio(pipeline, (target, Target::Direct), |s| Some(per_second(s)));
            writeln!(
                self.out,
                "{target:<20} {:>10}  {:>9}  {:>10}  {:>8}  {:>8}  {:>16}",
                cell(figure(|s| Some(per_second(s))), 0),
                cell(ratio, 2),
                cell(figure(processor_us), 2),
                cell(figure(|s| Some(micros(s.p50))), 0),
                cell(figure(|s| Some(micros(s.p99))), 0),
                cell(
                    figure(|s| Some(micros(s.own_processor) / float(s.commands))),
                    2
                ),
            )?;
        }
        Ok(())
    }

    fn read_table(&mut self) -> io::Result<()> {
        writeln!(self.out, "\nreads              at master  at each replica")?;
        for (target, reads) in &self.results.reads {
            write!(self.out, "{target:<20}")?;
            for share in shares(reads) {
                write!(self.out, " {:>6.1} %", share * 100.0)?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn idle_table(&mut self) -> io::Result<()> {
        if self.results.idles.is_empty() {
            return writeln!(self.out);
        }
        writeln!(
            self.out,
            "\nmemory             at start KB  with idle clients KB  KB/client  marginal"
        )?;
        for (target, idle) in &self.results.idles {
            writeln!(
                self.out,
                "{target:<20} {:>11}  {:>20}  {:>9.2}  {:>8.2}",
                idle.start_kb,
                idle.full_kb,
                idle.kb_per_client(),
                idle.marginal_kb_per_client(),
            )?;
        }
        writeln!(self.out)
    }
}

impl Results {
    /// Targets that were driven at this pipeline length.
    fn targets(&self, pipeline: usize) -> Vec<Target> {
        self.loads
            .keys()
            .filter(|(each, _)| *each == pipeline)
            .map(|&(_, target)| target)
            .collect()
    }

    /// Whether a target took part in anything.
    pub(crate) fn has(&self, target: Target) -> bool {
        self.loads.keys().any(|&(_, each)| each == target) || self.idles.contains_key(&target)
    }

    /// Memory of one target.
    pub(crate) fn idle_of(&self, target: Target) -> Option<&Idle> {
        self.idles.get(&target)
    }

    /// Median over the rounds of one figure.
    pub(crate) fn median(
        &self,
        pipeline: usize,
        target: Target,
        figure: fn(&Sample) -> Option<f64>,
    ) -> Option<f64> {
        let samples = self.loads.get(&(pipeline, target))?;
        median(samples.iter().filter_map(figure).collect())
    }

    /// Median over the rounds of one figure's ratio between two targets.
    pub(crate) fn ratio(
        &self,
        pipeline: usize,
        (above, below): (Target, Target),
        figure: fn(&Sample) -> Option<f64>,
    ) -> Option<f64> {
        let above = self.loads.get(&(pipeline, above))?;
        let below = self.loads.get(&(pipeline, below))?;
        let pairs = above.iter().zip(below);
        median(
            pairs
                .filter_map(|(one, other)| Some(figure(one)? / figure(other)?))
                .collect(),
        )
    }
}

impl Idle {
    /// Growth since the start for each client, in KB.
    pub(crate) fn kb_per_client(&self) -> f64 {
        float(self.full_kb.saturating_sub(self.start_kb)) / count(self.clients)
    }

    /// Growth that the second half of the clients brought, for each of them, in KB.
    pub(crate) fn marginal_kb_per_client(&self) -> f64 {
        let newcomers = self.clients - self.clients / 2;
        float(self.full_kb.saturating_sub(self.half_kb)) / count(newcomers)
    }
}

/// Commands in a second.
pub(crate) fn per_second(sample: &Sample) -> f64 {
    float(sample.commands) / sample.elapsed.as_secs_f64()
}

/// Processor time of the target for one command, in microseconds.
pub(crate) fn processor_us(sample: &Sample) -> Option<f64> {
    sample
        .processor
        .map(|time| micros(time) / float(sample.commands))
}

fn shares(reads: &[u64]) -> impl Iterator<Item = f64> {
    let total = float(reads.iter().sum::<u64>().max(1));
    reads.iter().map(move |each| float(*each) / total)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Exact up to 2^32, which no count or size here reaches.
pub(crate) fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn count(clients: usize) -> f64 {
    f64::from(u32::try_from(clients).unwrap_or(u32::MAX))
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

fn cell(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.decimals$}"))
}
