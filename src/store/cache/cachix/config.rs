//! The configuration of Cachix's own client, `cachix.dhall`: a record of a token, a host and signing keys.
//!
//! It is written by that client, so it is a literal: texts, lists and records, with types here and there. A file that
//! computes something is not read, and says so. No error shows anything of what is in it.

use std::collections::BTreeMap;
use std::fmt;

/// Nested values that are read at most.
const DEPTH: usize = 16;

/// What the file says.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) token: Option<String>,
    /// The URL of the service.
    pub(super) host: Option<String>,
    /// Names of caches and their signing keys; of one name the last counts.
    pub(super) keys: BTreeMap<String, String>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the text of the file. An error says the line, from 1, and what is wrong there.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0).and_then(|value| {
            reader.skip()?;
            if reader.rest().is_empty() { Ok(value) } else { Err("something follows the record") }
        });
        let line = text.get(..reader.at).unwrap_or_default().matches('\n').count() + 1;
        let value = value.map_err(|why| format!("line {line}: {why}"))?;
        let Value::Record(mut fields) = value else { return Err("line 1: it is no record".to_owned()) };
        let keys = match fields.remove("binaryCaches") {
            Some(Value::List(caches)) => caches.into_iter().filter_map(Value::name_and_key).collect(),
            _ => BTreeMap::new(),
        };
        Ok(Self { token: text_of(&mut fields, "authToken"), host: text_of(&mut fields, "hostname"), keys })
    }
}

/// A text that is not empty.
fn text_of(fields: &mut BTreeMap<String, Value>, name: &str) -> Option<String> {
    match fields.remove(name) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

enum Value {
    Text(String),
    List(Vec<Value>),
    Record(BTreeMap<String, Value>),
}

impl Value {
    /// An entry of `binaryCaches`.
    fn name_and_key(self) -> Option<(String, String)> {
        let Self::Record(mut fields) = self else { return None };
        Some((text_of(&mut fields, "name")?, text_of(&mut fields, "secretKey")?))
    }
}

/// Reads from left to right.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Read<T> = Result<T, &'static str>;

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Takes this text, if it is the next.
    fn takes(&mut self, word: &str) -> bool {
        let is_next = self.rest().starts_with(word);
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    /// White space and comments.
    fn skip(&mut self) -> Read<()> {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            if self.rest().starts_with("--") {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            } else if self.rest().starts_with("{-") {
                self.at += self.rest().find("-}").ok_or("a comment does not end")? + 2;
            } else {
                return Ok(());
            }
        }
    }

    /// A value, and its type if that is said.
    fn value(&mut self, depth: usize) -> Read<Value> {
        if depth > DEPTH {
            return Err("it is nested too deeply");
        }
        self.skip()?;
        let value = match self.rest().chars().next() {
            Some('{') => self.record(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Value::Text(self.string()?),
            Some('(') => {
                self.at += 1;
                let value = self.value(depth + 1)?;
                self.skip()?;
                if self.takes(")") { value } else { return Err("')' is missing") }
            }
            _ => return Err("this is neither a text nor a list nor a record, and more is not read"),
        };
        self.skip()?;
        if self.takes(":") {
            self.skip_type();
        }
        Ok(value)
    }

    /// Passes over a type: up to what ends the value that it belongs to.
    fn skip_type(&mut self) {
        let mut open = 0usize;
        for (at, c) in self.rest().char_indices() {
            match c {
                '{' | '(' | '<' | '[' => open += 1,
                '}' | ')' | '>' | ']' | ',' if open == 0 => {
                    self.at += at;
                    return;
                }
                '}' | ')' | '>' | ']' => open -= 1,
                _ => {}
            }
        }
        self.at = self.text.len();
    }

    fn record(&mut self, depth: usize) -> Read<Value> {
        let mut fields = BTreeMap::new();
        self.at += 1;
        self.skip()?;
        // Both may begin with a comma.
        self.takes(",");
        self.skip()?;
        if self.takes("=") {
            self.skip()?;
        }
        while !self.takes("}") {
            let name = self.label()?;
            self.skip()?;
            if !self.takes("=") {
                return Err("'=' is missing");
            }
            fields.insert(name, self.value(depth + 1)?);
            self.skip()?;
            if !self.takes(",") && !self.rest().starts_with('}') {
                return Err("',' or '}' is missing");
            }
            self.skip()?;
        }
        Ok(Value::Record(fields))
    }

    fn list(&mut self, depth: usize) -> Read<Value> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip()?;
        self.takes(",");
        self.skip()?;
        while !self.takes("]") {
            items.push(self.value(depth + 1)?);
            self.skip()?;
            if !self.takes(",") && !self.rest().starts_with(']') {
                return Err("',' or ']' is missing");
            }
            self.skip()?;
        }
        Ok(Value::List(items))
    }

    /// A name, which may stand in backticks.
    fn label(&mut self) -> Read<String> {
        let quoted = self.takes("`");
        let is_end = |c: char| if quoted { c == '`' } else { !(c.is_alphanumeric() || matches!(c, '_' | '-' | '/')) };
        let end = self.rest().find(is_end).unwrap_or(0);
        let name = self.rest().get(..end).unwrap_or_default().to_owned();
        self.at += end + usize::from(quoted);
        if name.is_empty() { Err("a name is missing") } else { Ok(name) }
    }

    /// A text in quotes, on one line.
    fn string(&mut self) -> Read<String> {
        let mut text = String::new();
        let rest = self.rest();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '$' if rest.get(at + 1..).is_some_and(|next| next.starts_with('{')) => {
                    return Err("a text with something inserted is not read");
                }
                '\\' => text.push(match chars.next() {
                    Some((_, c @ ('"' | '\\' | '/' | '$'))) => c,
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, 'r')) => '\r',
                    _ => return Err("this escape in a text is not read"),
                }),
                '\n' => break,
                c => text.push(c),
            }
        }
        Err("a text does not end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the client writes it.
    const WRITTEN: &str = r#"{ authToken =
    "eyJ.aaa.bbb"
, hostname = "https://cachix.org"
, binaryCaches =
  [ { name = "acme", secretKey = "old" }
  , { name = "other", secretKey = "x+/=" }
  , { name = "acme", secretKey = "new" }
  ]
}
"#;

    #[test]
    fn what_the_client_writes_is_read() {
        let config = Config::parse(WRITTEN).unwrap();
        assert_eq!(config.token.as_deref(), Some("eyJ.aaa.bbb"));
        assert_eq!(config.host.as_deref(), Some("https://cachix.org"));
        assert_eq!((config.keys["acme"].as_str(), config.keys["other"].as_str()), ("new", "x+/="));
        assert!(!format!("{config:?}").contains("eyJ"));
    }

    #[test]
    fn what_people_write_is_read() {
        let text = "-- mine\n{ authToken = \"a\\\"b\" {- why -}, hostname = \"\", \
            binaryCaches = [] : List { name : Text, secretKey : Text } } : { authToken : Text }";
        let config = Config::parse(text).unwrap();
        assert_eq!((config.token.as_deref(), config.host, config.keys.len()), (Some("a\"b"), None, 0));
        assert_eq!(Config::parse("{=}").unwrap(), Config::default());
        assert_eq!(Config::parse("({ `authToken` = (\"t\"), })").unwrap().token.as_deref(), Some("t"));
    }

    #[test]
    fn others_are_refused_by_line_and_not_shown() {
        for (text, expected) in [
            ("", "line 1: this is neither"),
            ("{ authToken = env:HUNTER2 }", "line 1: this is neither"),
            ("let hunter2 = 1 in hunter2", "line 1: this is neither"),
            ("{\n authToken = \"hunter2\n}", "line 2: a text does not end"),
            ("{ authToken = \"hunter2${x}\" }", "line 1: a text with something inserted"),
            ("{ authToken = \"hunter2\"", "line 1: ',' or '}' is missing"),
            ("{ authToken \"hunter2\" }", "'=' is missing"),
            ("{} hunter2", "line 1: something follows"),
            ("\"hunter2\"", "it is no record"),
            ("{- hunter2", "a comment does not end"),
            (&"[".repeat(10_000), "it is nested too deeply"),
            (&format!("{{ a = {}", "(".repeat(10_000)), "it is nested too deeply"),
        ] {
            let why = Config::parse(text).unwrap_err();
            assert!(why.contains(expected) && !why.contains("hunter2"), "{text}: {why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_at_all(text in "[{}\\[\\]()\"\\\\=,:a`$\n\u{e9} -]{0,40}") {
            let _ = Config::parse(&text);
        }
    }
}
