//! The files that a run leaves where it was told to: links to results, or a plan.

use std::sync::Arc;

use crate::id::StorePath;
use crate::report::summary::Summary;
use crate::store::cache::Cache;

use super::context::Context;
use super::input::Input;
use super::{links, plan_file};

/// How far they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Results {
    /// It is not known yet what there is to leave.
    #[default]
    NotYet,
    /// Being written.
    Making,
    /// There, or there is nothing to leave.
    Done,
}

impl Results {
    /// `--out-link`, for these outputs by name of each attr.
    pub(super) fn link(ctx: &mut Context, outputs: &[Vec<(String, StorePath)>]) -> Self {
        let Some(prefix) = &ctx.settings.build.out_link else { return Self::Done };
        let (pool, links) = (ctx.pool.clone(), links::names(prefix, outputs));
        if links.is_empty() {
            return Self::Done;
        }
        ctx.tasks.start(async move { Input::Linked(links::make(&pool, links).await.map(drop)) });
        Self::Making
    }

    /// The plan's file, if one was asked for.
    pub(super) fn write_plan(ctx: &mut Context, caches: Vec<Arc<Cache>>) -> Self {
        let Some(file) = ctx.settings.plan.write.clone() else { return Self::Done };
        let writing = plan_file::Writing {
            file,
            head: plan_file::head(&Summary::of(ctx.bus.events())),
            store: ctx.eval_store.clone(),
            plan: ctx.plan.clone(),
            roots: ctx.eval_roots.clone(),
            caches,
            of_nix: ctx.caches.of_nix(),
        };
        ctx.tasks.start(async move { Input::Written(plan_file::write(writing).await) });
        Self::Making
    }
}
