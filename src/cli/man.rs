//! `drover man`: manual pages, one a command, from the same definition as the help.

use std::io::{self, Write as _};
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::error::{Error, Fault, Result};

use super::args::{ALIASES, Cli};
use super::print;

/// What the page of drover says of exit codes.
const EXIT: &str = "\
0    all that was asked for exists, and is pushed where that was asked
1    a build failed, or what was to be verified does not hold
2    bad usage, config or credential; nothing was started
3    an attr does not evaluate
4    something could not be tried; repeating may help
5    all is built, and not all is pushed
70   a bug in drover
130  interrupted";

/// Heads the examples in the help of a command.
const EXAMPLES: &str = "Examples:\n";

/// Prints the page of drover, or writes all pages into a directory.
pub(super) fn man(dir: Option<&Path>) -> Result<u8> {
    let mut root = Cli::command();
    root.build();
    let bug = |error: io::Error| Error::new(Fault::Bug, format!("cannot make the manual: {error}"));
    let Some(dir) = dir else {
        print(&page(&root).map_err(bug)?)?;
        return Ok(0);
    };
    let cannot = |error: io::Error| {
        Error::new(Fault::Unreachable, format!("cannot write to {}: {error}", dir.display()))
            .hint("drover man | man -l -    to read it")
    };
    std::fs::create_dir_all(dir).map_err(cannot)?;
    for command in shown(&root) {
        let file = dir.join(format!("{}.1", full_name(command)));
        let text = page(command).map_err(bug)?;
        std::fs::File::create(file).and_then(|mut file| file.write_all(&text)).map_err(cannot)?;
    }
    Ok(0)
}

/// A command and all below it, but `help`, of which the pages take the place.
fn shown(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|below| below.get_name() != "help").flat_map(shown);
    std::iter::once(command).chain(below).collect()
}

/// `drover-cache-status`.
fn full_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// One page.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let version = format!("drover {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(version).manual("drover");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut out)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let more = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (notes, examples) = more.split_once(EXAMPLES).unwrap_or((&more, ""));
    verbatim("NOTES", notes, &mut out)?;
    verbatim("EXAMPLES", examples, &mut out)?;
    if full_name(command) == "drover" {
        verbatim("FLAGS OF OTHER TOOLS", ALIASES, &mut out)?;
        verbatim("EXIT STATUS", EXIT, &mut out)?;
    } else {
        verbatim("SEE ALSO", "drover(1)", &mut out)?;
    }
    Ok(out)
}

/// A section whose lines stay as they are.
fn verbatim(heading: &str, text: &str, out: &mut Vec<u8>) -> io::Result<()> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    roff.control("nf", []);
    for line in text.trim_end().lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.to_writer(out)
}
