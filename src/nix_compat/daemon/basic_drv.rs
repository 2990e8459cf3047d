//! A derivation as `BuildDerivation` takes it: inputs are paths only, no longer derivations.

use std::collections::{BTreeMap, BTreeSet};

use nix_derivation::{ContentAddressMethod, Derivation, Error, Output};

use crate::id::{StoreDir, StorePath};
use crate::nix_compat::hex;
use crate::nix_compat::wire::Encoder;

/// One output in the protocol's three columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicOutput {
    /// Absolute path, or empty where it is not known before building.
    pub path: String,
    /// `sha256`, `r:sha256`, …, or empty if input-addressed.
    pub method: String,
    /// Hex digits, or empty if not fixed, or `impure`.
    pub hash: String,
}

/// A derivation whose inputs are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicDerivation {
    /// By output name.
    pub outputs: BTreeMap<String, BasicOutput>,
    /// Every path that has to be valid before the build; not their closures.
    pub inputs: BTreeSet<StorePath>,
    /// Its system.
    pub platform: String,
    /// The program.
    pub builder: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment; structured attributes are `__json`.
    pub env: BTreeMap<String, Vec<u8>>,
}

impl BasicDerivation {
    /// The derivation with these output paths of its input derivations (the wanted outputs only) as further inputs.
    /// Only for derivations that need no rewriting: input-addressed and fixed ones (design §1, opaque).
    pub fn new(drv: &Derivation, input_outputs: impl IntoIterator<Item = StorePath>) -> Result<Self, Error> {
        let outputs = drv.outputs().iter().map(|(name, output)| Ok((name.clone(), basic_output(drv, name, output)?)));
        let mut env = drv.environment().clone();
        if let Some(attrs) = drv.structured_attrs() {
            env.insert("__json".to_owned(), attrs.raw_json().to_vec());
        }
        Ok(Self {
            outputs: outputs.collect::<Result<_, Error>>()?,
            inputs: drv.input_sources().iter().cloned().chain(input_outputs).collect(),
            platform: drv.system().to_owned(),
            builder: drv.builder().to_owned(),
            args: drv.arguments().to_vec(),
            env,
        })
    }

    /// Adds it in the layout of the request.
    pub fn write(&self, dir: &StoreDir, to: &mut Encoder) {
        to.list(&self.outputs, |to, (name, output)| {
            to.bytes(name).bytes(&output.path).bytes(&output.method).bytes(&output.hash);
        })
        .paths(dir, &self.inputs)
        .bytes(&self.platform)
        .bytes(&self.builder)
        .list(&self.args, |to, arg| {
            to.bytes(arg);
        })
        .list(&self.env, |to, (name, value)| {
            to.bytes(name).bytes(value);
        });
    }
}

fn basic_output(drv: &Derivation, name: &str, output: &Output) -> Result<BasicOutput, Error> {
    let path = output.path_in(drv.store_dir(), drv.name(), name)?;
    let (method, hash) = match output {
        Output::InputAddressed { .. } | Output::Deferred => (String::new(), String::new()),
        Output::Fixed { ca } => {
            (method(ca.method(), ca.hash().algorithm().as_str()), hex::encode(ca.hash().digest_as_bytes()))
        }
        Output::Floating { method: how, hash_algorithm } => (method(*how, hash_algorithm.as_str()), String::new()),
        Output::Impure { method: how, hash_algorithm } => (method(*how, hash_algorithm.as_str()), "impure".to_owned()),
    };
    Ok(BasicOutput { path: path.map(|path| drv.store_dir().render_path(&path)).unwrap_or_default(), method, hash })
}

fn method(how: ContentAddressMethod, algorithm: &str) -> String {
    let prefix = match how {
        ContentAddressMethod::Flat => "",
        ContentAddressMethod::Nar => "r:",
        ContentAddressMethod::Text => "text:",
        ContentAddressMethod::Git => "git:",
    };
    format!("{prefix}{algorithm}")
}
