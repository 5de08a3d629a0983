//! What can go wrong while choosing, and the exit code that each kind has.

use thiserror::Error;

/// A failure of `compare` or of a record; `Display` is one message without the hint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChoiceError {
    /// The request cannot be carried out as written: exit code 2.
    #[error("{message}")]
    Usage {
        /// What is wrong, with the name of the thing.
        message: String,
        /// What to do next.
        hint: Option<String>,
        /// A short traceback of the user's own code, when that code raised.
        detail: Option<String>,
    },
    /// The function failed on its inputs, or took its process along: exit code 4.
    #[error("{message}")]
    Function {
        /// What happened, to which input.
        message: String,
        /// What to do next.
        hint: Option<String>,
        /// Traceback or the end of the process's standard error.
        detail: Option<String>,
    },
    /// The user interrupted: exit code 130.
    #[error("interrupted")]
    Interrupted,
}

impl ChoiceError {
    /// A usage error with a hint.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: Some(hint.into()),
            detail: None,
        }
    }

    /// The process exit code of this failure.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Usage { .. } => 2,
            Self::Function { .. } => 4,
            Self::Interrupted => 130,
        }
    }

    /// What to do next, if there is something.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage { hint, .. } | Self::Function { hint, .. } => hint.as_deref(),
            Self::Interrupted => None,
        }
    }

    /// Traceback or the end of standard error.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Usage { detail, .. } | Self::Function { detail, .. } => detail.as_deref(),
            Self::Interrupted => None,
        }
    }
}
