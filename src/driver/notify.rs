//! Telling of failures and recoveries. Nothing depends on it: it has a few seconds, and that it did not work is a
//! warning.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;

use crate::config::{NotifySettings, NotifyTo, Secret};
use crate::event::Fact;
use crate::process::Cmd;
use crate::record::history::{Depth, Entry, Filter, History};
use crate::report::entry;
use crate::report::notify::{self, News};
use crate::report::summary::Summary;
use crate::store::post::{Post, post};

use super::context::Context;
use super::{Driver, Mode};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(15);

impl Driver {
    /// Tells whoever is to be told, if this run is news.
    pub(super) async fn notify(&mut self, exit: u8) {
        let all = &self.ctx.settings.notify;
        if all.is_empty() || !matches!(self.mode, Mode::Run | Mode::Check) {
            return;
        }
        let mut summary = Summary::of(self.ctx.bus.events());
        // It is said by the last event, which has to wait for this.
        summary.exit = Some(exit);
        let Some(entry) = entry::of(&summary) else { return };
        let Some(news) = notify::news(exit, before(&self.ctx, &entry).as_ref()) else { return };
        let wants = |one: &&NotifySettings| {
            let of_branch = one.branches.is_empty() || entry.branch.as_ref().is_some_and(|b| one.branches.contains(b));
            of_branch && if news == News::Failure { one.failure } else { one.recovery }
        };
        let told: Vec<NotifySettings> = all.iter().filter(wants).cloned().collect();
        let ca_file = self.ctx.store.settings().ca_file();
        let said =
            Said { text: notify::text(news, &summary, &entry), document: notify::document(news, &summary, &entry) };
        let sent = told.iter().map(|one| send(one, &said, ca_file.as_deref()));
        let failed = join_all(sent).await.into_iter().zip(&told).filter_map(|(sent, one)| Some((sent.err()?, one)));
        for (why, NotifySettings { name, .. }) in failed {
            let message = format!("[notify.{name}] was not told of this run: {why}").into();
            let hint = Some("the record is complete: drover report".into());
            self.ctx.bus.emit(Fact::Warning { message, hint });
        }
    }
}

/// The last run like this one.
fn before(ctx: &Context, entry: &Entry) -> Option<Entry> {
    let history = History::open(&ctx.settings.output.state_dir).ok()?;
    let (series, branch, before) = (Some(entry.series()), entry.branch.clone(), Some(entry.run));
    let filter = Filter { series, branch, before, ..Filter::default() };
    // One that was stopped says nothing.
    let all = history.entries(&filter, Depth::Numbers, 10).ok()?;
    all.into_iter().find(|entry| !matches!(entry.exit, Some(2 | 130)))
}

/// What is told.
struct Said {
    text: String,
    document: serde_json::Value,
}

async fn send(to: &NotifySettings, said: &Said, ca_file: Option<&std::path::Path>) -> Result<(), String> {
    let json = |value: &serde_json::Value| value.to_string().into_bytes();
    let send = async {
        match &to.to {
            NotifyTo::Slack(url) => {
                let body = json(&notify::slack(&said.text));
                let post_it = Post { url: url.expose(), token: None, headers: &[], body, ca_file };
                post(post_it).await.map_err(|error| error.to_string())
            }
            NotifyTo::Webhook { url, token } => {
                let token = token.as_ref().map(Secret::expose);
                let post_it = Post { url: url.expose(), token, headers: &[], body: json(&said.document), ca_file };
                post(post_it).await.map_err(|error| error.to_string())
            }
            NotifyTo::Command(words) => command(words, said).await,
        }
    };
    tokio::time::timeout(PATIENCE, send).await.unwrap_or_else(|_| Err("it took too long".to_owned()))
}

/// Runs a program with the document on its stdin.
async fn command(words: &[String], said: &Said) -> Result<(), String> {
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    let mut child =
        Cmd::new(program).args(args).env("DROVER_TEXT", &said.text).spawn().map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it knows enough.
        let _ = stdin.write_all(said.document.to_string().as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).map(|line| format!(": {}", line.trim()));
    Err(format!("{program} {}{}", crate::process::describe(output.status), last.unwrap_or_default()))
}
