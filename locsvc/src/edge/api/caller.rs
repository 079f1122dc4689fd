//! Who asks, and what they may: one rule for every path. It reads no certificate.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use locus_identity::{Holder, Peer, Role};
use tokio_rustls::rustls::ServerConfig;

use super::fault::Fault;
use super::serve::{Line, Shared};
use crate::edge::Security;
use crate::event::Event;

/// Most bytes of a path in a line of the log.
const PATH_BYTES_MAX: usize = 160;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// Nobody said: the API listens on loopback, or everything is insecure. They may do everything.
    Unknown,
    /// The holder of a certificate of this cluster.
    Known(Arc<Known>),
}

/// The holder of a certificate.
#[derive(Debug)]
pub(super) struct Known {
    peer: Peer,
    /// What the identity folder held when the certificate was judged last.
    judged: Mutex<Arc<ServerConfig>>,
}

impl Known {
    /// Returns someone who was let in by `config`.
    pub(super) fn new(peer: Peer, config: Arc<ServerConfig>) -> Self {
        let judged = Mutex::new(config);
        Self { peer, judged }
    }

    /// Judges the certificate again if the folder has changed: a connection may outlive the trust in it.
    fn judge(&self, security: &Security) -> Result<(), &'static str> {
        let Security::Identity(identity) = security else {
            return Ok(());
        };
        let now = identity.api();
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&judged, &now) {
            security.judge(&self.peer)?;
            *judged = now;
        }
        Ok(())
    }
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    All,
    Role(Role),
    None,
}

impl Caller {
    /// Returns whether they may do anything at all.
    pub(super) fn has_rights(&self) -> bool {
        self.rights() != Rights::None
    }

    fn rights(&self) -> Rights {
        match self {
            Self::Unknown => Rights::All,
            Self::Known(known) => match &known.peer.identity.holder {
                Holder::Operator { role, .. } => Rights::Role(*role),
                // A standby, or whoever is root beside the database itself.
                Holder::Locsvc { .. } => Rights::All,
                Holder::Node { .. } | Holder::Switch { .. } => Rights::None,
            },
        }
    }
}

/// Returns the role that a request needs. Whatever is not known to need less needs all.
fn needed(method: &Method, path: &str) -> Role {
    if *method == Method::GET || *method == Method::HEAD {
        Role::Read
    } else if *method == Method::PUT
        || *method == Method::DELETE
        || (*method == Method::POST && path == "/v1/batch")
    {
        Role::Provision
    } else {
        Role::Admin
    }
}

/// Lets a request through if its caller may make it, and says who changed something.
pub(super) async fn authorise(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let Caller::Known(known) = &caller else {
        return next.run(request).await;
    };
    let needed = needed(request.method(), request.uri().path());
    let what = (needed != Role::Read).then(|| named(&request));
    let refusal = refusal(&caller, known, needed, &shared);
    let line = match (&refusal, needed) {
        (Some(_), _) => Line::Refusal,
        (None, Role::Admin) => Line::Admin,
        (None, Role::Provision | Role::Read) => Line::Change,
    };
    let answer = match refusal {
        Some(fault) => {
            shared.counters.forbidden.add_one();
            fault.into_response()
        }
        None => next.run(request).await,
    };
    if let Some(request) = what
        && let Some(suppressed) = shared.permit_line(line)
    {
        crate::event::emit(&Event::Operated {
            who: known.peer.identity.holder.to_string(),
            request,
            status: answer.status().as_u16(),
            suppressed,
        });
    }
    answer
}

fn refusal(caller: &Caller, known: &Known, needed: Role, shared: &Shared) -> Option<Fault> {
    if let Err(reason) = known.judge(&shared.security) {
        let error = format!("your certificate is not valid any more: {reason}");
        return Some(forbidden("certificate_ended", error));
    }
    let holder = &known.peer.identity.holder;
    match caller.rights() {
        Rights::All => None,
        Rights::Role(role) if role >= needed => None,
        Rights::Role(role) => {
            let error = format!(
                "{holder} has the role {role}, this needs the role {needed}: have a certificate issued by \
                 `locusctl ca operator NAME --role {needed}`"
            );
            let fault = forbidden("role_missing", error);
            Some(
                fault
                    .with("role", role.as_str())
                    .with("needed", needed.as_str()),
            )
        }
        Rights::None => {
            let error = format!(
                "{holder} is no operator: have a certificate issued by `locusctl ca operator NAME --role \
                 {needed}`"
            );
            Some(forbidden("role_missing", error).with("needed", needed.as_str()))
        }
    }
}

fn forbidden(code: &'static str, error: String) -> Fault {
    Fault::new(StatusCode::FORBIDDEN, code, error)
}

/// Returns method and path; what follows a `?` says nothing about a change.
fn named(request: &Request) -> String {
    let path = request.uri().path();
    let mut end = path.len().min(PATH_BYTES_MAX);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    let more = if end < path.len() { "…" } else { "" };
    format!("{} {}{more}", request.method(), &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_need_less_needs_all() {
        for (method, path, role) in [
            (Method::GET, "/v1/aors/a@x", Role::Read),
            (Method::HEAD, "/v1/nodes", Role::Read),
            (Method::GET, "/v1/audit", Role::Read),
            (Method::PUT, "/v1/aors/a@x", Role::Provision),
            (Method::DELETE, "/v1/routes/49", Role::Provision),
            (Method::POST, "/v1/batch", Role::Provision),
            (Method::POST, "/v1/batch/", Role::Admin),
            (Method::POST, "/v1/audit", Role::Admin),
            (Method::POST, "/v1/nodes/n1/reload", Role::Admin),
            (Method::POST, "/v2/anything", Role::Admin),
            (Method::PATCH, "/v1/aors/a@x", Role::Admin),
            (Method::OPTIONS, "/v1/aors/a@x", Role::Admin),
        ] {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
    }
}
