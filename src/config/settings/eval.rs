//! How the flake is locked and evaluated.

use std::path::PathBuf;

use super::super::amount::size;
use super::super::env::DROVER_EVAL_WORKERS;
use super::super::{Env, File};
use super::{Words, first, number};
use crate::error::{Error, Result};

/// How the flake is locked and evaluated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EvalSettings {
    /// `--override-input NAME REF`.
    pub override_inputs: Vec<(String, String)>,
    /// Another lock file to read.
    pub reference_lock_file: Option<PathBuf>,
    /// A lock file that is not in step is an error.
    pub no_update_lock_file: bool,
    /// Evaluate impurely.
    pub impure: bool,
    /// Take the flake's `nixConfig`.
    pub accept_flake_config: bool,
    /// `--option NAME VALUE` for Nix.
    pub options: Vec<(String, String)>,
    /// Evaluator processes; `None`: as many as the flake is worth.
    pub workers: Option<u32>,
    /// MiB a worker may hold before it is replaced.
    pub max_memory_mib: Option<u64>,
    /// Bytes that evaluation may take; `None`: a share of the machine's.
    pub memory: Option<u64>,
    /// An attr that imports from a derivation has failed.
    pub no_ifd: bool,
    /// nix-eval-jobs evaluates.
    pub jobs: bool,
    /// The file of lines of another evaluator, which take the place of evaluating; `-` is standard input.
    pub attrs_from: Option<String>,
    /// The plain Nix file that takes the place of a flake.
    pub file: Option<PathBuf>,
    /// What it is called with: names, and Nix expressions.
    pub args: Vec<(String, String)>,
}

impl EvalSettings {
    /// What flags, the environment and the file say.
    pub(super) fn of(words: &Words, env: &Env, file: &File) -> Result<Self> {
        if let Some(file) = words.reference_lock_file.as_deref().filter(|file| !file.is_file()) {
            return Err(Error::usage(format!("--reference-lock-file {}: there is no such file", file.display()))
                .hint("nix flake lock --output-lock-file FILE    makes one"));
        }
        Ok(Self {
            override_inputs: words.override_input.clone(),
            reference_lock_file: words.reference_lock_file.clone(),
            no_update_lock_file: words.no_update_lock_file,
            impure: words.impure,
            accept_flake_config: words.accept_flake_config,
            options: words.option.clone(),
            workers: first(words.eval_workers, number(env, DROVER_EVAL_WORKERS)?, file.eval.workers),
            max_memory_mib: words.eval_max_memory_size,
            memory: eval_memory(words.eval_memory.as_deref(), file.eval.max_memory.as_deref())?,
            no_ifd: words.no_ifd,
            args: arguments(&words.arg, &words.argstr)?,
            jobs: words.eval_jobs,
            attrs_from: words.attrs_from.clone(),
            file: words.file.clone(),
        })
    }
}

/// Less than this no Nix starts with.
const LEAST_EVAL_MEMORY: u64 = 32 << 20;

/// What the evaluation may take, in bytes.
fn eval_memory(flag: Option<&str>, file: Option<&str>) -> Result<Option<u64>> {
    let (name, text) = match (flag, file) {
        (Some(text), _) => ("--eval-memory ", text),
        (None, Some(text)) => ("drover.toml: max-memory = ", text),
        (None, None) => return Ok(None),
    };
    match size(text) {
        Some(bytes) if bytes >= LEAST_EVAL_MEMORY => Ok(Some(bytes)),
        Some(_) => Err(Error::usage(format!("{name}'{text}' is less than any evaluation takes"))
            .hint("drover run --eval-memory 2GiB")),
        None => Err(Error::usage(format!("{name}'{text}' is no size")).hint("drover run --eval-memory 2GiB")),
    }
}

/// `--arg` and `--argstr` as Nix expressions.
fn arguments(exprs: &[(String, String)], texts: &[(String, String)]) -> Result<Vec<(String, String)>> {
    let quoted = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
        format!("\"{}\"", text.replace('\n', "\\n"))
    };
    let mut args: Vec<(String, String)> = Vec::new();
    let exprs = exprs.iter().map(|(name, expr)| (name.clone(), format!("({expr}\n)")));
    let texts = texts.iter().map(|(name, text)| (name.clone(), quoted(text)));
    for (name, value) in exprs.chain(texts) {
        if args.iter().any(|(known, _)| *known == name) {
            return Err(Error::usage(format!("the argument '{name}' is given twice"))
                .hint("drover run --file FILE --arg NAME EXPR"));
        }
        args.push((name, value));
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::super::testing::resolve;
    use super::*;

    #[test]
    fn what_evaluation_may_take_is_a_size() {
        let words = |size: &str| Words { eval_memory: Some(size.to_owned()), ..Words::default() };
        let file = "[eval]\nmax-memory = '2GiB'\n";
        assert_eq!(resolve(words("1GiB"), &[], file).unwrap().eval.memory, Some(1 << 30));
        assert_eq!(resolve(Words::default(), &[], file).unwrap().eval.memory, Some(2 << 30));
        assert_eq!(resolve(Words::default(), &[], "").unwrap().eval.memory, None);
        assert!(resolve(words("1MiB"), &[], "").unwrap_err().message.contains("less than any evaluation takes"));
        assert!(resolve(words("much"), &[], "").unwrap_err().message.contains("is no size"));
    }
}
