//! How busy a builder is: one long session of its shell, which answers each line that it is sent with one line.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::mux::{Control, Running};
use super::shell::{self, ShellError};
use super::ssh::{Place, Ssh};
use crate::process::quote;

/// The longest answer, in bytes.
const LONGEST: u64 = 4096;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How busy a builder is, as far as it says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Percent of the last ten seconds in which something waited for a processor.
    pub cpu: Option<f64>,
    /// Percent of the last ten seconds in which everything waited for memory.
    pub memory: Option<f64>,
    /// Bytes free where its store is.
    pub disk_free: Option<u64>,
    /// Bytes of that disk.
    pub disk_size: Option<u64>,
}

/// Ends when its standard input does, so that nothing stays behind.
fn script(dir: &str) -> String {
    let dir = quote(dir);
    format!(
        "while read -r line; do \
         c=; while read -r k a rest; do [ \"$k\" = some ] && c=$a; done 2>/dev/null </proc/pressure/cpu; \
         m=; while read -r k a rest; do [ \"$k\" = full ] && m=$a; done 2>/dev/null </proc/pressure/memory; \
         d=$(df -Pk {dir} 2>/dev/null | {{ read -r x; read -r f b u a rest; echo \"$a size:$b\"; }}); \
         echo \"load cpu:$c memory:$m disk:$d\"; done"
    )
}

/// A session that tells.
#[derive(Debug)]
pub struct Probe {
    stdin: Sender,
    stdout: BufReader<Receiver>,
    // Last: closing it is what ends the script for certain.
    _session: (Control, Place),
}

impl Probe {
    pub(super) async fn open(ssh: &Ssh, dir: &str) -> Result<Self, ShellError> {
        let (running, place) = ssh.session(&shell::command(&script(dir))).await?;
        // Its stderr is closed: whatever it says there is of no use.
        let Running { stdin, stdout, control, .. } = running;
        Ok(Self { stdin, stdout: BufReader::new(stdout), _session: (control, place) })
    }

    /// Asks once; `None` if there is no shell, or it is gone, or does not answer for ten seconds: then it is of no use
    /// any more.
    pub async fn ask(&mut self) -> Option<Load> {
        tokio::time::timeout(PATIENCE, self.answer()).await.ok().flatten()
    }

    async fn answer(&mut self) -> Option<Load> {
        self.stdin.write_all(b"?\n").await.ok()?;
        loop {
            let mut line = Vec::new();
            let len = (&mut self.stdout).take(LONGEST).read_until(b'\n', &mut line).await.ok()?;
            if len == 0 || !line.ends_with(b"\n") {
                return None;
            }
            // A login may have said something before.
            if let Some(load) = Load::parse(&String::from_utf8_lossy(&line)) {
                return Some(load);
            }
        }
    }
}

impl Load {
    /// Reads a line of the script; `None` if a login said it.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let share = |value: &str| value.strip_prefix("avg10=").and_then(|value| value.parse().ok());
        let mut load = Self::default();
        for word in line.trim().strip_prefix("load ")?.split_whitespace() {
            match word.split_once(':') {
                Some(("cpu", value)) => load.cpu = share(value),
                Some(("memory", value)) => load.memory = share(value),
                Some(("disk", value)) => load.disk_free = bytes(value),
                Some(("size", value)) => load.disk_size = bytes(value),
                _ => {}
            }
        }
        Some(load)
    }
}

/// Of a number of KiB.
fn bytes(kib: &str) -> Option<u64> {
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_unknown() {
        let load = Load::parse("load cpu:avg10=12.50 memory:avg10=0.00 disk:2048 size:4096\n").unwrap();
        assert_eq!(
            load,
            Load { cpu: Some(12.5), memory: Some(0.0), disk_free: Some(2 << 20), disk_size: Some(4 << 20) }
        );
        assert_eq!(Load::parse("load cpu: memory: disk:\n"), Some(Load::default()));
        assert_eq!(Load::parse("Welcome\n"), None);
    }
}
