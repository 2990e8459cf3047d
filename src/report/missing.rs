//! Why no cache has something: one reason of a closed list, from what the caches say now and what earlier runs did.

use super::past::{Had, Past, PushEnd};

/// All that is known about the outputs of a drv.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// No cache was asked, and why.
    pub disabled: Option<Disabled>,
    /// Its output paths are only known after building.
    pub opaque: bool,
    /// What each cache said, by name.
    pub said: Vec<(String, Said)>,
    /// What earlier runs did, the newest first.
    pub past: Vec<Past>,
}

/// Why no cache is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disabled {
    /// `--offline`.
    Offline,
    /// `substitute = false` in Nix's settings.
    Setting,
    /// `allowSubstitutes = false` in the derivation.
    Derivation,
    /// There is none to ask.
    NoCache,
}

/// What a cache said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It has it.
    Present {
        /// Bytes as NAR.
        nar_size: u64,
    },
    /// It does not have it.
    Absent,
    /// It has it, signed by these keys, none of which the store trusts.
    Untrusted {
        /// Their names.
        keys: Vec<String>,
    },
    /// It gave no answer.
    NoAnswer {
        /// Why.
        message: String,
    },
}

/// Why no cache has something. A closed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No cache is asked.
    Disabled(Disabled),
    /// A cache did not answer.
    NoAnswer {
        /// Which.
        cache: String,
        /// Why.
        message: String,
    },
    /// A cache has it, and the store does not take it from there.
    UntrustedKey {
        /// Which.
        cache: String,
        /// The keys that signed it.
        keys: Vec<String>,
    },
    /// A run was to push it, and could not.
    PushFailed {
        /// Which run.
        run: String,
        /// To which cache.
        cache: String,
        /// Why.
        message: String,
    },
    /// A cache had it, and has lost it since.
    Pruned {
        /// The run that saw it there last.
        run: String,
        /// The cache, where the run says which.
        cache: Option<String>,
        /// The run had pushed it and read it back.
        pushed: bool,
    },
    /// A run left it out of its push, because another cache had it.
    Filtered {
        /// Which run.
        run: String,
    },
    /// A run had it, and pushed to no cache.
    NeverPushed {
        /// Which run.
        run: String,
        /// The run built it; else it was in the store.
        built: bool,
    },
    /// No run on record had it.
    NewDrv {
        /// The last run that tried, and what it died of.
        tried: Option<(String, String)>,
    },
    /// Nobody can ask a cache for it: its output paths are only known after building.
    Opaque,
}

impl Reason {
    /// The word in JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Disabled(_) => "substitution_disabled",
            Self::NoAnswer { .. } => "no_answer",
            Self::UntrustedKey { .. } => "untrusted_key",
            Self::PushFailed { .. } => "push_failed",
            Self::Pruned { .. } => "pruned",
            Self::Filtered { .. } => "filtered",
            Self::NeverPushed { .. } => "never_pushed",
            Self::NewDrv { .. } => "new_drv",
            Self::Opaque => "opaque",
        }
    }

    /// The run that is the evidence.
    #[must_use]
    pub fn run(&self) -> Option<&str> {
        match self {
            Self::PushFailed { run, .. }
            | Self::Pruned { run, .. }
            | Self::Filtered { run }
            | Self::NeverPushed { run, .. } => Some(run),
            Self::NewDrv { tried } => tried.as_ref().map(|(run, _)| run.as_str()),
            Self::Disabled(_) | Self::NoAnswer { .. } | Self::UntrustedKey { .. } | Self::Opaque => None,
        }
    }

    /// The cache that is the evidence.
    #[must_use]
    pub fn cache(&self) -> Option<&str> {
        match self {
            Self::NoAnswer { cache, .. } | Self::UntrustedKey { cache, .. } | Self::PushFailed { cache, .. } => {
                Some(cache)
            }
            Self::Pruned { cache, .. } => cache.as_deref(),
            _ => None,
        }
    }

    /// For people, one line.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Disabled(Disabled::Offline) => "no cache is asked: --offline".to_owned(),
            Self::Disabled(Disabled::Setting) => "no cache is asked: substitute = false in Nix's settings".to_owned(),
            Self::Disabled(Disabled::Derivation) => {
                "no cache is asked: the derivation says allowSubstitutes = false".to_owned()
            }
            Self::Disabled(Disabled::NoCache) => "no cache is asked: none is configured".to_owned(),
            Self::NoAnswer { cache, message } => format!("{cache} gives no answer: {message}"),
            Self::UntrustedKey { cache, keys } if keys.is_empty() => {
                format!("{cache} has it, signed by nobody; this store wants a signature")
            }
            Self::UntrustedKey { cache, keys } => {
                format!("{cache} has it, signed by {}, which this store does not trust", keys.join(", "))
            }
            Self::PushFailed { run, cache, message } => format!("push to {cache} failed in run {run}: {message}"),
            Self::Pruned { run, cache, pushed: true } => {
                let cache = cache.as_deref().unwrap_or("a cache");
                format!("gone from {cache}: run {run} had pushed it there and read it back")
            }
            Self::Pruned { run, cache: Some(cache), pushed: false } => {
                format!("gone from {cache}: run {run} saw it there")
            }
            Self::Pruned { run, cache: None, pushed: false } => format!("gone: a cache had it in run {run}"),
            Self::Filtered { run } => {
                format!("run {run} left it out of its push: another cache had it then, and has it no more")
            }
            Self::NeverPushed { run, built: true } => {
                format!("never pushed: run {run} built it and pushed to no cache")
            }
            Self::NeverPushed { run, built: false } => {
                format!("never pushed: run {run} had it in the store and pushed to no cache")
            }
            Self::NewDrv { tried: None } => "new: no run on record has built it".to_owned(),
            Self::NewDrv { tried: Some((run, why)) } => format!("never built: run {run} tried ({why})"),
            Self::Opaque => "no cache can be asked: its output paths are only known after building".to_owned(),
        }
    }

    /// What to type, if there is something. `attr` is what was asked about, `name` the drv; `here`: it is in this store.
    #[must_use]
    pub fn hint(&self, attr: &str, name: &str, here: bool) -> Option<String> {
        match self {
            Self::NeverPushed { run, .. } if here => Some(format!("drover push --run {run} --push-to CACHE")),
            Self::PushFailed { run, .. } if here => Some(format!("drover push --run {run}")),
            Self::NeverPushed { .. } => Some(format!("drover run {attr} --push-to CACHE")),
            Self::UntrustedKey { .. } | Self::NoAnswer { .. } => Some("drover doctor".to_owned()),
            Self::Disabled(Disabled::Setting | Disabled::NoCache) => Some("drover doctor --show-config".to_owned()),
            Self::NewDrv { tried: Some(_) } => Some(format!("drover log {name}")),
            Self::PushFailed { .. }
            | Self::Pruned { .. }
            | Self::Filtered { .. }
            | Self::Disabled(_)
            | Self::NewDrv { tried: None }
            | Self::Opaque => None,
        }
    }
}

/// The reason; `None` if a cache has it. What is so now goes before what was: a cache that does not answer may well
/// have it.
#[must_use]
pub fn reason(evidence: &Evidence) -> Option<Reason> {
    if let Some(disabled) = evidence.disabled {
        return Some(Reason::Disabled(disabled));
    }
    if evidence.opaque {
        return Some(Reason::Opaque);
    }
    if evidence.said.iter().any(|(_, said)| matches!(said, Said::Present { .. })) {
        return None;
    }
    let no_answer = evidence.said.iter().find_map(|(cache, said)| match said {
        Said::NoAnswer { message } => Some(Reason::NoAnswer { cache: cache.clone(), message: message.clone() }),
        _ => None,
    });
    let untrusted = evidence.said.iter().find_map(|(cache, said)| match said {
        Said::Untrusted { keys } => Some(Reason::UntrustedKey { cache: cache.clone(), keys: keys.clone() }),
        _ => None,
    });
    // What happened later outweighs what happened before.
    let before = || evidence.past.iter().find_map(of_past);
    let tried = || {
        evidence.past.iter().find_map(|past| match &past.had {
            Had::NotBuilt(why) => Some((past.run.clone(), why.clone())),
            _ => None,
        })
    };
    Some(no_answer.or(untrusted).or_else(before).unwrap_or_else(|| Reason::NewDrv { tried: tried() }))
}

/// What one run has to say; `None` if it neither had it nor saw it.
fn of_past(past: &Past) -> Option<Reason> {
    let run = past.run.clone();
    let failed = past.pushes.iter().find_map(|push| match &push.end {
        PushEnd::There => None,
        PushEnd::Missing => Some((push.cache.clone(), "it was not there when it was read back".to_owned())),
        PushEnd::Failed(message) => Some((push.cache.clone(), message.clone())),
    });
    let there = past.pushes.iter().find(|push| push.end == PushEnd::There);
    if let Some(there) = there {
        return Some(Reason::Pruned { run, cache: Some(there.cache.clone()), pushed: true });
    }
    if let Some((cache, message)) = failed {
        return Some(Reason::PushFailed { run, cache, message });
    }
    match (&past.had, past.pushed_to.first()) {
        (Had::NotBuilt(_) | Had::Pushed, _) => None,
        (Had::Cached(cache), _) => Some(Reason::Pruned { run, cache: cache.clone(), pushed: false }),
        (had, None) => Some(Reason::NeverPushed { run, built: *had == Had::Built }),
        (Had::Valid, Some(_)) if past.push_ended => Some(Reason::Filtered { run }),
        (_, Some(cache)) => {
            let message = "the run ended before".to_owned();
            Some(Reason::PushFailed { run, cache: cache.clone(), message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::past::Push;

    fn past(had: Had, pushed_to: &[&str], pushes: &[(&str, PushEnd)]) -> Past {
        Past {
            run: "R".into(),
            had,
            pushed_to: pushed_to.iter().map(|name| (*name).to_owned()).collect(),
            pushes: pushes.iter().map(|(cache, end)| Push { cache: (*cache).to_owned(), end: end.clone() }).collect(),
            push_ended: true,
        }
    }

    fn said(said: Said) -> Evidence {
        Evidence { said: vec![("other".into(), Said::Absent), ("acme".into(), said)], ..Evidence::default() }
    }

    fn word(evidence: &Evidence) -> &'static str {
        reason(evidence).map_or("none", |reason| reason.word())
    }

    fn before(past: Past) -> &'static str {
        word(&Evidence { past: vec![past], ..said(Said::Absent) })
    }

    #[test]
    fn each_reason_follows_from_its_evidence() {
        assert_eq!(word(&said(Said::Present { nar_size: 1 })), "none");
        assert_eq!(word(&said(Said::Absent)), "new_drv");
        assert_eq!(word(&said(Said::NoAnswer { message: "HTTP 500".into() })), "no_answer");
        assert_eq!(word(&said(Said::Untrusted { keys: vec!["k-1".into()] })), "untrusted_key");
        for disabled in [Disabled::Offline, Disabled::Setting, Disabled::Derivation, Disabled::NoCache] {
            assert_eq!(word(&Evidence { disabled: Some(disabled), ..Evidence::default() }), "substitution_disabled");
        }
        assert_eq!(word(&Evidence { opaque: true, ..said(Said::Absent) }), "opaque");
        assert_eq!(before(past(Had::Built, &[], &[])), "never_pushed");
        assert_eq!(before(past(Had::Valid, &[], &[])), "never_pushed");
        assert_eq!(before(past(Had::Built, &["acme"], &[("acme", PushEnd::Failed("full".into()))])), "push_failed");
        assert_eq!(before(past(Had::Built, &["acme"], &[("acme", PushEnd::Missing)])), "push_failed");
        assert_eq!(before(past(Had::Built, &["acme"], &[])), "push_failed");
        assert_eq!(before(past(Had::Built, &["acme"], &[("acme", PushEnd::There)])), "pruned");
        assert_eq!(before(past(Had::Cached(None), &[], &[])), "pruned");
        assert_eq!(before(past(Had::Valid, &["acme"], &[])), "filtered");
        assert_eq!(before(past(Had::NotBuilt("exit code 1".into()), &["acme"], &[])), "new_drv");
    }

    #[test]
    fn what_is_so_now_goes_before_what_was_and_later_runs_before_earlier_ones() {
        let pushed = past(Had::Built, &["acme"], &[("acme", PushEnd::There)]);
        let failed = past(Had::Built, &["acme"], &[("acme", PushEnd::Failed("full".into()))]);
        let silent = said(Said::NoAnswer { message: "HTTP 500".into() });
        assert_eq!(word(&Evidence { past: vec![pushed.clone()], ..silent }), "no_answer");
        let both = Evidence { past: vec![failed, pushed], ..said(Said::Absent) };
        assert_eq!(word(&both), "push_failed");
        let tried = Evidence { past: vec![past(Had::NotBuilt("exit code 1".into()), &[], &[])], ..said(Said::Absent) };
        assert_eq!(reason(&tried).unwrap().text(), "never built: run R tried (exit code 1)");
    }
}
