//! What came of a run, in words for people and as JSON for programs.

use super::keys::Distribution;
use super::load::{Ended, Outcome};
use super::mix::{Operation, Ycsb};
use super::session::Settings;
use super::tally::Figures;
use crate::command::Expiry;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

/// The version of the JSON object; it changes when a name in it changes its meaning.
const SCHEMA: u32 = 1;
/// The quantiles that are told, and their names in JSON.
const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99_9")];
/// Steps of the histogram's percentiles in JSON: so many for each halving of what is left to 100%.
const STEPS: u32 = 5;

/// A run and what came of it.
pub(super) struct Report<'s> {
    pub settings: &'s Settings,
    /// Of the kvd that was asked.
    pub version: String,
    pub outcome: Outcome,
}

impl Report<'_> {
    /// Writes it as it was asked for.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if self.settings.json {
            serde_json::to_writer_pretty(&mut *out, &self.json())?;
            writeln!(out)
        } else {
            out.write_all(self.text().as_bytes())
        }
    }

    /// What went wrong, if anything did.
    pub fn complaint(&self) -> Option<String> {
        match &self.outcome.ended {
            Ended::Complete | Ended::Interrupted => None,
            Ended::Broken(error) => Some(format!("the run broke off: {error}")),
            Ended::Silent(peers) => {
                let patience = self.settings.plan.patience.as_secs_f64();
                Some(format!("the run broke off: {peers} peers got no reply for {patience} s"))
            }
        }
    }

    fn text(&self) -> String {
        let (settings, measured) = (self.settings, &self.outcome.measured);
        let plan = &settings.plan;
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "kvd {} at {}, {} dialect", self.version, settings.address, settings.dialect.name());
        let _ = writeln!(
            text,
            "{} peers, {} in flight{}; {}; {} keys of {} B, {}; values of {} B",
            plan.peers,
            plan.in_flight,
            if plan.commands > 1 { format!(" of {} commands", plan.commands) } else { String::new() },
            mix(settings),
            plan.keys,
            plan.shape.size(),
            distribution(plan.distribution),
            plan.values,
        );
        let pace = plan.rate.map_or_else(|| "as fast as it goes".to_owned(), |rate| format!("{rate} a second wanted"));
        let _ = writeln!(
            text,
            "{} commands in {:.2} s, {:.0} a second ({pace}){}\n",
            measured.count(),
            measured.elapsed.as_secs_f64(),
            measured.rate(),
            if matches!(self.outcome.ended, Ended::Complete) { "" } else { "; it ended early" },
        );
        let _ = writeln!(
            text,
            "{:<17} {:>12} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "µs", "count", "misses", "refused", "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, figures) in self.rows() {
            let micros = |nanoseconds: u64| format!("{:.0}", nanoseconds as f64 / 1e3);
            let _ = write!(text, "{name:<17} {:>12} {:>10} {:>10}", figures.count, figures.misses, figures.refused);
            for (quantile, _) in QUANTILES {
                let _ = write!(text, " {:>9}", micros(figures.latency.value_at_quantile(quantile)));
            }
            let _ = writeln!(text, " {:>9}", micros(figures.latency.max()));
        }
        if !measured.refusals.is_empty() {
            let codes: Vec<_> = measured.refusals.iter().map(|(code, count)| format!("{code} {count}")).collect();
            let _ = writeln!(text, "\nrefused: {}", codes.join(", "));
        }
        if self.outcome.never_asked > 0 {
            let _ = writeln!(text, "\nnever asked: {} that were due", self.outcome.never_asked);
        }
        let _ = writeln!(
            text,
            "\nprocessor time of the client: {:.2} s, {:.2} µs a command",
            measured.client.as_secs_f64(),
            per_command(measured.client, measured.count()),
        );
        text
    }

    fn json(&self) -> Value {
        let (settings, measured) = (self.settings, &self.outcome.measured);
        let plan = &settings.plan;
        let percent: Map<String, Value> = Operation::ALL
            .into_iter()
            .filter(|operation| plan.mix.percent(*operation) > 0)
            .map(|operation| (operation.name().to_owned(), plan.mix.percent(operation).into()))
            .collect();
        let (distribution, theta) = match plan.distribution {
            Distribution::Uniform => ("uniform", None),
            Distribution::Zipf(theta) => ("zipf", Some(theta)),
            Distribution::Latest(theta) => ("latest", Some(theta)),
            Distribution::Sequential => ("sequential", None),
        };
        let time_to_live = match plan.expiry {
            Expiry::In(milliseconds) => Some(milliseconds),
            Expiry::Never | Expiry::At(_) => None,
        };
        let operations: Map<String, Value> =
            self.rows().into_iter().map(|(name, figures)| (name.to_owned(), figures_json(&figures))).collect();
        let ended = match self.outcome.ended {
            Ended::Complete => "complete",
            Ended::Interrupted => "interrupted",
            Ended::Broken(_) => "broken",
            Ended::Silent(_) => "silent",
        };
        json!({
            "schema": SCHEMA,
            "server": { "endpoint": settings.address.to_string(), "version": self.version },
            "settings": {
                "dialect": settings.dialect.name(),
                "workload": settings.workload.map(Ycsb::name),
                "percent": percent,
                "peers": plan.peers,
                "in_flight": plan.in_flight,
                "commands": plan.commands,
                "keys": plan.keys,
                "key_size": plan.shape.size(),
                "distribution": distribution,
                "theta": theta,
                "value_smallest": plan.values.smallest,
                "value_largest": plan.values.largest,
                "ttl_ms": time_to_live,
                "rate": plan.rate,
                "seconds": (plan.until.elapsed != Duration::MAX).then_some(plan.until.elapsed.as_secs_f64()),
                "requests": (plan.until.count != u64::MAX).then_some(plan.until.count),
                "warm_up_seconds": plan.warm_up.as_secs_f64(),
                "fill": settings.fill,
                "timeout_seconds": plan.patience.as_secs_f64(),
                "seed": plan.seed,
            },
            "ended": ended,
            "error": self.complaint(),
            "elapsed_seconds": measured.elapsed.as_secs_f64(),
            "commands_per_second": measured.rate(),
            "never_asked": self.outcome.never_asked,
            "operations": operations,
            "refused_by_code": measured.refusals,
            "client": {
                "processor_seconds": measured.client.as_secs_f64(),
                "processor_us_per_command": per_command(measured.client, measured.count()),
            },
        })
    }

    /// Each kind of operation that there was, and all together.
    fn rows(&self) -> Vec<(&'static str, Figures)> {
        let measured = &self.outcome.measured;
        let kinds = Operation::ALL.into_iter().map(|operation| (operation.name(), measured.of(operation).clone()));
        let mut rows: Vec<_> = kinds.filter(|(_, figures)| figures.count > 0).collect();
        rows.push(("all", measured.overall()));
        rows
    }
}

fn figures_json(figures: &Figures) -> Value {
    let micros = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    let latency = &figures.latency;
    let mut times: Map<String, Value> = QUANTILES
        .map(|(quantile, name)| (name.to_owned(), micros(latency.value_at_quantile(quantile)).into()))
        .into_iter()
        .collect();
    times.insert("mean".to_owned(), (latency.mean() / 1e3).into());
    times.insert("min".to_owned(), micros(latency.min()).into());
    times.insert("max".to_owned(), micros(latency.max()).into());
    let percentiles: Vec<_> = latency
        .iter_quantiles(STEPS)
        .map(|step| json!([step.quantile_iterated_to() * 100.0, micros(step.value_iterated_to())]))
        .collect();
    times.insert("percentiles".to_owned(), percentiles.into());
    json!({ "count": figures.count, "misses": figures.misses, "refused": figures.refused, "latency_us": times })
}

fn per_command(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}

fn mix(settings: &Settings) -> String {
    let mix = settings.plan.mix;
    let kinds = Operation::ALL.into_iter().filter(|operation| mix.percent(*operation) > 0);
    let kinds: Vec<_> = kinds.map(|operation| format!("{}% {}", mix.percent(operation), operation.name())).collect();
    match settings.workload {
        Some(workload) => format!("YCSB {workload:?}: {}", kinds.join(", ")),
        None => kinds.join(", "),
    }
}

fn distribution(distribution: Distribution) -> String {
    match distribution {
        Distribution::Uniform => "uniform".to_owned(),
        Distribution::Zipf(theta) => format!("zipf {theta}"),
        Distribution::Latest(theta) => format!("latest {theta}"),
        Distribution::Sequential => "sequential".to_owned(),
    }
}
