//! Why a request was refused, as status and JSON; it decides no refusal.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::provision::RequestError;

/// An error answer: status, code for programs, sentence for people, and what else helps.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    code: &'static str,
    error: String,
    more: Map<String, Value>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self {
            status,
            code,
            error: error.into(),
            more: Map::new(),
        }
    }

    pub(super) fn bad(code: &'static str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, error)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", error)
    }

    /// Adds a field to the JSON.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Says which change of a batch is at fault.
    pub(super) fn of_change(self, index: usize) -> Self {
        let error = format!("changes[{index}]: {}; nothing was changed", self.error);
        Self { error, ..self }
    }

    /// The core answered something else than it was asked: ours to repair.
    pub(super) fn bug() -> Self {
        let error = "locsvc gave an answer that does not belong to the request; please report this";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error)
    }

    /// Returns what the core's refusal is in HTTP. 503 is not among it: in this system that number
    /// belongs to switches' probes.
    pub(super) fn refused(error: &RequestError) -> Self {
        let text = error.to_string();
        match error {
            RequestError::Invalid { index, source } => Self::bad(
                "invalid_record",
                format!("changes[{index}]: {source}; nothing was changed"),
            ),
            RequestError::TooLarge { .. } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_many_changes",
                format!("{text}; send it in parts"),
            ),
            RequestError::Disk(_) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "no_room_on_disk",
                format!("{text}; make room under locsvc's data folder, then repeat it"),
            ),
            RequestError::TableFull => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "table_full", text)
            }
            RequestError::Inconsistent => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "table_inconsistent",
                text,
            ),
            RequestError::NoSuchNode(_) => Self::new(StatusCode::NOT_FOUND, "no_such_node", text),
            RequestError::AuditUnderWay { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", text)
            }
            RequestError::Busy => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "busy",
                format!("{text}; nothing was changed, repeat it in a second"),
            ),
        }
    }

    /// As [`Self::refused`] where the request had one change, whose number says nothing.
    pub(super) fn refused_single(error: &RequestError) -> Self {
        match error {
            RequestError::Invalid { source, .. } => {
                Self::bad("invalid_record", format!("{source}; nothing was changed"))
            }
            RequestError::TooLarge { .. }
            | RequestError::Disk(_)
            | RequestError::TableFull
            | RequestError::Inconsistent
            | RequestError::NoSuchNode(_)
            | RequestError::AuditUnderWay { .. }
            | RequestError::Busy => Self::refused(error),
        }
    }
}

#[derive(Serialize)]
struct FaultBody {
    error: String,
    code: &'static str,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let Self {
            status,
            code,
            error,
            more,
        } = self;
        (status, Json(FaultBody { error, code, more })).into_response()
    }
}
