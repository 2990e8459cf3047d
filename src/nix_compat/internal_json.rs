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
        let column = self.column.unwrap_or(0);
        let mut file = self.file?;
        // Nix prints the position into the file's name as well: `/x.nix:1:9`.
        if let Some(name) = file.strip_suffix(&format!(":{line}:{column}")) {
            file.truncate(name.len());
        }
        Some(Position { file, line, column })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix_compat::daemon::{ActivityKind, ResultKind};

    fn error(line: &str) -> (Option<Level>, ErrorDetail) {
        match parse(line.as_bytes()) {
            Some(Message::Log { level, error: Some(error), .. }) => (level, *error),
            other => panic!("{other:?}"),
        }
    }

    // The lines are real ones; 2.26.3 and 2.34.8 print the same.
    #[test]
    fn errors_have_their_parts() {
        let (level, detail) = error(
            r#"@nix {"action":"msg","column":9,"file":"/tmp/y.nix:1:9","level":0,"line":1,"msg":"\u001b[31;1merror:\u001b[0m syntax error, unexpected ';'","raw_msg":"syntax error, unexpected ';'"}"#,
        );
        assert_eq!(level, Some(Level::ERROR));
        assert_eq!(detail.raw, "syntax error, unexpected ';'");
        assert_eq!(detail.position, Some(Position { file: "/tmp/y.nix".into(), line: 1, column: 9 }));

        let (_, detail) = error(
            r#"@nix {"action":"msg","column":null,"file":null,"level":0,"line":null,"msg":"x","raw_msg":"no good","trace":[{"column":12,"file":"/tmp/x.nix:1:12","line":1,"raw_msg":"while calling the 'throw' builtin"},{"column":38,"file":"«string»:1:38","line":1,"raw_msg":"from call site"}]}"#,
        );
        assert_eq!(detail.position, None);
        assert_eq!(detail.trace[0].text, "while calling the 'throw' builtin");
        assert_eq!(detail.trace[1].position, Some(Position { file: "«string»".into(), line: 1, column: 38 }));
    }

    #[test]
    fn a_warning_without_position_has_none() {
        let (level, detail) = error(
            r#"@nix {"action":"msg","column":0,"file":"«none»:0","level":1,"line":0,"msg":"evaluation warning: hey","raw_msg":"hey"}"#,
        );
        assert_eq!((level, detail.raw.as_str(), detail.position), (Some(Level::WARN), "hey", None));
    }

    #[test]
    fn activities_are_those_of_the_daemon() {
        let start = parse(br#"@nix {"action":"start","fields":["/nix/store/72-x.drv","",1,1],"id":7,"level":3,"parent":0,"text":"building","type":105}"#);
        let Some(Message::Start(activity)) = start else { panic!("{start:?}") };
        assert_eq!((activity.kind, activity.id), (ActivityKind::Build, 7));
        assert_eq!(activity.fields[0].text(), Some(&b"/nix/store/72-x.drv"[..]));
        let line = parse(br#"@nix {"action":"result","fields":["hi"],"id":7,"type":101}"#).unwrap();
        assert_eq!(line.build_log_line(), Some((7, &b"hi"[..])));
        assert!(matches!(line, Message::Result { kind: ResultKind::BuildLogLine, .. }));
        assert_eq!(parse(br#"@nix {"action":"stop","id":7}"#), Some(Message::Stop { id: 7 }));
        let plain = parse(br#"@nix {"action":"msg","level":3,"msg":"this derivation will be built:"}"#);
        assert!(matches!(plain, Some(Message::Log { error: None, .. })));
    }

    #[test]
    fn what_is_no_record_is_none() {
        for line in ["warning: x", "@nix ", "@nix {", "@nix []", "@nix {\"action\":\"new\"}", ""] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert!(parse(b"@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"\xff\"}").is_some());
    }
}
