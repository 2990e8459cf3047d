//! `drover completions`: what shells offer while somebody types, from the same definition as the help.

use clap::CommandFactory as _;

use crate::error::Result;

use super::args::{Cli, Shell};
use super::print;

/// Prints the completions for a shell.
pub(super) fn completions(shell: Shell) -> Result<u8> {
    let mut root = Cli::command();
    let mut text = Vec::new();
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(shell, &mut root, "drover", &mut text);
    print(&text)?;
    Ok(0)
}
