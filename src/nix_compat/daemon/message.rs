//! What Nix says while it works: log lines, activities and their results. The daemon sends them as tagged records;
//! `--log-format internal-json` prints the same ones (`internal_json`). Texts are bytes with colours: see `ansi`.
//!
//! Numbers are those of Nix's `logging.hh` and `worker-protocol.hh`.

use tokio::io::AsyncRead;

use super::error::RemoteError;
use crate::nix_compat::wire::{WireError, read_bytes, read_count, read_u64};

/// Who receives the messages of an operation.
pub type Messages<'a> = &'a mut (dyn FnMut(Message) + Send);

/// The tag of a record between request and reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum Tag {
    Next = 0x6f6c_6d67,
    Last = 0x616c_7473,
    Error = 0x6378_7470,
    StartActivity = 0x5354_5254,
    StopActivity = 0x5354_4f50,
    Result = 0x5253_4c54,
}

/// How important a message is: 0 error … 7 vomit; others pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u64);

#[expect(missing_docs, reason = "the names of the protocol")]
impl Level {
    pub const ERROR: Self = Self(0);
    pub const WARN: Self = Self(1);
    pub const NOTICE: Self = Self(2);
    pub const INFO: Self = Self(3);
    pub const TALKATIVE: Self = Self(4);
    pub const CHATTY: Self = Self(5);
    pub const DEBUG: Self = Self(6);
    pub const VOMIT: Self = Self(7);
}

/// One field of an activity or result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A number.
    Number(u64),
    /// A text, as bytes.
    Text(Vec<u8>),
}

impl Field {
    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) => None,
        }
    }
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names of the protocol")]
        pub enum $name {
            $($variant,)*
            /// One that drover does not know.
            Other(u64),
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Other(other),
                }
            }
        }

        impl From<$name> for u64 {
            fn from(kind: $name) -> Self {
                match kind {
                    $($name::$variant => $number,)*
                    $name::Other(other) => other,
                }
            }
        }
    };
}

numbered! {
    /// What an activity is. Fields: `CopyPath` path, from, to; `FileTransfer` URI; `Build` drv path, machine or empty,
    /// 1, 1; `Substitute` path, URI; `QueryPathInfo` path, URI; `BuildWaiting` none, its text says for what.
    ActivityKind {
        Unknown = 0,
        CopyPath = 100,
        FileTransfer = 101,
        Realise = 102,
        CopyPaths = 103,
        Builds = 104,
        Build = 105,
        OptimiseStore = 106,
        VerifyPaths = 107,
        Substitute = 108,
        QueryPathInfo = 109,
        PostBuildHook = 110,
        BuildWaiting = 111,
        FetchTree = 112,
        FetchToStore = 113,
    }
}

numbered! {
    /// What a result of an activity is. Fields: `BuildLogLine` the line; `SetPhase` its name; `Progress` done,
    /// expected, running, failed; `SetExpected` activity kind, number.
    ResultKind {
        FileLinked = 100,
        BuildLogLine = 101,
        UntrustedPath = 102,
        CorruptedPath = 103,
        SetPhase = 104,
        Progress = 105,
        SetExpected = 106,
        PostBuildLogLine = 107,
        FetchStatus = 108,
        FetchToStore = 109,
    }
}

/// Something that Nix began to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// Its number, unique within a connection.
    pub id: u64,
    /// How important.
    pub level: Level,
    /// What it is.
    pub kind: ActivityKind,
    /// For people; may be empty.
    pub text: Vec<u8>,
    /// See [`ActivityKind`].
    pub fields: Vec<Field>,
    /// The activity that it is a part of; 0 for none.
    pub parent: u64,
}

/// Where in a Nix expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// A path, or something in `«»`.
    pub file: String,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
}

/// One step of an error's trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceLine {
    /// What was being done, without position.
    pub text: String,
    /// Where.
    pub position: Option<Position>,
}

/// An error in parts, as only the internal-json log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorDetail {
    /// The message alone, with colours.
    pub raw: String,
    /// Where.
    pub position: Option<Position>,
    /// From the innermost step outwards, as Nix sends it; empty without `--show-trace`.
    pub trace: Vec<TraceLine>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A line or more for people.
    Log {
        /// The daemon does not say the level, internal-json does.
        level: Option<Level>,
        /// Text with colours; from a daemon it ends in a newline.
        text: Vec<u8>,
        /// Its parts, if it is an error or warning that came as internal-json.
        error: Option<Box<ErrorDetail>>,
    },
    /// An activity began.
    Start(Activity),
    /// An activity ended.
    Stop {
        /// Which.
        id: u64,
    },
    /// An activity has something to say.
    Result {
        /// Which.
        id: u64,
        /// What.
        kind: ResultKind,
        /// See [`ResultKind`].
        fields: Vec<Field>,
    },
}

impl Message {
    /// The line, if this is one that a builder printed; without newline.
    #[must_use]
    pub fn build_log_line(&self) -> Option<(u64, &[u8])> {
        match self {
            Self::Result { id, kind: ResultKind::BuildLogLine, fields } => Some((*id, fields.first()?.text()?)),
            _ => None,
        }
    }

    /// The phase, if this says that a build entered one.
    #[must_use]
    pub fn phase(&self) -> Option<(u64, &[u8])> {
        match self {
            Self::Result { id, kind: ResultKind::SetPhase, fields } => Some((*id, fields.first()?.text()?)),
            _ => None,
        }
    }
}

/// Most fields that an activity may have; Nix sends at most four.
const MAX_FIELDS: u64 = 1000;

/// Most traces of one error.
const MAX_TRACES: u64 = 100_000;

/// Reads messages up to the end of the work. `Some` is the error with which the work ended.
pub(super) async fn read_messages<R: AsyncRead + Unpin + Send>(
    reader: &mut R,
    messages: Messages<'_>,
) -> Result<Option<RemoteError>, WireError> {
    loop {
        let tag = read_u64(reader).await?;
        let message = if tag == Tag::Last as u64 {
            return Ok(None);
        } else if tag == Tag::Error as u64 {
            return Ok(Some(read_error(reader).await?));
        } else if tag == Tag::Next as u64 {
            Message::Log { level: None, text: read_bytes(reader).await?, error: None }
        } else if tag == Tag::StartActivity as u64 {
            Message::Start(read_activity(reader).await?)
        } else if tag == Tag::StopActivity as u64 {
            Message::Stop { id: read_u64(reader).await? }
        } else if tag == Tag::Result as u64 {
            let id = read_u64(reader).await?;
            let kind = read_u64(reader).await?.into();
            Message::Result { id, kind, fields: read_fields(reader).await? }
        } else {
            return Err(WireError::malformed(format!("{tag:#x} is no tag of a message")));
        };
        messages(message);
    }
}

async fn read_activity<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Activity, WireError> {
    Ok(Activity {
        id: read_u64(reader).await?,
        level: Level(read_u64(reader).await?),
        kind: read_u64(reader).await?.into(),
        text: read_bytes(reader).await?,
        fields: read_fields(reader).await?,
        parent: read_u64(reader).await?,
    })
}

async fn read_fields<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Vec<Field>, WireError> {
    let count = read_count(reader, MAX_FIELDS).await?;
    let mut fields = Vec::new();
    for _ in 0..count {
        fields.push(match read_u64(reader).await? {
            0 => Field::Number(read_u64(reader).await?),
            1 => Field::Text(read_bytes(reader).await?),
            other => return Err(WireError::malformed(format!("{other} is no type of a field"))),
        });
    }
    Ok(fields)
}

/// Reads what follows an error's tag (protocol ≥ 1.26).
pub(super) async fn read_error<R: AsyncRead + Unpin>(reader: &mut R) -> Result<RemoteError, WireError> {
    let kind = read_bytes(reader).await?;
    if kind != b"Error" {
        return Err(WireError::malformed("an error is of an unknown kind"));
    }
    let level = Level(read_u64(reader).await?);
    let _old_name = read_bytes(reader).await?;
    let message = read_bytes(reader).await?;
    no_position(reader).await?;
    let count = read_count(reader, MAX_TRACES).await?;
    let mut traces = Vec::new();
    for _ in 0..count {
        no_position(reader).await?;
        traces.push(read_bytes(reader).await?);
    }
    Ok(RemoteError { level, message, traces })
}

async fn no_position<R: AsyncRead + Unpin>(reader: &mut R) -> Result<(), WireError> {
    match read_u64(reader).await? {
        0 => Ok(()),
        _ => Err(WireError::malformed("an error has a position, which the protocol has no layout for")),
    }
}
