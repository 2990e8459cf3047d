//! What is tried again after which end: one table. Owns the rules; counting is in `state`.
//!
//! After Nix's result codes (worker protocol, `BuildResult::Status`) and Hydra's queue runner: what the builder's own
//! program said is final, what happened to the machine or on the way is not.
//!
//! Who does what: this table says whether and where a drv is tried again. That a builder takes nothing for a while (it
//! does not answer, its disk is full) is the driver's to say, with [`Input::BuilderDown`](super::Input::BuilderDown),
//! before it tells how the attempts there ended; and when it is tried again, with
//! [`Input::BuilderUp`](super::Input::BuilderUp). An attempt whose inputs were gone, or that only prepared on a builder
//! that takes nothing new, is no try at all.
//!
//! A drv that failed as `build` and was built by a later attempt is flaky: both attempts are facts of the record.

use crate::event::Class;

use super::item::Policy;

/// Where and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// At once, on another builder if one is up that can take it, else on the same.
    Elsewhere,
    /// As `Elsewhere`, where fewer drvs build than did beside it.
    Calmer,
    /// Anywhere, after this many seconds, three times as many before each further try after the same end.
    After(u32),
    /// Not at all.
    Never,
}

/// How often to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Once for this class, if the policy allows a retry at all.
    Once,
    /// As often as the policy says, all classes but `Lost` together.
    Policy,
    /// Four times as often: builders that go away say nothing about the drv.
    Lost,
    /// As often as the policy says of genuine failures: not, unless somebody asked for it.
    Asked,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Where and when.
    pub again: Again,
    /// How often.
    pub limit: Limit,
}

impl Retry {
    /// Whether a drv may be tried again that was tried again after these ends before.
    #[must_use]
    pub fn allows(self, class: Class, before: &[Class], policy: &Policy) -> bool {
        let many = |limit: fn(Limit) -> bool| {
            let count = before.iter().filter(|class| limit(retry_of(**class).limit)).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let common = || many(|limit| limit != Limit::Lost) < policy.retries.max(policy.retry_failures);
        let allowed = match self.limit {
            Limit::Once => policy.retries > 0 && !before.contains(&class) && common(),
            Limit::Policy => policy.retries > 0 && common(),
            Limit::Lost => many(|limit| limit == Limit::Lost) < policy.retries.saturating_mul(4),
            Limit::Asked => many(|limit| limit == Limit::Asked) < policy.retry_failures && common(),
        };
        self.again != Again::Never && allowed
    }

    /// Whether an end of this class says something about the drv, and not only about where it was built.
    #[must_use]
    pub fn is_verdict(self) -> bool {
        self.again == Again::Never || self.limit == Limit::Asked
    }
}

const fn row(again: Again, limit: Limit) -> Retry {
    Retry { again, limit }
}

/// The table.
#[must_use]
pub fn retry_of(class: Class) -> Retry {
    match class {
        // Most often the kernel's out-of-memory killer: another machine may have more, or it was busy.
        Class::Signal => row(Again::Calmer, Limit::Once),
        // "Anything else" in Nix's words; a machine in a strange state is left alone.
        Class::Internal => row(Again::Elsewhere, Limit::Once),
        // The builder refused it (platform, features, max-jobs 0): it is not what its configuration says.
        Class::NoBuilder => row(Again::Elsewhere, Limit::Once),
        // That store trusts no key of an input; another may.
        Class::Signature => row(Again::Elsewhere, Limit::Once),
        Class::BuilderLost => row(Again::Elsewhere, Limit::Lost),
        Class::DiskFull => row(Again::Elsewhere, Limit::Policy),
        // An input was collected there or did not arrive: inputs are copied anew.
        Class::Dependency => row(Again::After(0), Limit::Policy),
        // Servers that were asked for sources, and caches, come back.
        Class::Network => row(Again::After(5), Limit::Policy),
        Class::Cache => row(Again::After(2), Limit::Policy),
        // What the drv did by itself. It may be flaky, and somebody may want to know.
        Class::Build | Class::NoOutput | Class::Timeout | Class::Silent => row(Again::After(0), Limit::Asked),
        Class::HashMismatch
        | Class::DisallowedReference
        | Class::LogLimit
        | Class::Policy
        | Class::Cancelled
        | Class::Eval
        | Class::Oom => row(Again::Never, Limit::Policy),
    }
}
