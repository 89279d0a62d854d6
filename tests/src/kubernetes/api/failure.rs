//! What went wrong, as a `Status` object: what clients and people decide by.

use super::kinds::Kind;
use serde_json::{Value, json};

/// A request that is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The status of HTTP.
    pub code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

/// One of several things that are wrong with an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    reason: &'static str,
    message: String,
    field: String,
}

impl Cause {
    /// With a reason of its own.
    pub fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Cause {
        Cause { reason, message: message.into(), field: field.into() }
    }

    /// A value that is not allowed.
    pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Cause {
        // The real one prints objects as Go does; nobody reads that by program.
        let shown = if value.is_object() || value.is_array() { "".into() } else { format!("{value}: ") };
        Cause::new("FieldValueInvalid", field, format!("Invalid value: {shown}{why}"))
    }

    /// A value that is missing.
    pub fn required(field: impl Into<String>, why: &str) -> Cause {
        Cause::new(
            "FieldValueRequired",
            field,
            format!("Required value{}{why}", if why.is_empty() { "" } else { ": " }),
        )
    }

    /// A change that is not allowed.
    pub fn forbidden(field: impl Into<String>, why: &str) -> Cause {
        Cause::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
    }

    fn line(&self) -> String {
        if self.field.is_empty() { self.message.clone() } else { format!("{}: {}", self.field, self.message) }
    }

    fn body(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

impl Failure {
    /// Any failure that says no more than a sentence.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Failure {
        self.details = Some(json!({"name": name, "group": kind.group, "kind": kind.plural}));
        self
    }

    fn because(mut self, causes: &[Cause]) -> Failure {
        let causes: Vec<Value> = causes.iter().map(Cause::body).collect();
        self.details.get_or_insert_with(|| json!({}))["causes"] = causes.into();
        self
    }

    /// There is no such object.
    pub fn not_found(kind: &Kind, name: &str) -> Failure {
        Failure::new(404, "NotFound", format!("{} \"{name}\" not found", kind.resource())).about(kind, name)
    }

    /// There is no such resource, nor any other page at this path.
    pub fn no_such_path() -> Failure {
        Failure::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// The name is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Failure {
        let message = format!("{} \"{name}\" already exists", kind.resource());
        Failure::new(409, "AlreadyExists", message).about(kind, name)
    }

    /// Somebody else was faster.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Failure {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.resource());
        Failure::new(409, "Conflict", message).about(kind, name)
    }

    /// Somebody else was faster: the version that was read is no longer the present one.
    pub fn modified(kind: &Kind, name: &str) -> Failure {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Failure::conflict(kind, name, why)
    }

    /// Fields that other managers own and that were to be changed without force.
    pub fn field_conflicts(conflicts: &[(String, String)]) -> Failure {
        let count = conflicts.len();
        let cause = |(owner, field): &(String, String)| {
            Cause::new("FieldManagerConflict", field.clone(), format!("conflict with {owner}"))
        };
        let causes: Vec<Cause> = conflicts.iter().map(cause).collect();
        let lines: Vec<String> =
            conflicts.iter().map(|(owner, field)| format!("conflict with {owner}: {field}")).collect();
        let message = format!(
            "Apply failed with {count} conflict{}: {}",
            if count == 1 { "" } else { "s" },
            lines.join(", ")
        );
        Failure::new(409, "Conflict", message).because(&causes)
    }

    /// The object breaks rules.
    pub fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Failure {
        let lines: Vec<String> = causes.iter().map(Cause::line).collect();
        let lines = if lines.len() == 1 { lines.concat() } else { format!("[{}]", lines.join(", ")) };
        let what =
            if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
        let mut failure =
            Failure::new(422, "Invalid", format!("{what} \"{name}\" is invalid: {lines}")).about(kind, name);
        if let Some(details) = &mut failure.details {
            details["kind"] = kind.kind.clone().into();
        }
        failure.because(causes)
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message)
    }

    /// The request makes sense and is not allowed.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Failure {
        let message = format!("{} \"{name}\" is forbidden: {why}", kind.resource());
        Failure::new(403, "Forbidden", message).about(kind, name)
    }

    /// The events since that version are no longer known.
    pub fn expired(asked: u64, oldest: u64) -> Failure {
        Failure::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// An eviction that a budget does not allow now.
    pub fn disruption_budget(budget: &str, why: &str) -> Failure {
        let cause = Cause::new("DisruptionBudget", "", format!("The disruption budget {budget} {why}"));
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        Failure::new(429, "TooManyRequests", message).because(&[cause])
    }

    /// The verb is not one of this resource.
    pub fn no_such_method() -> Failure {
        Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The `Status` object.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            body["details"] = details.clone();
        }
        body
    }
}
