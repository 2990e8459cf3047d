//! The shape of a package set: names, outputs and edges. Either that of a real one, or a generated one like it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::random::Random;

/// Which derivations there are and what each needs. Inputs come before users.
#[derive(Debug, Clone, Deserialize)]
pub struct Shape {
    /// The platform of drvs that name none.
    pub system: String,
    /// What people ask for: name → drv.
    pub roots: BTreeMap<String, usize>,
    pub nodes: Vec<Node>,
}

/// One derivation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    pub name: String,
    pub outputs: Vec<String>,
    /// Which drv, and which of its outputs.
    pub inputs: Vec<(usize, Vec<String>)>,
    /// A source: its content is known by hash.
    pub fixed: bool,
    pub prefer_local: bool,
    pub allow_substitutes: Option<bool>,
    pub features: Vec<String>,
    pub system: Option<String>,
}

impl Node {
    /// Whether caches may be asked for it.
    pub fn substitutes(&self) -> bool {
        self.allow_substitutes.unwrap_or(true)
    }
}

/// How many drvs the real package set has, and the generated one too.
const SIZE: usize = 12_902;
/// Drvs of the generated set of which each needs the one before.
const SPINE: usize = 100;

impl Shape {
    /// The real one, if its file is at hand: `package-set.json.zst` in `$DROVER_GRAPHS`, or in `shared/graphs` beside
    /// this checkout or above it.
    pub fn real() -> Option<Self> {
        let bytes = std::fs::read(real_file()?).unwrap();
        let json = zstd::decode_all(&*bytes).unwrap();
        Some(serde_json::from_slice(&json).unwrap())
    }

    /// One like the real one in size, depth, fan-in and share of sources and of drvs with several outputs.
    pub fn generated(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut shape = Self { system: "x86_64-linux".to_owned(), roots: BTreeMap::new(), nodes: Vec::new() };
        let mut packages = Vec::new();
        let mut sources = Vec::new();
        while shape.nodes.len() < SIZE {
            let index = shape.nodes.len();
            // Four of five are sources. They need a little of what there was first: a fetcher and its certificates.
            if packages.len() > 3 && random.below(5) > 0 {
                shape.nodes.push(source(&mut random, index, &packages, &shape.nodes));
                sources.push(index);
            } else {
                let fresh = std::mem::take(&mut sources);
                shape.nodes.push(package(&mut random, index, &packages, &fresh, &shape.nodes));
                packages.push(index);
            }
        }
        shape.choose_roots(&mut random, &packages);
        shape
    }

    /// The drvs that need each.
    pub fn users(&self) -> Vec<Vec<usize>> {
        let mut users = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for (input, _) in &node.inputs {
                users[*input].push(index);
            }
        }
        users
    }

    /// Every third package, and whatever nobody needs.
    fn choose_roots(&mut self, random: &mut Random, packages: &[usize]) {
        let mut roots: BTreeSet<usize> = packages.iter().copied().filter(|_| random.below(3) == 0).collect();
        let users = self.users();
        roots.extend((0..self.nodes.len()).filter(|&index| users[index].is_empty()));
        self.roots = roots.into_iter().map(|index| (format!("root-{index}"), index)).collect();
    }
}

/// Where the real shape is.
fn real_file() -> Option<PathBuf> {
    const NAME: &str = "package-set.json.zst";
    #[expect(clippy::disallowed_methods, reason = "test code has to read where the file is")]
    let named = std::env::var_os("DROVER_GRAPHS").map(|dir| PathBuf::from(dir).join(NAME));
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("shared/graphs").join(NAME));
    named.into_iter().chain(above).find(|file| file.exists())
}

fn source(random: &mut Random, index: usize, packages: &[usize], nodes: &[Node]) -> Node {
    let count = random.between(3, 4).min(packages.len());
    let inputs = packages.iter().take(count).map(|&input| (input, wants(random, &nodes[input]))).collect();
    let name = format!("source-{index}.tar.gz");
    let outputs = vec!["out".to_owned()];
    Node { name, outputs, inputs, fixed: true, prefer_local: random.below(2) == 0, ..Node::default() }
}

fn package(random: &mut Random, index: usize, packages: &[usize], sources: &[usize], nodes: &[Node]) -> Node {
    let mut inputs: BTreeSet<usize> = sources.iter().copied().collect();
    if let Some(last) = packages.last() {
        let on_spine = packages.len() < SPINE;
        inputs.insert(if on_spine { *last } else { packages[random.below(SPINE)] });
        // A few need very many; what came early is needed by most.
        let count = if random.below(40) == 0 { random.between(50, 300) } else { random.between(1, 12) };
        for _ in 0..count.min(packages.len()) {
            let below = if random.below(3) > 0 { packages.len().min(SPINE * 2) } else { packages.len() };
            inputs.insert(packages[random.below(below)]);
        }
    }
    let several: &[&str] = match random.below(9) {
        0 => &["dev", "lib", "out"],
        1 => &["bin", "dev", "doc", "man", "out"],
        2 => &["dev", "out"],
        _ => &["out"],
    };
    let small = random.below(10) == 0;
    Node {
        name: format!("package-{index}-1.{}", random.below(30)),
        outputs: several.iter().map(|&name| name.to_owned()).collect(),
        inputs: inputs.into_iter().map(|input| (input, wants(random, &nodes[input]))).collect(),
        prefer_local: small,
        allow_substitutes: small.then_some(false),
        features: if random.below(140) == 0 { vec!["big-parallel".to_owned()] } else { Vec::new() },
        ..Node::default()
    }
}

/// One output, or two.
fn wants(random: &mut Random, node: &Node) -> Vec<String> {
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    for _ in 0..random.between(1, 2) {
        wanted.insert(node.outputs[random.below(node.outputs.len())].clone());
    }
    wanted.into_iter().collect()
}
