//! Derivations for these tests, made as Nix makes them: real paths of .drvs and outputs, so that a change spreads to all
//! users by itself.

use std::collections::BTreeMap;

use nix_derivation::{
    CAHash, ContentAddressMethod, DerivationBuilder, HashAlgorithm, InputDerivationHash, StructuredAttrs,
};

use crate::diff::lockstep::{Lockstep, Masks, Why};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::drv::{Derivation, InputDerivation, Output};

/// What one derivation says.
#[derive(Debug, Clone, Default)]
pub(super) struct Spec {
    pub(super) name: String,
    /// Positions of earlier ones, named in the variable `deps`.
    pub(super) inputs: Vec<usize>,
    /// The same, named in this variable.
    pub(super) named: Vec<(&'static str, usize)>,
    /// Name and content, each named in the variable.
    pub(super) sources: Vec<(&'static str, String, String)>,
    pub(super) env: Vec<(String, String)>,
    pub(super) args: Vec<String>,
    pub(super) builder: Option<String>,
    pub(super) system: Option<String>,
    pub(super) outputs: Vec<&'static str>,
    /// Its output is fixed: what is hashed.
    pub(super) fixed: Option<String>,
    /// All but `name` is said in structured attrs.
    pub(super) structured: bool,
    /// Its outputs are known after building only.
    pub(super) floating: bool,
}

impl Spec {
    pub(super) fn new(name: &str, inputs: &[usize]) -> Self {
        Self { name: name.into(), inputs: inputs.to_vec(), ..Self::default() }
    }

    pub(super) fn var(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// The path of a source with this content.
pub(super) fn source(name: &str, content: &str) -> StorePath {
    StoreDir::default().build_text_path(name, content.as_bytes(), std::iter::empty::<&StorePath>()).unwrap()
}

/// Derivations with their paths; users come after what they need.
#[derive(Debug)]
pub(super) struct World {
    pub(super) drvs: Vec<(StorePath, Derivation)>,
}

impl World {
    pub(super) fn of(specs: &[Spec]) -> Self {
        let mut made: Vec<(StorePath, Derivation)> = Vec::new();
        let mut hashes: BTreeMap<StorePath, InputDerivationHash> = BTreeMap::new();
        for spec in specs {
            let hash = |path: &StorePath| hashes[path];
            let drv: Derivation = built(spec, &made).build_with_input_hashes(hash).unwrap().into_derivation();
            let own = drv.hash_input_derivation_modulo(|path| hashes[path]).unwrap();
            let bytes = drv.to_aterm_bytes();
            let references = drv.input_sources().iter().chain(drv.input_derivations().keys());
            let name = format!("{}.drv", drv.name());
            let path = StoreDir::default().build_text_path(&name, &bytes, references).unwrap();
            let drv = crate::nix_compat::drv::parse(&bytes, &path, &StoreDir::default()).unwrap();
            hashes.insert(path.clone(), own);
            made.push((path, drv));
        }
        Self { drvs: made }
    }

    pub(super) fn path(&self, at: usize) -> &StorePath {
        &self.drvs[at].0
    }

    pub(super) fn last(&self) -> &StorePath {
        &self.drvs[self.drvs.len() - 1].0
    }
}

fn built(spec: &Spec, made: &[(StorePath, Derivation)]) -> DerivationBuilder {
    let system = spec.system.as_deref().unwrap_or("x86_64-linux");
    let mut builder = DerivationBuilder::new(&*spec.name, system, spec.builder.as_deref().unwrap_or("/bin/sh"));
    let text = |at: usize| crate::nix_compat::drv::output_texts(&made[at].1, &made[at].0).unwrap()["out"].clone();
    let mut variables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    variables.entry("name".into()).or_default().push(spec.name.clone());
    for (name, at) in spec.inputs.iter().map(|at| ("deps", *at)).chain(spec.named.iter().copied()) {
        builder = builder.input_derivation(made[at].0.clone(), InputDerivation::new(["out"]));
        variables.entry(name.into()).or_default().push(text(at));
    }
    for (variable, name, content) in &spec.sources {
        let path = source(name, content);
        variables.entry((*variable).into()).or_default().push(path.to_absolute_path());
        builder = builder.input_source(path);
    }
    for (name, value) in &spec.env {
        variables.entry(name.clone()).or_default().push(value.clone());
    }
    for argument in &spec.args {
        builder = builder.argument(argument.clone());
    }
    let out = if spec.outputs.is_empty() { &["out"][..] } else { &spec.outputs };
    for output in out {
        builder = match &spec.fixed {
            Some(content) => {
                let hash = nix_derivation::hash_bytes(HashAlgorithm::Sha256, content.as_bytes());
                let hash = hash.digest_as_bytes();
                let ca = CAHash::from_parts(ContentAddressMethod::Flat, HashAlgorithm::Sha256, hash).unwrap();
                builder.output(*output, Output::Fixed { ca })
            }
            None if spec.floating => builder.output(
                *output,
                Output::Floating { method: ContentAddressMethod::Nar, hash_algorithm: HashAlgorithm::Sha256 },
            ),
            None => builder.input_addressed_output(*output),
        };
    }
    if spec.structured {
        let attrs: BTreeMap<_, _> = variables.into_iter().map(|(name, value)| (name, value.join(" "))).collect();
        return builder
            .structured_attrs(StructuredAttrs::from_json_bytes(serde_json::to_vec(&attrs).unwrap()).unwrap());
    }
    variables.into_iter().fold(builder, |builder, (name, value)| builder.environment(name, value.join(" ")))
}

/// Answers all questions from two worlds; how many .drvs were read.
pub(super) fn answer(lockstep: &mut Lockstep, worlds: &[&World]) -> usize {
    let all: BTreeMap<&StorePath, &Derivation> =
        worlds.iter().flat_map(|world| world.drvs.iter().map(|(path, drv)| (path, drv))).collect();
    let mut read = 0;
    loop {
        let questions = lockstep.questions();
        if questions.is_empty() {
            return read;
        }
        for path in questions {
            read += 1;
            match all.get(&path) {
                Some(drv) => lockstep.loaded(&path, (*drv).clone()),
                None => lockstep.failed(&path),
            }
        }
    }
}

/// Why the last of one world differs from the last of the other.
pub(super) fn why(base: &World, head: &World, masks: Masks) -> Why {
    let mut lockstep = Lockstep::new(masks);
    lockstep.compare(base.last(), head.last());
    answer(&mut lockstep, &[base, head]);
    lockstep.why(base.last(), head.last()).unwrap()
}

/// `KIND NAME: BASE → HEAD`, hashes of store paths left out.
pub(super) fn told(why: &Why) -> Vec<String> {
    let short = |text: &Option<String>| match text {
        None => "-".to_owned(),
        Some(text) => {
            text.replace(['\n'], "|").split(' ').map(crate::diff::lockstep::tests::short).collect::<Vec<_>>().join(" ")
        }
    };
    let one = |reached: &crate::diff::lockstep::Reached| {
        let cause = &reached.cause;
        format!("{} {}: {} → {}", word(cause.kind), cause.name, short(&cause.from), short(&cause.to))
    };
    why.causes.iter().map(one).collect()
}

/// As in JSON.
fn word(kind: crate::event::CauseKind) -> String {
    serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned()
}
