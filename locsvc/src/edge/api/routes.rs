//! Paths, methods and handlers of API version 1: each asks the core once and words its answer.
//!
//! ```text
//! PUT GET DELETE /v1/aors/{aor}       contacts of an address-of-record
//! PUT GET DELETE /v1/routes/{prefix}  route of a number prefix
//! POST           /v1/batch            up to 1,024 changes, all or none
//! POST           /v1/audit            nodes read their memory again and compare it with the database
//! POST           /v1/nodes/{node}/reload  the node loads the whole table anew
//! GET            /v1/nodes            every node since the start
//! GET            /v1/level            where the database stands; ?wait=LEVEL&timeout_ms=MS: once all nodes have it
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::caller::authorise;
use super::fault::Fault;
use super::json::{
    self, AorAnswer, AorBody, BatchBody, Changed, LevelAnswer, LevelQuery, RouteAnswer, RouteBody,
};
use super::report::{AuditAnswer, AuditBody, NodesAnswer, ReloadAnswer, node_ref};
use super::serve::Shared;
use super::{AUDIT_MAX, WAIT_MAX, body};
use crate::provision::{
    Answer, CHANGES_MAX, Outcome, ProvisionChange, Request as Asked, RequestError,
};

type Api = State<Arc<Shared>>;
type InPath = Result<Path<String>, PathRejection>;

/// Wait for a level when the request does not say how long.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// Time for an audit when the request does not say how long.
const AUDIT_DEFAULT: Duration = Duration::from_secs(60);

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(
            "/v1/aors/{aor}",
            get(get_aor).put(put_aor).delete(delete_aor),
        )
        .route(
            "/v1/routes/{prefix}",
            get(get_route).put(put_route).delete(delete_route),
        )
        .route("/v1/batch", post(post_batch))
        .route("/v1/audit", post(post_audit))
        .route("/v1/nodes", get(get_nodes))
        .route("/v1/nodes/{node}/reload", post(post_reload))
        .route("/v1/level", get(get_level))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&shared),
            authorise,
        ))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), count))
        .with_state(shared)
}

async fn count(State(shared): Api, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    shared.counters.answers.add_one();
    if answer.status().is_client_error() {
        shared.counters.refused.add_one();
    } else if answer.status().is_server_error() {
        shared.counters.failed.add_one();
    }
    answer
}

async fn no_such_path() -> Fault {
    let error = "there is no such path; there are /v1/aors/{aor}, /v1/routes/{prefix}, /v1/batch, \
                 /v1/audit, /v1/nodes, /v1/nodes/{node}/reload and /v1/level";
    Fault::new(StatusCode::NOT_FOUND, "no_such_path", error)
}

async fn no_such_method() -> Fault {
    let error = "this path does not have this method; the Allow header says which it has";
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", error)
}

async fn get_aor(State(shared): Api, path: InPath) -> Result<Json<AorAnswer>, Fault> {
    let aor = json::aor(&text(path)?)?;
    let answer = ask(&shared, Asked::GetAor(aor.clone())).await?;
    let Answer::Aor { level, now, record } = answer else {
        return Err(Fault::bug());
    };
    let Some((record_level, record)) = record else {
        return Err(no_contacts(&aor));
    };
    Ok(Json(AorAnswer::new(aor, level, now, record_level, record)))
}

async fn put_aor(
    State(shared): Api,
    path: InPath,
    request: Request,
) -> Result<Json<Changed>, Fault> {
    let aor = json::aor(&text(path)?)?;
    let body: AorBody = body::json(&shared, request).await?;
    let contacts = body.contacts();
    let (changed, _) = change_one(&shared, ProvisionChange::PutAor { aor, contacts }).await?;
    Ok(changed)
}

async fn delete_aor(State(shared): Api, path: InPath) -> Result<Json<Changed>, Fault> {
    let aor = json::aor(&text(path)?)?;
    match change_one(&shared, ProvisionChange::DeleteAor(aor.clone())).await? {
        (_, Outcome::Absent) => Err(no_contacts(&aor)),
        (changed, _) => Ok(changed),
    }
}

fn no_contacts(aor: &locus_proto::AddressOfRecord) -> Fault {
    Fault::not_found(format!(
        "{aor} has no contacts: none was provisioned, and none is registered"
    ))
}

async fn get_route(State(shared): Api, path: InPath) -> Result<Json<RouteAnswer>, Fault> {
    let prefix = json::prefix(&text(path)?)?;
    let answer = ask(&shared, Asked::GetRoute(prefix)).await?;
    let Answer::Route {
        level: database_level,
        record,
    } = answer
    else {
        return Err(Fault::bug());
    };
    let Some((level, route)) = record else {
        return Err(no_route(prefix));
    };
    Ok(Json(RouteAnswer {
        prefix,
        level,
        database_level,
        route,
    }))
}

async fn put_route(
    State(shared): Api,
    path: InPath,
    request: Request,
) -> Result<Json<Changed>, Fault> {
    let prefix = json::prefix(&text(path)?)?;
    let body: RouteBody = body::json(&shared, request).await?;
    let route = body.into();
    let (changed, _) = change_one(&shared, ProvisionChange::PutRoute { prefix, route }).await?;
    Ok(changed)
}

async fn delete_route(State(shared): Api, path: InPath) -> Result<Json<Changed>, Fault> {
    let prefix = json::prefix(&text(path)?)?;
    match change_one(&shared, ProvisionChange::DeleteRoute(prefix)).await? {
        (_, Outcome::Absent) => Err(no_route(prefix)),
        (changed, _) => Ok(changed),
    }
}

fn no_route(prefix: locus_proto::Digits) -> Fault {
    Fault::not_found(format!("there is no route for exactly the prefix {prefix}"))
}

async fn post_batch(State(shared): Api, request: Request) -> Result<Json<Changed>, Fault> {
    let body: BatchBody = body::json(&shared, request).await?;
    let len = body.changes.len();
    if len == 0 {
        return Err(Fault::bad("no_changes", "there is no change in the batch"));
    }
    if len > CHANGES_MAX {
        let error = format!("a batch has at most {CHANGES_MAX} changes, this one has {len}");
        return Err(Fault::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_many_changes",
            error,
        ));
    }
    let changes = body
        .changes
        .into_iter()
        .enumerate()
        .map(|(index, change)| change.into_change().map_err(|fault| fault.of_change(index)));
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    let (level, outcomes) = change(&shared, changes, Fault::refused).await?;
    Ok(Json(Changed {
        level,
        changed: outcomes
            .into_iter()
            .filter(|outcome| json::took_a_level(*outcome))
            .count(),
        outcome: None,
    }))
}

async fn post_audit(State(shared): Api, request: Request) -> Result<Json<AuditAnswer>, Fault> {
    let body: AuditBody = body::json(&shared, request).await?;
    let node = body.node()?;
    let time = body.timeout_ms.map_or(AUDIT_DEFAULT, Duration::from_millis);
    if time > AUDIT_MAX {
        let ms = AUDIT_MAX.as_millis();
        return Err(Fault::bad(
            "bad_body",
            format!("timeout_ms is at most {ms}"),
        ));
    }
    let asked = Asked::Audit {
        node,
        repair: body.repair,
        deadline: shared.port.now().plus(time),
    };
    let answer = ask_within(
        &shared,
        asked,
        time.saturating_add(shared.limits.answer_timeout),
    );
    let answer = answer.await?.map_err(|error| Fault::refused(&error))?;
    let Answer::Audited { level, nodes } = answer else {
        return Err(Fault::bug());
    };
    Ok(Json(AuditAnswer::new(level, nodes)))
}

async fn post_reload(State(shared): Api, path: InPath) -> Result<Json<ReloadAnswer>, Fault> {
    let node = node_ref(&text(path)?)?;
    let answer = ask(&shared, Asked::Reload { node }).await?;
    let Answer::ReloadAsked {
        node,
        name,
        connected,
    } = answer
    else {
        return Err(Fault::bug());
    };
    Ok(Json(ReloadAnswer::new(node, &name, connected)))
}

async fn get_nodes(State(shared): Api) -> Result<Json<NodesAnswer>, Fault> {
    let answer = ask(&shared, Asked::Nodes).await?;
    let Answer::Nodes {
        position,
        alarm,
        nodes,
    } = answer
    else {
        return Err(Fault::bug());
    };
    Ok(Json(NodesAnswer::new(position, alarm, nodes)))
}

async fn get_level(
    State(shared): Api,
    query: Result<Query<LevelQuery>, QueryRejection>,
) -> Result<Json<LevelAnswer>, Fault> {
    let Query(query) = query.map_err(|error| {
        let text = format!(
            "{}; write ?wait=LEVEL&timeout_ms=MILLISECONDS",
            error.body_text()
        );
        Fault::bad("bad_query", text)
    })?;
    let time = query.timeout_ms.map_or(WAIT_DEFAULT, Duration::from_millis);
    let nodes = match query.level() {
        Some(level) => Some(wait(&shared, level, time).await?),
        None if query.timeout_ms.is_some() => {
            return Err(Fault::bad("bad_query", "timeout_ms needs wait=LEVEL"));
        }
        None => None,
    };
    let answer = ask(&shared, Asked::Level).await?;
    let Answer::Level {
        position,
        time,
        records,
    } = answer
    else {
        return Err(Fault::bug());
    };
    Ok(Json(LevelAnswer::new(position, records, time, nodes)))
}

/// Returns how many nodes there are once all of them have `level`.
async fn wait(shared: &Shared, level: locus_proto::Level, time: Duration) -> Result<usize, Fault> {
    if time > WAIT_MAX {
        let ms = WAIT_MAX.as_millis();
        let error = format!("timeout_ms is at most {ms}; wait again for longer");
        return Err(Fault::bad("bad_query", error));
    }
    let Ok(_place) = shared.waits.try_acquire() else {
        shared.counters.waits_full.add_one();
        let error = "too many requests wait for a level already; repeat it in a second";
        return Err(Fault::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_waits",
            error,
        ));
    };
    let deadline = shared.port.now().plus(time);
    let request = Asked::Wait { level, deadline };
    let answer = ask_within(
        shared,
        request,
        time.saturating_add(shared.limits.answer_timeout),
    );
    let answer = answer.await?.map_err(|error| Fault::refused(&error))?;
    let Answer::Waited {
        level: database_level,
        behind,
        reached,
    } = answer
    else {
        return Err(Fault::bug());
    };
    if reached {
        let Answer::Nodes { nodes, .. } = ask(shared, Asked::Nodes).await? else {
            return Err(Fault::bug());
        };
        return Ok(nodes.len());
    }
    let behind: Vec<_> = behind.iter().map(ToString::to_string).collect();
    let ms = time.as_millis();
    let error = if database_level < level {
        format!("after {ms} ms the database itself is at level {database_level}, below {level}")
    } else {
        let who = behind.join(", ");
        format!("after {ms} ms these nodes do not have level {level}: {who}; see /v1/nodes")
    };
    Err(
        Fault::new(StatusCode::GATEWAY_TIMEOUT, "wait_timeout", error)
            .with("level", database_level.0)
            .with("behind", behind),
    )
}

fn text(path: InPath) -> Result<String, Fault> {
    path.map(|Path(text)| text)
        .map_err(|_| Fault::bad("bad_path", "the path is not percent-encoded UTF-8"))
}

async fn change_one(
    shared: &Shared,
    asked: ProvisionChange,
) -> Result<(Json<Changed>, Outcome), Fault> {
    let (level, outcomes) = change(shared, vec![asked], Fault::refused_single).await?;
    let [outcome] = outcomes[..] else {
        return Err(Fault::bug());
    };
    let changed = Changed {
        level,
        changed: usize::from(json::took_a_level(outcome)),
        outcome: Some(json::word(outcome)),
    };
    Ok((Json(changed), outcome))
}

async fn change(
    shared: &Shared,
    changes: Vec<ProvisionChange>,
    refused: fn(&RequestError) -> Fault,
) -> Result<(locus_proto::Level, Vec<Outcome>), Fault> {
    let answer = ask_within(shared, Asked::Change(changes), shared.limits.answer_timeout).await?;
    match answer.map_err(|error| refused(&error))? {
        Answer::Changed { level, outcomes } => Ok((level, outcomes)),
        Answer::Aor { .. }
        | Answer::Route { .. }
        | Answer::Level { .. }
        | Answer::Nodes { .. }
        | Answer::Waited { .. }
        | Answer::Audited { .. }
        | Answer::ReloadAsked { .. }
        | Answer::Refused(_) => Err(Fault::bug()),
    }
}

async fn ask(shared: &Shared, request: Asked) -> Result<Answer, Fault> {
    let answer = ask_within(shared, request, shared.limits.answer_timeout).await?;
    answer.map_err(|error| Fault::refused(&error))
}

/// Returns the core's answer; the outer error means that there was none.
async fn ask_within(
    shared: &Shared,
    request: Asked,
    time: Duration,
) -> Result<Result<Answer, RequestError>, Fault> {
    let (reply, answer) = oneshot::channel();
    shared.port.ask(request, move |answer| {
        reply.send(answer).ok(); // the client has gone otherwise
    });
    match timeout(time, answer).await {
        Ok(Ok(Answer::Refused(error))) => Ok(Err(error)),
        Ok(Ok(answer)) => Ok(Ok(answer)),
        Ok(Err(_)) => {
            let error = "locsvc has stopped; whether a change was made is not known, look again \
                         when it is back";
            Err(Fault::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "stopped",
                error,
            ))
        }
        Err(_) => {
            let error = "no answer from locsvc's core in time, its disk may hang; whether a change \
                         was made is not known, look again later";
            Err(Fault::new(StatusCode::GATEWAY_TIMEOUT, "no_answer", error))
        }
    }
}
