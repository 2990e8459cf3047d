//! One ssh that is logged in for the run; channels are asked of it through its control socket (`mux`).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr};

use super::error::{DialError, DialKind, Whom};
use super::login::Login;
use crate::process::{Group, describe};
use crate::store::session::LastWords;

/// One ssh that is logged in. Dropping it ends it, and with it all its channels.
#[derive(Debug)]
pub(super) struct Master {
    child: tokio::sync::Mutex<Child>,
    /// Kills what the child started (a ProxyCommand) with it.
    group: Mutex<Group>,
    stderr: Mutex<Option<ChildStderr>>,
    words: LastWords,
    control: PathBuf,
}

impl Master {
    /// Logs in; ready for channels when this returns.
    pub(super) async fn open(login: &Login, number: usize, whom: &Whom) -> Result<Self, DialError> {
        let _key = login
            .lend_key()
            .map_err(|error| whom.error(DialKind::Other, format!("cannot write its key for ssh: {error}")))?;
        let control = login.file(&format!("c{number}"));
        let mut first: Vec<&OsStr> = ["-M", "-N", "-S"].map(OsStr::new).to_vec();
        first.push(control.as_os_str());
        // ssh runs this once it is in and listens.
        first.extend(["-o", "PermitLocalCommand=yes", "-o", "LocalCommand=echo in"].map(OsStr::new));
        let mut child = login.cmd(&first).spawn().map_err(|error| whom.no_ssh(&error))?;
        drop(child.stdin.take());
        let mut group = Group::of(&child);
        let words = LastWords::default();
        let mut stdout = child.stdout.take();
        let mut stderr = child.stderr.take();
        let mut byte = [0; 16];
        let read = async {
            match &mut stdout {
                Some(stdout) => stdout.read(&mut byte).await.unwrap_or(0),
                None => 0,
            }
        };
        // What it says on stderr is read meanwhile, so that it can never block on that.
        let ready = tokio::select! {
            len = read => len > 0,
            () = words.listen(&mut stderr) => false,
        };
        if ready {
            let (child, group) = (tokio::sync::Mutex::new(child), Mutex::new(group));
            return Ok(Self { child, group, stderr: Mutex::new(stderr), words, control });
        }
        words.listen(&mut stderr).await;
        let ended = child.wait().await.map(|status: ExitStatus| format!("ssh {}", describe(status)));
        group.is_over();
        Err(whom.told(&words.text(), &ended.unwrap_or_else(|error| error.to_string())))
    }

    /// Its control socket.
    pub(super) fn control(&self) -> &Path {
        &self.control
    }

    /// Resolves when this ssh has ended; until then what it says is read.
    pub(super) async fn ended(&self) {
        let mut child = self.child.lock().await;
        let mut stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).take();
        tokio::select! {
            _ = child.wait() => {}
            () = self.words.listen(&mut stderr) => { let _ = child.wait().await; }
        }
        self.group.lock().unwrap_or_else(PoisonError::into_inner).is_over();
    }

    /// Asks it to end.
    pub(super) fn stop(&self) {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).terminate();
    }
}
