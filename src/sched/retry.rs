//! What is tried again after which end: one table. Owns the rules; counting is in `state`.
//!
//! After Nix's result codes (worker protocol, `BuildResult::Status`) and Hydra's queue runner: what the builder's own
//! program said is final, what happened to the machine or on the way is not.

use crate::event::Class;

/// Where and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// At once, on another builder if one is up that can take it, else on the same.
    Elsewhere,
    /// Anywhere, after this many seconds, three times as many before each further try.
    After(u32),
    /// Not at all.
    Never,
}

/// How often to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Once for this class, if the policy allows a retry at all.
    Once,
    /// As often as the policy says.
    Policy,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Where and when.
    pub again: Again,
    /// How often.
    pub limit: Limit,
}

const fn row(again: Again, limit: Limit) -> Retry {
    Retry { again, limit }
}

/// The table.
#[must_use]
pub fn retry_of(class: Class) -> Retry {
    match class {
        // Most often the kernel's out-of-memory killer: another machine may have more, or it was busy.
        Class::Signal => row(Again::Elsewhere, Limit::Once),
        // "Anything else" in Nix's words; a machine in a strange state is left alone.
        Class::Internal => row(Again::Elsewhere, Limit::Once),
        // The builder refused it (platform, features, max-jobs 0): it is not what its configuration says.
        Class::NoBuilder => row(Again::Elsewhere, Limit::Once),
        // That store trusts no key of an input; another may.
        Class::Signature => row(Again::Elsewhere, Limit::Once),
        Class::BuilderLost => row(Again::Elsewhere, Limit::Policy),
        Class::DiskFull => row(Again::Elsewhere, Limit::Policy),
        // An input was collected there or did not arrive: inputs are copied anew.
        Class::Dependency => row(Again::After(0), Limit::Policy),
        // Servers that were asked for sources, and caches, come back.
        Class::Network => row(Again::After(5), Limit::Policy),
        Class::Cache => row(Again::After(2), Limit::Policy),
        Class::Build
        | Class::NoOutput
        | Class::HashMismatch
        | Class::DisallowedReference
        | Class::Timeout
        | Class::Silent
        | Class::LogLimit
        | Class::Policy
        | Class::Cancelled
        | Class::Eval
        | Class::Oom => row(Again::Never, Limit::Policy),
    }
}
