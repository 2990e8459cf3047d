//! What benchmarks say to machines: one JSON object a line, one line for each tool in each round, appended to the file
//! that `$DROVER_BENCH_ROWS` names. The fields are those that `rows.py` beside this file describes.
#![allow(dead_code, unreachable_pub, reason = "benchmarks use different parts")]

use std::io::Write as _;

use serde_json::json;

/// What is measured: several tools do it in turn.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub bench: &'a str,
    pub part: &'a str,
    pub unit: &'a str,
}

impl Part<'_> {
    /// What a tool took.
    pub fn tool(self, tool: &str, value: f64) {
        self.add(tool, value, json!({}));
    }

    /// What drover took, which should be no more than the bar.
    pub fn drover(self, value: f64, bar: f64) {
        self.add("drover", value, json!({ "bar": bar }));
    }

    /// What drover took, which should be no more than `bar` times what another tool took.
    pub fn drover_beside(self, value: f64, bar: f64, against: &str) {
        self.add("drover", value, json!({ "bar": bar, "against": against }));
    }

    fn add(self, tool: &str, value: f64, mut row: serde_json::Value) {
        let Some(file) = std::env::var_os("DROVER_BENCH_ROWS") else { return };
        let Self { bench, part, unit } = self;
        for (key, text) in [("bench", bench), ("part", part), ("tool", tool), ("unit", unit)] {
            row[key] = text.into();
        }
        row["value"] = value.into();
        let mut rows = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        writeln!(rows, "{row}").unwrap();
    }
}
