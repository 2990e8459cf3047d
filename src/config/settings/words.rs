//! What was typed.

use std::path::PathBuf;

/// What the command line said; `None` and empty where it said nothing.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each field is the flag of the same name")]
pub struct Words {
    pub what: Vec<String>,
    pub kind: Vec<String>,
    pub only: Vec<String>,
    pub exclude: Vec<String>,
    pub systems: Vec<String>,
    pub all_systems: bool,
    pub override_input: Vec<(String, String)>,
    pub reference_lock_file: Option<PathBuf>,
    pub no_update_lock_file: bool,
    pub impure: bool,
    pub accept_flake_config: bool,
    pub option: Vec<(String, String)>,
    pub eval_workers: Option<u32>,
    pub eval_max_memory_size: Option<u64>,
    pub eval_memory: Option<String>,
    pub refresh: bool,
    pub base: Option<String>,
    pub no_base: bool,
    pub ignore_revision: bool,
    pub no_ifd: bool,
    /// `--eval nix-eval-jobs`.
    pub eval_jobs: bool,
    pub attrs_from: Option<String>,
    pub file: Option<PathBuf>,
    pub arg: Vec<(String, String)>,
    pub argstr: Vec<(String, String)>,
    pub max_jobs: Option<String>,
    pub builders: Option<String>,
    pub builder_wait: Option<u64>,
    pub retries: Option<u32>,
    pub fail_fast: bool,
    pub max_failures: Option<u32>,
    pub timeout: Option<u64>,
    pub max_silent_time: Option<u64>,
    pub out_link: Option<PathBuf>,
    /// `--build` of `check`.
    pub build: bool,
    pub no_build: bool,
    pub strict: bool,
    pub allow_broken_base: bool,
    pub beside_nix: bool,
    /// `--plan`.
    pub plan: Option<PathBuf>,
    /// `--output` of `plan` and `matrix`.
    pub plan_output: Option<PathBuf>,
    pub download: bool,
    pub no_download: bool,
    pub push_to: Vec<String>,
    pub no_push: bool,
    pub require_complete: bool,
    /// `--verify-push=deep`.
    pub verify_push_deep: bool,
    pub push_deadline: Option<String>,
    pub offline: bool,
    pub strict_caches: bool,
    pub store: Option<String>,
    /// `--eval-store`.
    pub eval_store: Option<String>,
    pub events: Option<PathBuf>,
    pub result_file: Option<PathBuf>,
    /// `--report-dir`.
    pub report_dir: Option<PathBuf>,
    pub result_format: Option<String>,
    pub state_dir: Option<PathBuf>,
    pub json: bool,
    pub print_out_paths: bool,
    pub print_build_logs: bool,
    pub verbose: u8,
}
