//! A scenario as a person reads and writes it.

use std::io;

use serde::Serialize;

use super::{RARELY, Scenario};

impl Scenario {
    /// As a person writes it: JSON with one line for each worker and each fault.
    #[must_use]
    pub fn to_text(&self) -> String {
        fn json(value: &impl Serialize) -> String {
            // A space after each comma and colon, as everywhere else.
            let mut out = Vec::new();
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
            value
                .serialize(&mut serializer)
                .expect("a scenario is made of numbers and strings");
            String::from_utf8(out).expect("JSON is UTF-8")
        }
        fn lines(values: &[impl Serialize], indent: &str) -> String {
            if values.is_empty() {
                return "[]".to_owned();
            }
            let lines: Vec<_> = values
                .iter()
                .map(|value| format!("{indent}  {}", json(value)))
                .collect();
            format!("[\n{}\n{indent}]", lines.join(",\n"))
        }
        let mut fields = Vec::new();
        if !self.about.is_empty() {
            fields.push(("about", json(&self.about)));
        }
        if !self.reaches.is_empty() {
            fields.push(("reaches", json(&self.reaches)));
        }
        fields.push(("seed", json(&self.seed)));
        if !self.regime.is_contract() {
            fields.push(("regime", json(&self.regime)));
        }
        if self.nodes > 1 {
            fields.push(("nodes", json(&self.nodes)));
            if self.voters > 0 {
                fields.push(("voters", json(&self.voters)));
            }
            fields.extend([
                ("replication", json(&self.replication)),
                ("min_in_sync", json(&self.min_in_sync)),
            ]);
        }
        if self.flush_messages > 0 {
            fields.push(("flush_messages", json(&self.flush_messages)));
        }
        if self.one_power_at_a_time {
            fields.push(("one_power_at_a_time", json(&self.one_power_at_a_time)));
        }
        if !self.settings.is_empty() {
            fields.push(("settings", json(&self.settings)));
        }
        if !self.joins_at_ms.is_empty() {
            fields.push(("joins_at_ms", json(&self.joins_at_ms)));
        }
        if !self.write_to.is_empty() {
            fields.push(("write_to", json(&self.write_to)));
        }
        if self.packed {
            fields.push(("packed", json(&self.packed)));
        }
        if self.snapshot_every_entries != RARELY {
            fields.push(("snapshot_every_entries", json(&self.snapshot_every_entries)));
        }
        if self.buggify {
            fields.push(("buggify", json(&self.buggify)));
        }
        if self.lulls.is_some() {
            fields.push(("lulls", json(&self.lulls)));
        }
        if self.core_first {
            fields.push(("core_first", json(&self.core_first)));
        }
        fields.extend([
            ("faults_ms", json(&self.faults_ms)),
            ("tick_ms", json(&self.tick_ms)),
            ("latency_ms", json(&self.latency_ms)),
            ("cold_read_one_in", json(&self.cold_read_one_in)),
            ("ends_with_power_cut", json(&self.ends_with_power_cut)),
            (
                "workload",
                format!(
                    "{{\n    \"workers\": {}\n  }}",
                    lines(&self.workload.workers, "    ")
                ),
            ),
            ("faults", lines(&self.faults, "  ")),
        ]);
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("  \"{name}\": {value}"))
            .collect();
        format!("{{\n{}\n}}\n", fields.join(",\n"))
    }
}

/// One line of JSON with a space after each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
