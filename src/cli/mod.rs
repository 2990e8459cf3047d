//! Words in, [`Settings`](crate::config::Settings) out: one file a command. Only here is anything printed on stdout.

mod affected;
mod args;
mod audit;
mod cache;
mod check;
mod completions;
mod doctor;
mod forms;
mod home;
mod init;
mod live;
mod log;
mod man;
mod matrix;
mod push;
mod report;
mod run;
mod why;
mod words;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};

use crate::config::{DROVER_LOG, Env, Forge, Terminal};
use crate::driver::clock::Clock;
use crate::error::{Error, Fault, Result, exit_code};
use crate::report::annotations;
use crate::report::failure;
use crate::report::harmless;
use crate::report::text::{Line, Style, render};

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
        Style { colour: self.terminal.colour, ascii: self.terminal.ascii, harmless: self.terminal.log }
    }

    /// How text on stdout may look.
    fn stdout_style(&self) -> Style {
        use std::io::IsTerminal as _;
        let is_terminal = std::io::stdout().is_terminal();
        Style {
            colour: self.terminal.colour && is_terminal,
            ascii: self.terminal.ascii,
            harmless: !is_terminal || self.env.is_ci(),
        }
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
    trace(&env, terminal.colour);
    let session = Session { env, terminal, clock };
    let done = match Cli::try_parse() {
        Ok(cli) => dispatch(&session, cli),
        // Help and version are no errors; clap knows how they are printed.
        Err(asked) if !asked.use_stderr() => {
            let _ = asked.print();
            Ok(0)
        }
        Err(error) => Err(words::error(
            &error,
            &std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        )),
    };
    match done {
        Ok(exit) => exit,
        Err(error) => {
            let width = if session.terminal.live { session.width() } else { usize::MAX };
            if !session.terminal.live && session.env.forge().is_some_and(Forge::takes_annotations) {
                let said = annotations::commands(&[annotations::of_error(&error)]);
                let _ = std::io::stderr().write_all(said.as_bytes());
            }
            say(&failure::fatal(&error.message, error.hint.as_deref(), width), session.style());
            exit_code(&[error.fault])
        }
    }
}

fn dispatch(session: &Session, cli: Cli) -> Result<u8> {
    match cli.command {
        None => home::home(session, &cli.place),
        Some(Command::Run(args)) => run::run(session, *args, &cli.place),
        Some(Command::Check(args)) => check::check(session, *args, &cli.place),
        Some(Command::Plan(args)) => run::plan(session, *args, &cli.place),
        Some(Command::Matrix(args)) => matrix::matrix(session, *args, &cli.place),
        Some(Command::Why(args)) => why::why(session, *args, &cli.place),
        Some(Command::Affected(args)) => affected::affected(session, *args, &cli.place),
        Some(Command::Cache(args)) => cache::cache(session, args.command, &cli.place),
        Some(Command::Push(args)) => push::push(session, &args, &cli.place),
        Some(Command::Log(args)) => log::log(session, &args, &cli.place),
        Some(Command::Doctor(args)) => doctor::doctor(session, args, &cli.place),
        Some(Command::Report(args)) => report::report(session, &args, &cli.place),
        Some(Command::Init(args)) => init::init(session, &args, &cli.place),
        Some(Command::Completions(args)) => completions::completions(args.shell),
        Some(Command::Man(args)) => man::man(args.dir.as_deref()),
        Some(Command::Help(args)) => help(args.topic.as_deref()),
    }
}

/// `drover help`, `drover help run`, `drover help aliases`.
fn help(topic: Option<&str>) -> Result<u8> {
    let mut root = Cli::command();
    root.build();
    let text = match topic {
        None => root.render_help().to_string(),
        Some("aliases") => args::ALIASES.to_owned(),
        Some(topic) => match root.find_subcommand_mut(topic) {
            Some(command) => command.render_help().to_string(),
            None => return Err(words::no_topic(topic)),
        },
    };
    print(text.as_bytes())?;
    Ok(0)
}

/// `DROVER_LOG=drover=debug`: what developers read, on stderr.
fn trace(env: &Env, colour: bool) {
    if let Some(filter) = env.get(DROVER_LOG) {
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
    }
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
            Err(Error::new(Fault::Unreachable, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one JSON document to a file.
fn write_json(document: &impl serde::Serialize, file: &Path) -> Result<()> {
    let text = serde_json::to_vec_pretty(document)
        .map_err(|error| Error::new(Fault::Bug, format!("cannot write JSON: {error}")))?;
    write_file(file, &text)
}

/// Writes a file so that whoever reads it meanwhile sees the old one or the new one, whole: collectors of metrics do.
/// Where a symlink is, the file takes its place: it may have come with somebody's branch and lead anywhere.
fn write_file(file: &Path, bytes: &[u8]) -> Result<()> {
    let cannot = |error: std::io::Error| {
        Error::new(Fault::Unreachable, format!("cannot write {}: {error}", file.display()))
            .hint("drover report --format FORMAT --output FILE")
    };
    // What is no plain file (a pipe, /dev/stdout) cannot be replaced.
    if file.exists() && !file.is_file() {
        return std::fs::write(file, bytes).map_err(cannot);
    }
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let readable = std::fs::Permissions::from_mode(0o644);
    let mut whole = tempfile::Builder::new().permissions(readable).tempfile_in(dir).map_err(cannot)?;
    whole.write_all(bytes).map_err(cannot)?;
    whole.persist(file).map_err(|error| cannot(error.error))?;
    Ok(())
}

/// Prints one JSON document.
fn print_json(document: &impl serde::Serialize) -> Result<()> {
    print(json_text(document)?.as_bytes())
}

/// One JSON document, in which a CI system finds none of its commands.
fn json_text(document: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Error::new(Fault::Bug, format!("cannot write JSON: {error}")))?;
    Ok(format!("{}\n", harmless::json(&text)))
}

/// Prints foreign text; where a CI system may read it, so that it finds none of its commands.
fn print_foreign(session: &Session, text: &[u8]) -> Result<()> {
    if !session.env.is_ci() {
        return print(text);
    }
    print(harmless::text(&String::from_utf8_lossy(text)).as_bytes())
}
