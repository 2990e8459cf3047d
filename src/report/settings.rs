//! The settings in force as people read them: name, where it was said, value. The value stands last and is never cut,
//! so that it can be copied.

use serde::Serialize;

use super::text::{Line, Paint};

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its values; most have one.
    pub values: Vec<String>,
    /// Where it was said.
    pub origin: String,
}

/// Settings under one headline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The headline.
    pub title: String,
    /// The settings.
    pub rows: Vec<Row>,
}

/// All sections, columns aligned over all of them.
#[must_use]
pub fn screen(sections: &[Section]) -> Vec<Line> {
    let rows = || sections.iter().flat_map(|section| &section.rows);
    let widest = |text: fn(&Row) -> &str| rows().map(|row| Line::from(text(row)).width()).max().unwrap_or(0) + 2;
    let (names, origins) = (widest(|row| &row.name), widest(|row| &row.origin));
    let mut lines = Vec::new();
    for section in sections {
        if !lines.is_empty() {
            lines.push(Line::new());
        }
        lines.push(Line::new().paint(Paint::Bold, &section.title));
        for row in &section.rows {
            let head = Line::from(format!("  {}", row.name)).pad(names + 2).paint(Paint::Dim, &row.origin);
            let head = head.pad(names + origins + 2);
            let mut values = row.values.iter();
            lines.push(match values.next() {
                Some(value) => head.text(value),
                None => head.paint(Paint::Dim, "none"),
            });
            lines.extend(values.map(|value| Line::new().pad(names + origins + 2).text(value)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::{Style, render};

    #[test]
    fn columns_are_aligned_and_values_whole() {
        let row = |name: &str, values: &[&str], origin: &str| Row {
            name: name.into(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            origin: origin.into(),
        };
        let sections = [
            Section {
                title: "drover".into(),
                rows: vec![row("build.retries", &["2"], "drover.toml:3"), row("only", &[], "default")],
            },
            Section { title: "Nix".into(), rows: vec![row("keys", &["a", "b"], "nix.conf")] },
        ];
        let text = render(&screen(&sections), Style::default());
        let expected = "drover\n  build.retries  drover.toml:3  2\n  only           default        none\n\n\
                        Nix\n  keys           nix.conf       a\n                                b\n";
        assert_eq!(text, expected);
    }
}
