//! Derivations: reads a .drv and answers what drover wants to know of one. The format itself is `nix-derivation`'s.

use std::collections::BTreeMap;

pub use nix_derivation::{Derivation, InputDerivation, InputDerivationHash as DrvHash, Output};
use nix_derivation::{Error, InputResolutionError, StructuredAttrs};

use crate::id::{StoreDir, StorePath, System};

/// A .drv cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DrvError {
    /// Its path does not end in `.drv`.
    #[error("{0} is not a derivation")]
    NotADrv(StorePath),
    /// It does not parse.
    #[error("cannot parse {path}")]
    Parse {
        /// Which.
        path: StorePath,
        /// Why.
        source: Error,
    },
    /// It is not what its path says.
    #[error("{0} has the text of another derivation")]
    Renamed(StorePath),
    /// Its outputs are not what follows from it.
    #[error("{path} has outputs that do not follow from it")]
    Outputs {
        /// Which.
        path: StorePath,
        /// Why.
        source: Box<InputResolutionError<Unknown>>,
    },
}

/// A derivation that is needed is not known.
#[derive(Debug, thiserror::Error)]
#[error("what it needs is not known")]
pub struct Unknown;

/// Parses the content of the .drv at this path.
pub fn parse(bytes: &[u8], path: &StorePath, dir: &StoreDir) -> Result<Derivation, DrvError> {
    let name = path.name().strip_suffix(".drv").ok_or_else(|| DrvError::NotADrv(path.clone()))?;
    Derivation::from_aterm_bytes_in(bytes, name, dir.clone())
        .map_err(|source| DrvError::Parse { path: path.clone(), source })
}

/// Parses a derivation that nobody vouches for: its path has to follow from its text, and its outputs from it and from
/// the derivations that it needs, whose identities `hash` knows. Gives its own identity as well.
pub fn verify(
    bytes: &[u8],
    path: &StorePath,
    dir: &StoreDir,
    hash: impl Fn(&StorePath) -> Option<DrvHash>,
) -> Result<(Derivation, DrvHash), DrvError> {
    let drv = parse(bytes, path, dir)?;
    let references = drv.input_derivations().keys().chain(drv.input_sources());
    if dir.build_text_path(path.name(), bytes, references).ok().as_ref() != Some(path) {
        return Err(DrvError::Renamed(path.clone()));
    }
    let outputs = |source| DrvError::Outputs { path: path.clone(), source: Box::new(source) };
    drv.try_validate_with_input_hashes(|input| hash(input).ok_or(Unknown)).map_err(outputs)?;
    let own = drv.try_hash_input_derivation_modulo(|input| hash(input).ok_or(Unknown)).map_err(outputs)?;
    Ok((drv, own))
}

/// What a machine must offer to build it: `requiredSystemFeatures`.
#[must_use]
pub fn required_features(drv: &Derivation) -> Vec<String> {
    const NAME: &str = "requiredSystemFeatures";
    if let Some(attrs) = drv.structured_attrs() {
        let Some(list) = attrs.get(NAME).and_then(|value| value.as_array()) else { return Vec::new() };
        return list.iter().filter_map(|value| value.as_str()).map(str::to_owned).collect();
    }
    let value = drv.environment().get(NAME).map(Vec::as_slice).unwrap_or_default();
    String::from_utf8_lossy(value).split_ascii_whitespace().map(str::to_owned).collect()
}

/// Whether it is so small that it should be built where its inputs are: `preferLocalBuild`.
#[must_use]
pub fn prefers_local(drv: &Derivation) -> bool {
    flag(drv, "preferLocalBuild").unwrap_or(false)
}

/// Whether caches may be asked for its outputs: `allowSubstitutes`, unless it is there and not true.
#[must_use]
pub fn allows_substitutes(drv: &Derivation) -> bool {
    flag(drv, "allowSubstitutes").unwrap_or(true)
}

/// A boolean attribute; Nix turns `true` into `1` and `false` into an empty variable.
fn flag(drv: &Derivation, name: &str) -> Option<bool> {
    let structured = |attrs: &StructuredAttrs| attrs.get(name).map(|value| value.as_bool().unwrap_or(false));
    match drv.structured_attrs() {
        Some(attrs) => structured(attrs),
        None => drv.environment().get(name).map(|value| value.as_slice() == b"1"),
    }
}

/// Whether Nix itself is the builder (`builtin:fetchurl`): every machine can build it.
#[must_use]
pub fn is_builtin(drv: &Derivation) -> bool {
    drv.builder().starts_with("builtin:")
}

/// Its platform; `builtin` is every machine's.
#[must_use]
pub fn system(drv: &Derivation) -> System {
    System(drv.system().to_owned())
}

/// Whether its output is known by its hash, so that nobody needs to be trusted with it.
#[must_use]
pub fn is_fixed_output(drv: &Derivation) -> bool {
    drv.outputs().values().any(|output| matches!(output, Output::Fixed { .. }))
}

/// Whether an input is a derivation that another one makes.
#[must_use]
pub fn has_dynamic_inputs(drv: &Derivation) -> bool {
    drv.input_derivations().values().any(InputDerivation::is_dynamic)
}

/// Output name → path; `None` where it is only known after building.
pub fn output_paths(drv: &Derivation) -> Result<BTreeMap<String, Option<StorePath>>, Error> {
    let path =
        |(name, output): (&String, &Output)| Ok((name.clone(), output.path_in(drv.store_dir(), drv.name(), name)?));
    drv.outputs().iter().map(path).collect()
}

/// Output name → the text by which other derivations refer to it: its path, or, where that is only known after
/// building, the placeholder that stands for it.
pub fn output_texts(drv: &Derivation, path: &StorePath) -> Result<BTreeMap<String, String>, Error> {
    let text = |(name, known): (String, Option<StorePath>)| {
        let text = match known {
            Some(path) => path.to_absolute_path_in(drv.store_dir()),
            None => nix_derivation::store_path::downstream_placeholder(path, [&name])?,
        };
        Ok((name, text))
    };
    output_paths(drv)?.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix_derivation::DerivationBuilder;

    fn built(with: impl FnOnce(DerivationBuilder) -> DerivationBuilder) -> Derivation {
        let builder = DerivationBuilder::new("x", "x86_64-linux", "/bin/sh").input_addressed_output("out");
        let bytes = with(builder).build().unwrap().to_aterm_bytes();
        let path = StorePath::from_basename(b"00000000000000000000000000000000-x.drv").unwrap();
        parse(&bytes, &path, &StoreDir::default()).unwrap()
    }

    #[test]
    fn flags_of_plain_derivations() {
        let plain = built(|b| b);
        assert!(!prefers_local(&plain) && allows_substitutes(&plain) && required_features(&plain).is_empty());
        let set = built(|b| {
            b.environment("preferLocalBuild", "1")
                .environment("allowSubstitutes", "")
                .environment("requiredSystemFeatures", "kvm  big-parallel ")
        });
        assert!(prefers_local(&set) && !allows_substitutes(&set));
        assert_eq!(required_features(&set), ["kvm", "big-parallel"]);
    }

    #[test]
    fn a_path_that_is_no_drv_is_refused() {
        let path = StorePath::from_basename(b"00000000000000000000000000000000-x").unwrap();
        assert!(matches!(parse(b"", &path, &StoreDir::default()), Err(DrvError::NotADrv(_))));
    }
}
