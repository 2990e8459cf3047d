//! `drover init`: a drover.toml of what is found here, and the workflow for a forge.
//!
//! | file | owns |
//! |---|---|
//! | `toml` | the text of drover.toml |
//! | `workflow` | what a workflow has to know, whatever the forge |
//! | `actions` | the workflow for GitHub and Forgejo |
//! | `gitlab` | the pipeline for GitLab |

mod actions;
mod gitlab;
mod toml;
mod workflow;

use std::path::{Path, PathBuf};

use crate::config::{self, File, Forge, Settings, Words};
use crate::error::{Error, Fault, Result};
use crate::report::text::{Line, Paint};

use super::args::{CiForge, InitArgs, Place};
use super::{Session, home, print, say};

use workflow::{Binary, Workflow};

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    /// Below the directory of the flake, or, for workflows, the root of the repository.
    path: PathBuf,
    text: String,
}

/// Writes the files, or prints them.
pub(super) fn init(session: &Session, args: &InitArgs, place: &Place) -> Result<u8> {
    let Some(flake) = home::flake_here() else {
        return Err(Error::usage("there is no flake.nix here or above").hint("nix flake init    makes one"));
    };
    let root = config::work_tree(&flake).unwrap_or_else(|| flake.clone());
    let mut files = Vec::new();
    let toml = flake.join("drover.toml");
    let mut said = Vec::new();
    if toml.exists() && args.ci.is_some() && !args.force {
        said.push(left(&toml));
    } else {
        let facts = super::run::block_on(async { Ok(home::gather(session, place).await) })?;
        files.push(Written { path: toml, text: toml::text(&facts) });
    }
    if let Some(forge) = args.ci {
        let workflow = workflow(session, args, place, &flake, &root)?;
        if let Binary::Flake { why, .. } = &workflow.binary {
            said.push(Line::new().paint(Paint::Warn, "warning").text(format!("   {why}")));
            said.push(Line::new().text("          hint: drover init --ci FORGE --sha256 HEX    as the release says"));
        }
        files.extend(match forge {
            CiForge::Github => actions::files(&workflow, Forge::Github),
            CiForge::Forgejo => actions::files(&workflow, Forge::Forgejo),
            CiForge::Gitlab => gitlab::files(&workflow),
        });
    }
    if args.dry_run {
        let shown = |file: &Written| {
            let path = file.path.strip_prefix(&flake).unwrap_or(&file.path);
            format!("# {}\n{}", path.display(), file.text)
        };
        print(files.iter().map(shown).collect::<Vec<_>>().join("\n").as_bytes())?;
        return Ok(0);
    }
    let files: Vec<Written> = files.into_iter().map(|file| Written { path: root.join(&file.path), ..file }).collect();
    if let Some(file) = files.iter().find(|file| file.path.exists() && !args.force) {
        return Err(Error::usage(format!("{} is there already", file.path.display()))
            .hint("drover init --dry-run    prints what would be written; --force writes over it"));
    }
    for file in &files {
        write(file)?;
        said.push(Line::new().paint(Paint::Good, "wrote").text(format!("     {}", file.path.display())));
    }
    said.extend(next(args, &root));
    say(&said, session.style());
    Ok(0)
}

fn left(file: &Path) -> Line {
    Line::from(format!("left      {}, which is there already", file.display()))
}

/// What to type now.
fn next(args: &InitArgs, root: &Path) -> Vec<Line> {
    let mut lines = vec![Line::new(), Line::new().paint(Paint::Bold, "Next:")];
    let mut add = |typed: &str, what: &str| lines.push(Line::from(format!("  {typed}")).pad(34).text(what));
    if args.ci.is_none() {
        add("drover plan", "what would be built, fetched and pushed, and for how long");
        let forge = config::origin(root).and_then(|url| Forge::of_remote(&url));
        // Gitea reads GitHub's folder, and not Forgejo's.
        let forge = forge.filter(|forge| *forge != Forge::Gitea).map_or("github", Forge::name);
        add(&format!("drover init --ci {forge}"), "the workflow that does so in CI");
    } else {
        add("git add --all && git commit", "the forge runs it from the next push on");
        add("drover doctor", "check nix, builders, caches, keys");
    }
    lines
}

fn write(file: &Written) -> Result<()> {
    let dir = file.path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&file.path, &file.text)).map_err(|error| {
        Error::new(Fault::Unreachable, format!("cannot write {}: {error}", file.path.display()))
            .hint("drover init --dry-run    prints it")
    })
}

/// What the workflow has to know.
fn workflow(session: &Session, args: &InitArgs, place: &Place, flake: &Path, root: &Path) -> Result<Workflow> {
    let file = File::in_dir(flake)?;
    let words = Words { state_dir: place.state_dir.clone(), ..Words::default() };
    let settings = Settings::resolve(words, &session.env, file)?;
    let dir = flake.strip_prefix(root).unwrap_or(Path::new(""));
    if !dir.as_os_str().is_empty() {
        return Err(Error::usage(format!(
            "the flake is in {} of the repository, and workflows are for its root",
            dir.display()
        ))
        .hint("drover init    there; the workflow needs `working-directory` in each step"));
    }
    Ok(Workflow {
        binary: Binary::choose(args.sha256.as_deref())?,
        branch: config::default_branch(root).unwrap_or_else(|| "main".to_owned()),
        secrets: workflow::secrets(&settings),
        pushes: settings.caches.iter().any(|cache| cache.push != crate::config::PushWhen::No),
        matrix: args.matrix,
    })
}
