//! How the runners of CI systems read a log: which lines they take for commands.

/// A command that a runner found in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// `error`, `set-output`.
    pub name: String,
    /// `file=flake.nix,line=3`, undone.
    pub properties: Vec<(String, String)>,
    /// What follows, undone.
    pub data: String,
}

impl Command {
    /// A property by its name.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The lines of a log as a runner cuts them: at `\n`, at `\r`, and at both together.
pub fn lines(log: &str) -> impl Iterator<Item = &str> {
    log.split(['\n', '\r'])
}

/// What GitHub's runner takes for commands. It trims what Unicode calls blank, compares by the rules of a language, to
/// which invisible characters are nothing, and finds the old form anywhere in a line. Forgejo and Gitea find less.
pub fn commands(log: &str) -> Vec<Command> {
    lines(log).filter_map(|line| of_line(&visible(line))).collect()
}

/// Without characters that have no weight in a comparison.
fn visible(line: &str) -> String {
    let invisible = |c: char| {
        (c.is_control() && !c.is_whitespace())
            || matches!(c, '\u{ad}' | '\u{34f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    line.chars().filter(|c| !invisible(*c)).collect()
}

fn of_line(line: &str) -> Option<Command> {
    if let Some(rest) = line.trim_start().strip_prefix("::")
        && let Some((info, data)) = rest.split_once("::")
    {
        let (name, properties) = info.split_once(' ').unwrap_or((info, ""));
        return Some(Command { name: name.to_owned(), properties: pairs(properties, ','), data: undone(data) });
    }
    // GitHub's old form, and those of Azure and TeamCity.
    let mut rest = line;
    while let Some(at) = rest.find("##") {
        rest = &rest[at + 1..];
        let name = rest[1..].chars().take_while(char::is_ascii_alphanumeric).count();
        if let Some(inner) = rest[1 + name..].strip_prefix('[') {
            let (info, data) = inner.split_once(']').unwrap_or((inner, ""));
            let (name, properties) = info.split_once(' ').unwrap_or((info, ""));
            return Some(Command { name: name.to_owned(), properties: pairs(properties, ';'), data: undone(data) });
        }
    }
    None
}

fn pairs(text: &str, separator: char) -> Vec<(String, String)> {
    let pairs = text.split(separator).filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), undone(value))).collect()
}

fn undone(text: &str) -> String {
    let text = text.replace("%0D", "\r").replace("%0A", "\n").replace("%3A", ":").replace("%2C", ",");
    text.replace("%25", "%")
}

/// Names of the sections that GitLab finds, each with whether it begins or ends there.
pub fn sections(log: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for (start, mark) in [(true, "section_start:"), (false, "section_end:")] {
        for (at, _) in log.match_indices(mark) {
            let rest = &log[at + mark.len()..];
            if let Some((time, rest)) = rest.split_once(':')
                && !time.is_empty()
                && time.bytes().all(|byte| byte.is_ascii_digit())
                && let Some((name, after)) = rest.split_once('\r')
                && after.starts_with("\u{1b}[0K")
            {
                found.push((at, name.to_owned(), start));
            }
        }
    }
    found.sort_by_key(|(at, ..)| *at);
    found.into_iter().map(|(_, name, start)| (name, start)).collect()
}
