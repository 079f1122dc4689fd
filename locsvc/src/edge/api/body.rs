//! Reads a request's body within its limits of size and time, and its JSON; it knows no record.

use std::future::poll_fn;
use std::pin::pin;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::timeout;

use super::fault::Fault;
use super::serve::Shared;
use super::{BODY_BYTES_MAX, DRAIN_BYTES_MAX};

/// Returns the body of `request` as a `T`.
pub(super) async fn json<T: DeserializeOwned>(
    shared: &Shared,
    request: Request,
) -> Result<T, Fault> {
    let (head, body) = request.into_parts();
    // Besides being true, it keeps web pages out: a browser asks before it sends this type elsewhere.
    if !is_json(&head.headers) {
        return Err(Fault::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json_type",
            "send JSON and say so: curl -H 'Content-Type: application/json' …",
        ));
    }
    let waits_for_us = head.headers.contains_key(header::EXPECT);
    let announced = body.size_hint().lower();
    if waits_for_us && announced > u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let bytes = timeout(shared.limits.body_timeout, read(body)).await;
    let Ok(bytes) = bytes else {
        shared.counters.body_timeouts.add_one();
        let s = shared.limits.body_timeout.as_secs_f64();
        let error = format!("the body did not arrive within {s} s; nothing was changed");
        return Err(Fault::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            error,
        ));
    };
    serde_json::from_slice(&bytes?).map_err(|error| match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => {
            Fault::bad("not_json", format!("the body is not JSON: {error}"))
        }
        Category::Data => Fault::bad(
            "bad_body",
            format!("the body is not as needed here: {error}"),
        ),
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
}

fn too_large() -> Fault {
    Fault::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("a body has at most {BODY_BYTES_MAX} bytes; send it in parts"),
    )
}

/// Returns the whole body; of one that is too large, reads on for a while and keeps nothing.
async fn read(body: Body) -> Result<Vec<u8>, Fault> {
    let mut body = pin!(body);
    let (mut bytes, mut len) = (Vec::new(), 0_usize);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|_| Fault::bad("broken_body", "the body broke off"))?;
        let Ok(data) = frame.into_data() else {
            continue; // trailers
        };
        len += data.len();
        if len > DRAIN_BYTES_MAX {
            break;
        }
        if len <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        } else {
            bytes = Vec::new();
        }
    }
    if len > BODY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(bytes)
}
