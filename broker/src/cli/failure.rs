//! How the command line says that something went wrong.

use std::fmt;
use std::process::ExitCode;

use skerry_client::ClientError;

/// What went wrong, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    message: String,
    hints: Vec<String>,
    /// Whoever read our output has gone: nobody wants to hear of it.
    silent: bool,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }

    /// Adds a line that says what to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// stdout cannot be written to.
    pub(super) fn output(error: &std::io::Error) -> Self {
        let silent = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self {
            message: format!("cannot write to stdout: {error}"),
            silent,
            ..Self::default()
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        if self.silent {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Lines for stderr.
    pub(super) fn render(&self, color: bool) -> String {
        if self.silent {
            return String::new();
        }
        let color = color && std::env::var_os("NO_COLOR").is_none();
        let error = if color {
            "\x1b[1;31merror:\x1b[0m"
        } else {
            "error:"
        };
        let mut text = format!("{error} {}\n", self.message);
        for hint in &self.hints {
            text.push_str(&format!("  {hint}\n"));
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        super::connect::explain(&error)
    }
}
