//! What a run is to do: [`Settings`], from flags, the environment, `drover.toml` and defaults, in this order of weight.
//!
//! Words are turned into settings here and nowhere else; the environment is read here and nowhere else. What only Nix
//! knows (max-jobs, substituters) is asked by `store` and filled in by the driver where a setting is `None`.

mod address;
pub mod amount;
mod branch;
pub mod builders;
mod collector;
mod env;
mod file;
mod forge;
pub mod machines;
mod near;
mod settings;
mod shown;
mod terminal;

pub use address::{Address, Way};
pub use branch::{default_branch, origin, work_tree};
pub use builders::{BuilderSettings, FarmSettings, Secret, SshSettings};
pub use collector::Collector;
pub use env::{DROVER_LOG, Env, LoginVars, PullRequest};
pub use file::{File, FileError, Stranger};
pub use forge::{Forge, Whereabouts};
pub(crate) use near::nearest;
pub use settings::{
    AttrSettings, BaseSettings, BuildSettings, CacheSettings, CheckBuild, CheckSettings, EvalSettings, GoalSettings,
    LeaveOut, NotifySettings, NotifyTo, Origin, OutputSettings, PlanSettings, PushSettings, PushWhen, Quarantine,
    ReadBack, ResultFile, ResultFormat, Settings, ShareSettings, Words, is_for_nix,
};
pub use shown::{Shown, public_url, shown};
pub use terminal::Terminal;
