//! Words in, [`Settings`](crate::config::Settings) out: one file a command. Only here is anything printed on stdout.

mod args;
mod home;
mod log;
mod report;
mod run;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Parser as _;

use crate::config::{DROVER_LOG, Env, Terminal};
use crate::driver::clock::Clock;
use crate::error::{Error, Result, exit_code};
use crate::report::text::{Line, Paint, Style, render};

use args::{Cli, Command};

/// What every command is given.
struct Session {
    env: Env,
    terminal: Terminal,
    clock: Clock,
}

impl Session {
    /// How text on stderr may look.
    fn style(&self) -> Style {
        Style { colour: self.terminal.colour, ascii: self.terminal.ascii }
    }

    /// How text on stdout may look.
    fn stdout_style(&self) -> Style {
        use std::io::IsTerminal as _;
        Style { colour: self.terminal.colour && std::io::stdout().is_terminal(), ascii: self.terminal.ascii }
    }

    /// Columns of the screen for text that is not live.
    fn width(&self) -> usize {
        self.terminal.width.or_else(crate::ui::width).unwrap_or(crate::ui::WIDTH)
    }
}

/// The whole program; gives the exit code.
#[must_use]
pub fn main() -> u8 {
    let clock = Clock::start();
    let env = Env::of_process();
    let terminal = Terminal::of_stderr(&env);
    trace(&env);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows where each is printed.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let session = Session { env, terminal, clock };
    match dispatch(&session, cli) {
        Ok(exit) => exit,
        Err(error) => {
            say(&error_lines(&error), session.style());
            exit_code(&[error.fault])
        }
    }
}

fn dispatch(session: &Session, cli: Cli) -> Result<u8> {
    match cli.command {
        None => home::home(session, &cli.place),
        Some(Command::Run(args)) => run::run(session, *args, &cli.place),
        Some(Command::Plan(args)) => run::plan(session, *args, &cli.place),
        Some(Command::Log(args)) => log::log(session, &args, &cli.place),
        Some(Command::Report(args)) => report::report(session, &args, &cli.place),
    }
}

/// `DROVER_LOG=drover=debug`: what developers read, on stderr.
fn trace(env: &Env) {
    if let Some(filter) = env.get(DROVER_LOG) {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}

/// An error as people read it: a sentence, and a way out.
fn error_lines(error: &Error) -> Vec<Line> {
    let mut text = error.message.lines();
    let mut lines = vec![Line::new().paint(Paint::Bad, "error:").text(format!(" {}", text.next().unwrap_or_default()))];
    lines.extend(text.map(|line| Line::new().text(format!("  {line}"))));
    if let Some(hint) = &error.hint {
        let mut hint = hint.lines();
        let first = hint.next().unwrap_or_default();
        lines.push(Line::new().text("  ").paint(Paint::Dim, "hint:").text(format!(" {first}")));
        lines.extend(hint.map(|line| Line::new().text(format!("        {line}"))));
    }
    lines
}

/// Where records are.
fn state_dir(session: &Session, flag: Option<&Path>) -> Result<PathBuf> {
    flag.map(Path::to_owned).or_else(|| session.env.state_dir()).ok_or_else(|| {
        Error::usage("no place for records: neither HOME nor DROVER_STATE_DIR is set").hint("drover --state-dir DIR")
    })
}

/// Prints on stderr. That nobody reads it is no reason to fail.
fn say(lines: &[Line], style: Style) {
    let _ = std::io::stderr().write_all(render(lines, style).as_bytes());
}

/// Prints what was asked for. A reader that has seen enough (`| head`) is no error.
fn print(text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(crate::error::Fault::Unreachable, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints one JSON document.
fn print_json(document: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(document)
        .map_err(|error| Error::new(crate::error::Fault::Bug, format!("cannot write JSON: {error}")))?;
    text.push(b'\n');
    print(&text)
}
