//! Errors that reach a person, whose fault they are, and the one table of exit codes.
//!
//! Stages have error enums of their own; at the edge each becomes an [`Error`]: a sentence (act, object, cause), a
//! hint that can be typed, and a [`Fault`]. The fault alone decides the exit code.

use std::fmt;

use crate::event::Class;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// A bug in drover.
    Bug,
    /// Bad words on the command line, in the config, or a bad credential; nothing was started.
    Usage,
    /// An attr does not evaluate.
    Eval,
    /// A build failed, or what was to be verified does not hold.
    Build,
    /// Something could not be tried: builder, network, store; repeating may help.
    Unreachable,
    /// All is built, but not all is pushed.
    Push,
}

/// The exit codes, and which of several faults wins: the first row that applies (design §2).
const EXIT: [(Fault, u8); 7] = [
    (Fault::Interrupted, 130),
    (Fault::Bug, 70),
    (Fault::Usage, 2),
    (Fault::Eval, 3),
    (Fault::Build, 1),
    (Fault::Unreachable, 4),
    (Fault::Push, 5),
];

/// The exit code of all that went wrong; 0 if nothing did.
#[must_use]
pub fn exit_code(faults: &[Fault]) -> u8 {
    EXIT.into_iter().find(|(fault, _)| faults.contains(fault)).map_or(0, |(_, code)| code)
}

/// Whose fault a class of failure is.
#[must_use]
pub fn fault_of(class: Class) -> Fault {
    match class {
        Class::Eval | Class::Oom => Fault::Eval,
        Class::Build
        | Class::Signal
        | Class::NoOutput
        | Class::HashMismatch
        | Class::DisallowedReference
        | Class::Timeout
        | Class::Silent
        | Class::LogLimit
        | Class::Dependency
        | Class::Policy => Fault::Build,
        Class::DiskFull | Class::NoBuilder | Class::BuilderLost | Class::Network | Class::Cache | Class::Signature => {
            Fault::Unreachable
        }
        Class::Cancelled => Fault::Interrupted,
        Class::Internal => Fault::Bug,
    }
}

/// An error for a person: one sentence without a final period, and a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Whose fault it is.
    pub fault: Fault,
    /// Act, object and cause; further lines are details.
    pub message: String,
    /// Something to type, or to look at.
    pub hint: Option<String>,
}

/// What fallible functions at the edge return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a hint yet.
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), hint: None }
    }

    /// Bad usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Fault::Usage, message)
    }

    /// From an error value with all its sources, joined by `: `.
    pub fn from_chain(fault: Fault, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(fault, chain(error))
    }

    /// With this hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An error with all its sources, joined by `: `. A source that its parent has already quoted is left out.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Without the numbers of the system's errors, whose text stands before them.
#[must_use]
pub fn without_numbers(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(" (os error ") {
        let end = rest[at..].find(')').map_or(rest.len(), |end| at + end + 1);
        out.push_str(&rest[..at]);
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_wins() {
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(exit_code(&[Fault::Push, Fault::Build]), 1);
        assert_eq!(exit_code(&[Fault::Build, Fault::Eval]), 3);
        assert_eq!(exit_code(&[Fault::Unreachable, Fault::Push]), 4);
        assert_eq!(exit_code(&[Fault::Eval, Fault::Interrupted]), 130);
    }
}
