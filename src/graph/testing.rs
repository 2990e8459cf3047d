//! Small graphs for tests of this crate: store paths from numbers, drvs from a few words.

use std::sync::Arc;

use proptest::test_runner::Config as ProptestConfig;

use super::{DrvInfo, Graph, OutputInfo};
use crate::id::{DrvId, StorePath, System};

/// So many cases, unless `PROPTEST_CASES` says otherwise; failures are printed, not kept in files.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    const UNSET: u32 = 256;
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if config.cases == UNSET { ProptestConfig { cases, ..config } } else { config }
}

/// A store path that nobody else has: `number` is its hash.
pub(crate) fn path(number: u32, name: &str) -> StorePath {
    let mut digest = [0; 20];
    digest[..4].copy_from_slice(&number.to_be_bytes());
    StorePath::from_parts(digest, name).unwrap()
}

/// The .drv of this number.
pub(crate) fn drv_path(number: u32) -> StorePath {
    path(number, &format!("d{number}.drv"))
}

/// The path of an output of the drv of this number.
pub(crate) fn output_path(number: u32, output: &str) -> StorePath {
    path(number, &format!("d{number}-{output}"))
}

/// A drv with known output paths, `x86_64-linux`, and these inputs.
pub(crate) fn drv(number: u32, outputs: &[&str], inputs: &[(u32, &[&str])]) -> DrvInfo {
    DrvInfo {
        path: drv_path(number),
        name: format!("d{number}"),
        system: System::from("x86_64-linux"),
        outputs: outputs
            .iter()
            .map(|name| OutputInfo { name: Arc::from(*name), path: Some(output_path(number, name)) })
            .collect(),
        inputs: inputs
            .iter()
            .map(|(input, names)| (drv_path(*input), names.iter().map(|name| Arc::from(*name)).collect()))
            .collect(),
        sources: Vec::new(),
        features: Vec::new(),
        prefer_local: false,
        substitutes: true,
        fixed_output: false,
        dynamic: false,
    }
}

/// A graph of drvs with one output each: entry i needs the entries that it lists. Ids are positions.
pub(crate) fn graph(inputs: &[Vec<u32>]) -> Graph {
    let mut graph = Graph::new();
    for number in 0..inputs.len() {
        graph.intern(&drv_path(u32::try_from(number).unwrap()));
    }
    for (number, inputs) in inputs.iter().enumerate() {
        let inputs: Vec<(u32, &[&str])> = inputs.iter().map(|input| (*input, &["out"][..])).collect();
        let id = graph.load(drv(u32::try_from(number).unwrap(), &["out"], &inputs));
        assert_eq!(id, DrvId(u32::try_from(number).unwrap()));
    }
    graph
}
