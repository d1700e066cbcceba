//! What people are told: what is wrong, and what to do about it.

use super::pb::provider as pb;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// What was asked for was not done.
    Error,
    /// It was, and there is something to know.
    Warning,
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// One line.
    pub summary: String,
    /// The reason, and what to do.
    pub detail: String,
    /// The attribute that it is about, at the top of the configuration.
    pub attribute: Option<String>,
}

impl Diagnostic {
    /// Something that was not done.
    pub fn error(summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { severity: Severity::Error, summary: summary.into(), detail: detail.into(), attribute: None }
    }

    /// Something to know.
    pub fn warning(summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(summary, detail) }
    }

    /// The same, about an attribute.
    #[must_use]
    pub fn at(mut self, attribute: &str) -> Self {
        self.attribute = Some(attribute.to_owned());
        self
    }
}

impl From<anyhow::Error> for Diagnostic {
    /// The outermost sentence, and then all of them.
    fn from(error: anyhow::Error) -> Self {
        Self::error(error.to_string(), format!("{error:#}"))
    }
}

/// The path to an attribute at the top.
pub(super) fn path(attribute: &str) -> pb::AttributePath {
    let selector = pb::attribute_path::step::Selector::AttributeName(attribute.to_owned());
    pb::AttributePath { steps: vec![pb::attribute_path::Step { selector: Some(selector) }] }
}

impl From<Diagnostic> for pb::Diagnostic {
    fn from(diagnostic: Diagnostic) -> Self {
        let severity = match diagnostic.severity {
            Severity::Error => pb::diagnostic::Severity::Error,
            Severity::Warning => pb::diagnostic::Severity::Warning,
        };
        Self {
            severity: severity.into(),
            summary: diagnostic.summary,
            detail: diagnostic.detail,
            attribute: diagnostic.attribute.as_deref().map(path),
        }
    }
}
