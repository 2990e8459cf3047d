//! Entries and builds as rows of tables, and back.

use std::collections::HashMap;
use std::io::{self, Read as _};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{AttrTimes, Build, Entry, Outcome};
use crate::id::{System, split_name};
use crate::nix_compat::narinfo::nixbase32;

/// Most bytes of the JSON of a run's attrs, which a file may come with from elsewhere.
const MAX_ATTRS: u64 = 64 << 20;

/// Bytes of the hash in the name of a store path, and its characters.
const HASH: usize = 20;
const HASH_TEXT: usize = 32;

/// What of an entry is no row of its own.
pub(super) struct Words {
    /// The entry without attrs and builds, as JSON.
    pub(super) numbers: String,
    /// Its attrs, as JSON that is compressed with zstd.
    pub(super) attrs: Vec<u8>,
}

impl Words {
    pub(super) fn of(entry: &Entry) -> io::Result<Self> {
        let numbers = Entry { attrs: Vec::new(), builds: Vec::new(), ..entry.clone() };
        let attrs = serde_json::to_vec(&entry.attrs)?;
        Ok(Self { numbers: serde_json::to_string(&numbers)?, attrs: zstd::encode_all(attrs.as_slice(), 3)? })
    }
}

/// The attrs of an entry; `None` if another drover wrote what this one cannot read.
pub(super) fn attrs(compressed: &[u8]) -> Option<Vec<AttrTimes>> {
    let mut json = Vec::new();
    zstd::Decoder::new(compressed).ok()?.take(MAX_ATTRS).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The number of a name, which gets one if it has none.
pub(super) fn name(change: &Connection, name: &str) -> rusqlite::Result<i64> {
    let known = change.prepare_cached("SELECT id FROM names WHERE name = ?")?.query_row([name], |row| row.get(0));
    if let Some(id) = known.optional()? {
        return Ok(id);
    }
    change.prepare_cached("INSERT INTO names (name) VALUES (?)")?.execute([name])?;
    Ok(change.last_insert_rowid())
}

/// The number of a package on a system, the same.
pub(super) fn package(change: &Connection, pname: &str, system: i64) -> rusqlite::Result<i64> {
    let known = change
        .prepare_cached("SELECT id FROM packages WHERE pname = ? AND system = ?")?
        .query_row(params![pname, system], |row| row.get(0));
    if let Some(id) = known.optional()? {
        return Ok(id);
    }
    change.prepare_cached("INSERT INTO packages (pname, system) VALUES (?, ?)")?.execute(params![pname, system])?;
    Ok(change.last_insert_rowid())
}

/// Writes the builds of a run.
pub(super) fn add_builds(change: &Connection, run: i64, builds: &[Build]) -> rusqlite::Result<()> {
    let mut insert = change.prepare_cached(
        "INSERT INTO builds (run, number, package, name, drv, builder, ready, started, building, ended, outcome, cpu,
             brought, bytes)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    // Of systems and builders there are few.
    let mut few: HashMap<&str, i64> = HashMap::new();
    for (number, build) in (0_i64..).zip(builds) {
        let mut number_of = |text| -> rusqlite::Result<i64> {
            if let Some(id) = few.get(text) {
                return Ok(*id);
            }
            let id = name(change, text)?;
            few.insert(text, id);
            Ok(id)
        };
        let (system, builder) = (number_of(&build.system.0)?, number_of(&build.builder)?);
        insert.execute(params![
            run,
            number,
            package(change, split_name(&build.name).0, system)?,
            name(change, &build.name)?,
            short_drv(build),
            builder,
            micros(build.ready),
            micros(build.started),
            build.building.map(micros),
            micros(build.ended),
            outcome_text(build.outcome),
            build.cpu.map(micros),
            whole(build.brought),
            build.bytes.map(whole),
        ])?;
    }
    Ok(())
}

/// The columns that [`build`] reads.
pub(super) const BUILD: &str = "
    SELECT drv, drvs.name, systems.name, builders.name, ready, started, building, ended, outcome, cpu, brought, bytes
    FROM builds JOIN names AS drvs ON drvs.id = builds.name JOIN packages ON packages.id = package
        JOIN names AS systems ON systems.id = system JOIN names AS builders ON builders.id = builder";

/// A build; `None` if a newer drover wrote how it ended.
pub(super) fn build(row: &Row<'_>) -> rusqlite::Result<Option<Build>> {
    let outcome: String = row.get(8)?;
    let Some(outcome) = outcome_of(&outcome) else { return Ok(None) };
    let name: String = row.get(1)?;
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok(Some(Build {
        drv: long_drv(row.get(0)?, &name),
        name,
        system: System(row.get(2)?),
        builder: row.get(3)?,
        ready: seconds(row.get(4)?),
        started: seconds(row.get(5)?),
        building: row.get::<_, Option<i64>>(6)?.map(seconds),
        ended: seconds(row.get(7)?),
        outcome,
        cpu: row.get::<_, Option<i64>>(9)?.map(seconds),
        brought: unsigned(row.get(10)?),
        bytes: row.get::<_, Option<i64>>(11)?.map(unsigned),
    }))
}

/// The hash of the drv where the rest follows from its name, else all of it.
fn short_drv(build: &Build) -> Value {
    let hash = build.drv.get(..HASH_TEXT).filter(|_| {
        let rest = build.drv.get(HASH_TEXT..).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".drv"));
        rest == Some(&build.name)
    });
    match hash.and_then(|hash| nixbase32::decode(hash.as_bytes()).ok()).filter(|bytes| bytes.len() == HASH) {
        Some(bytes) => Value::Blob(bytes),
        None => Value::Text(build.drv.clone()),
    }
}

fn long_drv(drv: Value, name: &str) -> String {
    match drv {
        Value::Blob(hash) => format!("{}-{name}.drv", nixbase32::encode(&hash)),
        Value::Text(drv) => drv,
        _ => String::new(),
    }
}

fn outcome_text(outcome: Outcome) -> String {
    match serde_json::to_value(outcome) {
        Ok(serde_json::Value::String(word)) => word,
        // `{"failed": CLASS}`
        Ok(value) => value.get("failed").and_then(|class| class.as_str()).unwrap_or_default().to_owned(),
        Err(_) => String::new(),
    }
}

fn outcome_of(text: &str) -> Option<Outcome> {
    let whole = serde_json::Value::from(text);
    let failed = || serde_json::json!({ "failed": text });
    serde_json::from_value(whole).or_else(|_| serde_json::from_value(failed())).ok()
}

pub(super) fn micros(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

pub(super) fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
