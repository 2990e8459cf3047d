//! A real package set as real .drv files: thousands of derivations with the paths that Nix itself computes for them,
//! written into a store so that Nix takes them for valid, and a cache that has most of their outputs.
//!
//! Nothing here can be built; what is to be done for it can be planned.
#![allow(dead_code, unreachable_pub, reason = "tests and benchmarks use different parts")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "whoever uses this wants to stop at the first fault")]

pub mod cache;
pub mod oracle;
pub mod random;
pub mod shape;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use drover::id::{StoreDir, StorePath};
use nix_derivation::{CAHash, Derivation, DerivationBuilder, InputDerivation, InputDerivationHash, NixHash, Output};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use shape::{Node, Shape};

/// A number of a drv and the number of one of its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputId {
    pub drv: usize,
    pub output: usize,
}

/// One derivation as it is in the store.
#[derive(Debug)]
pub struct Drv {
    pub path: StorePath,
    pub content: Vec<u8>,
    /// Paths of the outputs, in the order of [`Node::outputs`].
    pub outputs: Vec<StorePath>,
    /// What the content is known by, for a source.
    pub fixed: Option<CAHash>,
    hash: InputDerivationHash,
}

/// See the module's page.
#[derive(Debug)]
pub struct PackageSet {
    pub shape: Shape,
    pub drvs: Vec<Drv>,
    store_dir: StoreDir,
    /// A source that all packages need.
    script: StorePath,
}

const SCRIPT: &[u8] = b"set -e\necho 'this package set is only planned' >&2\nexit 1\n";

impl PackageSet {
    /// Computes all derivations for a store directory.
    pub fn new(shape: Shape, store_dir: &str) -> Self {
        let store_dir = StoreDir::new(store_dir).unwrap();
        let script = store_dir.build_text_path("builder.sh", SCRIPT, std::iter::empty()).unwrap();
        let mut set = Self { drvs: Vec::with_capacity(shape.nodes.len()), shape, store_dir, script };
        let mut hashes = std::collections::HashMap::new();
        for index in 0..set.shape.nodes.len() {
            let drv = set.derive(index, &hashes);
            hashes.insert(drv.path.clone(), drv.hash);
            set.drvs.push(drv);
        }
        set
    }

    /// The number of outputs of all drvs.
    pub fn outputs(&self) -> impl Iterator<Item = OutputId> {
        let of = |(drv, node): (usize, &Node)| (0..node.outputs.len()).map(move |output| OutputId { drv, output });
        self.shape.nodes.iter().enumerate().flat_map(of)
    }

    /// The path of an output.
    pub fn path(&self, id: OutputId) -> &StorePath {
        &self.drvs[id.drv].outputs[id.output]
    }

    /// An output of a drv by its name.
    pub fn output(&self, drv: usize, name: &str) -> OutputId {
        let output = self.shape.nodes[drv].outputs.iter().position(|output| output == name).unwrap();
        OutputId { drv, output }
    }

    /// What a drv asks of others.
    pub fn needs(&self, drv: usize) -> impl Iterator<Item = OutputId> {
        let inputs = self.shape.nodes[drv].inputs.iter();
        inputs.flat_map(|(input, names)| names.iter().map(|name| self.output(*input, name)))
    }

    /// What `nix build` takes of a root when nobody names an output: the first of `bin` and `out`, and manuals.
    pub fn installed(&self, drv: usize) -> Vec<OutputId> {
        let names = &self.shape.nodes[drv].outputs;
        let main = ["bin", "out"].into_iter().find(|main| names.iter().any(|name| name == main)).unwrap_or(&names[0]);
        let manual = names.iter().filter(|name| *name == "man" && *name != main).map(String::as_str);
        std::iter::once(main).chain(manual).map(|name| self.output(drv, name)).collect()
    }

    fn absolute(&self, path: &StorePath) -> String {
        path.to_absolute_path_in(&self.store_dir)
    }

    /// One derivation; those that it needs are there.
    fn derive(&self, index: usize, hashes: &std::collections::HashMap<StorePath, InputDerivationHash>) -> Drv {
        let node = &self.shape.nodes[index];
        let system = node.system.as_ref().unwrap_or(&self.shape.system);
        let builder = if system == "builtin" { "builtin:fetchurl" } else { "/bin/sh" };
        let mut drv = DerivationBuilder::new_in_store(self.store_dir.clone(), &node.name, system, builder);
        for (input, wanted) in &node.inputs {
            drv = drv.input_derivation(self.drvs[*input].path.clone(), InputDerivation::new(wanted));
        }
        if system != "builtin" {
            drv = drv.argument("-e").argument(self.absolute(&self.script)).input_source(self.script.clone());
        }
        for (key, value) in self.environment(index) {
            drv = drv.environment(key, value);
        }
        let fixed = node.fixed.then(|| content_of(index, node));
        for output in &node.outputs {
            drv = match &fixed {
                Some(ca) => drv.output(output, Output::Fixed { ca: ca.clone() }),
                None => drv.input_addressed_output(output),
            };
        }
        let drv = drv.build_with_input_hashes(|path| hashes[path]).unwrap().into_derivation();
        let content = drv.to_aterm_bytes();
        let references = drv.input_derivations().keys().chain(drv.input_sources());
        let path = self.store_dir.build_text_path(&format!("{}.drv", node.name), &content, references).unwrap();
        let hash = drv.hash_input_derivation_modulo(|path| hashes[path]).unwrap();
        Drv { path, content, outputs: self.output_paths(&drv, node), fixed, hash }
    }

    fn output_paths(&self, drv: &Derivation, node: &Node) -> Vec<StorePath> {
        let path = |name: &String| drv.outputs()[name].path_in(&self.store_dir, &node.name, name).unwrap().unwrap();
        node.outputs.iter().map(path).collect()
    }

    /// What a package's derivation usually says: the more text, the more there is to read.
    fn environment(&self, index: usize) -> BTreeMap<String, String> {
        let node = &self.shape.nodes[index];
        let paths: Vec<String> = self.needs(index).map(|id| self.absolute(self.path(id))).collect();
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |key: &str, value: String| env.insert(key.to_owned(), value);
        set("name", node.name.clone());
        set("number", index.to_string());
        set("outputs", node.outputs.join(" "));
        set("nativeBuildInputs", paths.join(" "));
        if node.prefer_local {
            set("preferLocalBuild", "1".to_owned());
        }
        if let Some(allowed) = node.allow_substitutes {
            set("allowSubstitutes", if allowed { "1" } else { "" }.to_owned());
        }
        if !node.features.is_empty() {
            set("requiredSystemFeatures", node.features.join(" "));
        }
        for key in ["buildInputs", "configureFlags", "depsBuildBuild", "doCheck", "mesonFlags", "patches", "strictDeps"]
        {
            set(key, String::new());
        }
        if node.fixed {
            let urls = (0..8).map(|mirror| format!("https://mirror{mirror}.example.org/{}\n", node.name));
            set("urls", urls.collect());
        } else {
            set("buildPhase", PHASE.repeat(3));
            set("installPhase", PHASE.repeat(2));
        }
        env
    }

    /// Writes all .drv files below `physical` and has `nix_store` (told which store it is) take them for valid. Nix
    /// checks the paths of all outputs when it does so.
    pub fn install(&self, physical: &Path, nix_store: Command) {
        fs::create_dir_all(physical).unwrap();
        write_file(&physical.join(self.script.to_basename()), SCRIPT);
        let write = |drv: &Drv| write_file(&physical.join(drv.path.to_basename()), &drv.content);
        self.drvs.par_iter().for_each(write);
        let mut nix_store = nix_store;
        let mut child = nix_store.arg("--load-db").stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(self.registration().as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success(), "nix-store --load-db");
    }

    /// What `nix-store --load-db` reads.
    fn registration(&self) -> String {
        let mut text = self.registered(&self.script, SCRIPT, &[]);
        for (drv, node) in self.drvs.iter().zip(&self.shape.nodes) {
            let mut references: Vec<&StorePath> =
                node.inputs.iter().map(|(input, _)| &self.drvs[*input].path).collect();
            if node.system.as_deref() != Some("builtin") {
                references.push(&self.script);
            }
            text += &self.registered(&drv.path, &drv.content, &references);
        }
        text
    }

    fn registered(&self, path: &StorePath, content: &[u8], references: &[&StorePath]) -> String {
        let nar = nar_of_file(content);
        let hash = NixHash::Sha256(Sha256::digest(&nar).into()).to_nix_base16_string();
        let hash = hash.trim_start_matches("sha256:");
        let mut text = format!("{}\n{hash}\n{}\n\n{}\n", self.absolute(path), nar.len(), references.len());
        for reference in references {
            text += &format!("{}\n", self.absolute(reference));
        }
        text
    }

    /// A flake of all roots: `packages.x86_64-linux.NAME`, made of nothing but the names of what is in the store.
    pub fn flake(&self) -> String {
        let mut text = FLAKE.to_owned();
        for (name, &drv) in &self.shape.roots {
            let outputs = self.shape.nodes[drv].outputs.iter().zip(&self.drvs[drv].outputs);
            let outputs: Vec<String> =
                outputs.map(|(name, path)| format!("{name} = \"{}\";", self.absolute(path))).collect();
            let installed: Vec<String> = self
                .installed(drv)
                .iter()
                .map(|id| format!("\"{}\"", self.shape.nodes[drv].outputs[id.output]))
                .collect();
            text += &format!(
                "    \"{name}\" = root \"{}\" \"{}\" [ {} ] {{ {} }};\n",
                self.shape.nodes[drv].name,
                self.absolute(&self.drvs[drv].path),
                installed.join(" "),
                outputs.join(" ")
            );
        }
        text + "  }; }; }\n"
    }
}

const PHASE: &str = "runHook preBuild\nlocal flagsArray=(\n  ${enableParallelBuilding:+-j${NIX_BUILD_CORES}}\n  \
    SHELL=\"$SHELL\"\n)\nconcatTo flagsArray makeFlags makeFlagsArray buildFlags buildFlagsArray\necho \"build flags: \
    ${flagsArray[@]}\"\nmake ${makefile:+-f $makefile} \"${flagsArray[@]}\"\nunset flagsArray\nrunHook postBuild\n";

/// A .drv that is in the store already is named by a string whose context says so.
const FLAKE: &str = "{ outputs = { self }: let
  of = drv: context: text: builtins.appendContext text { ${drv} = context; };
  root = name: drv: installed: paths: let
    output = outputName: { inherit outputName; outPath = of drv { outputs = [ outputName ]; } paths.${outputName}; };
    all = builtins.mapAttrs (outputName: path: common // output outputName) paths;
    common = all // {
      inherit name;
      type = \"derivation\";
      system = \"x86_64-linux\";
      outputs = builtins.attrNames paths;
      drvPath = of drv { allOutputs = true; } drv;
      meta.outputsToInstall = installed;
    };
  in common // output (builtins.head installed);
in { packages.x86_64-linux = {
";

/// What a source's content is known by.
fn content_of(index: usize, node: &Node) -> CAHash {
    let hash = NixHash::Sha256(Sha256::digest(format!("{index} {}", node.name)).into());
    let flat = [".patch", ".gz", ".xz", ".bz2", ".zip", ".tgz"].iter().any(|end| node.name.ends_with(end));
    if flat { CAHash::Flat(hash) } else { CAHash::Nar(hash) }
}

/// Writes a file as Nix leaves it.
fn write_file(path: &Path, content: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o444)).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1)).unwrap();
}

/// The NAR of a plain file.
fn nar_of_file(content: &[u8]) -> Vec<u8> {
    let mut nar = Vec::with_capacity(content.len() + 120);
    for word in [&b"nix-archive-1"[..], b"(", b"type", b"regular", b"contents", content, b")"] {
        nar.extend((word.len() as u64).to_le_bytes());
        nar.extend(word);
        nar.resize(nar.len().next_multiple_of(8), 0);
    }
    nar
}
