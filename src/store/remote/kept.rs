//! Roots on a builder that outlive the run, for outputs that could not be pushed: symlinks that its daemon makes, in a
//! folder of the login that is named after the first day on which a run may remove it.

use std::path::Path;

use jiff::civil::Date;

use super::{RemoteStore, ShellError};
use crate::id::StorePath;
use crate::nix_compat::daemon::Trust;
use crate::store::error::StoreError;

/// Where the folders are, for the shell over there.
const PLACE: &str = r#""${XDG_STATE_HOME:-$HOME/.local/state}/drover/kept""#;

/// Why nothing can be kept on a builder.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Its daemon makes no such root for this login.
    #[error("its daemon does not trust this login")]
    Untrusted,
    /// Nobody could remove the roots again.
    #[error("the login has no shell to remove them with later")]
    Shell(#[from] ShellError),
    /// A path is not there any more.
    #[error("{} is not there any more", .0.name())]
    Gone(StorePath),
    /// Its daemon does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RemoteStore {
    /// Makes roots for these paths, each of which keeps all that it refers to, until `until`.
    pub async fn keep(&self, paths: &[StorePath], until: Date) -> Result<(), KeepError> {
        if self.trust() == Trust::Untrusted {
            return Err(KeepError::Untrusted);
        }
        // Made by the login, so that it may remove what the daemon makes in it.
        let script = format!(r#"d={PLACE}/{until} && mkdir -p "$d" && cd "$d" && pwd -P"#);
        let said = self.shell(&script).await?;
        let folder = String::from_utf8_lossy(&said);
        let folder = Path::new(folder.trim_end_matches('\n'));
        let mut session = self.connect().await?;
        let valid = session.hold_valid(paths).await.map_err(|error| session.explain(error))?;
        if let Some((gone, _)) = paths.iter().zip(valid).find(|(_, valid)| !valid) {
            return Err(KeepError::Gone(gone.clone()));
        }
        for path in paths {
            let made = session.add_perm_root(path, &folder.join(path.to_basename())).await;
            made.map_err(|error| session.explain(error))?;
        }
        Ok(())
    }

    /// Removes the folders whose day has come; how many there were.
    pub async fn release(&self, today: Date) -> Result<usize, ShellError> {
        let said = self.shell(&format!("cd {PLACE} 2>/dev/null && ls || true")).await?;
        let over = over(&String::from_utf8_lossy(&said), today);
        if over.is_empty() {
            return Ok(0);
        }
        let names: Vec<String> = over.iter().map(Date::to_string).collect();
        self.shell(&format!("cd {PLACE} && rm -rf -- {}", names.join(" "))).await?;
        Ok(over.len())
    }
}

/// The folders of a listing whose day has come. Whatever else is there is left alone.
fn over(listing: &str, today: Date) -> Vec<Date> {
    let days = listing.lines().filter_map(|name| name.parse::<Date>().ok().filter(|day| day.to_string() == name));
    days.filter(|day| *day <= today).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn only_days_that_have_come_are_over() {
        let listing = "2026-11-20\n2026-11-21\n2026-11-22\nnotes\n20261101\n2026-11-01T00\n-rf\n2026-11-02 \n";
        assert_eq!(over(listing, date(2026, 11, 21)), [date(2026, 11, 20), date(2026, 11, 21)]);
        assert_eq!(over("", date(2026, 11, 21)), []);
    }
}
