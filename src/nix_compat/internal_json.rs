//! What Nix prints with `--log-format internal-json`: one record a line, `@nix {…}`, on stderr. Gives the same
//! messages as a daemon's connection, and more about errors. Source: `JSONLogger` in Nix's `logging.cc`.

use serde::Deserialize;

use super::daemon::{Activity, ErrorDetail, Field, Level, Message, Position, TraceLine};

/// The message of one line; `None` if the line is no such record (a plugin or a child printed it).
#[must_use]
pub fn parse(line: &[u8]) -> Option<Message> {
    let json = line.strip_prefix(b"@nix ")?;
    // Texts are whatever bytes a builder printed; JSON has to be UTF-8.
    let text = String::from_utf8_lossy(json);
    let record: Record = serde_json::from_str(&text).ok()?;
    Some(match record {
        Record::Msg(msg) => msg.into_message(),
        Record::Start { id, level, kind, text, fields, parent } => Message::Start(Activity {
            id,
            level: Level(level),
            kind: kind.into(),
            text: text.into_bytes(),
            fields: to_fields(fields),
            parent,
        }),
        Record::Stop { id } => Message::Stop { id },
        Record::Result { id, kind, fields } => Message::Result { id, kind: kind.into(), fields: to_fields(fields) },
    })
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Record {
    Msg(Msg),
    Start {
        id: u64,
        #[serde(default)]
        level: u64,
        #[serde(rename = "type", default)]
        kind: u64,
        #[serde(default)]
        text: String,
        #[serde(default)]
        fields: Vec<serde_json::Value>,
        #[serde(default)]
        parent: u64,
    },
    Stop {
        id: u64,
    },
    Result {
        id: u64,
        #[serde(rename = "type")]
        kind: u64,
        #[serde(default)]
        fields: Vec<serde_json::Value>,
    },
}

#[derive(Deserialize)]
struct Msg {
    #[serde(default)]
    level: u64,
    #[serde(default)]
    msg: String,
    raw_msg: Option<String>,
    #[serde(flatten)]
    place: Place,
    #[serde(default)]
    trace: Vec<Trace>,
}

#[derive(Deserialize)]
struct Trace {
    #[serde(default)]
    raw_msg: String,
    #[serde(flatten)]
    place: Place,
}

/// Numbers are null where there is no position.
#[derive(Deserialize)]
struct Place {
    file: Option<String>,
    line: Option<u64>,
    column: Option<u64>,
}

impl Place {
    fn into_position(self) -> Option<Position> {
        let line = self.line.filter(|line| *line > 0)?;
        Some(Position { file: self.file?, line, column: self.column.unwrap_or(0) })
    }
}

impl Msg {
    fn into_message(self) -> Message {
        let place = self.place;
        let trace = self.trace;
        let error = self.raw_msg.map(|raw| {
            let step = |step: Trace| TraceLine { text: step.raw_msg, position: step.place.into_position() };
            let trace = trace.into_iter().map(step).collect();
            Box::new(ErrorDetail { raw, position: place.into_position(), trace })
        });
        Message::Log { level: Some(Level(self.level)), text: self.msg.into_bytes(), error }
    }
}

fn to_fields(fields: Vec<serde_json::Value>) -> Vec<Field> {
    let field = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => Field::Text(text.into_bytes()),
        other => Field::Number(other.as_u64().unwrap_or(0)),
    };
    fields.into_iter().map(field).collect()
}
