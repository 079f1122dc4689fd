//! The HTTP API given what it cannot take: every refusal has a status and a reason, and changes nothing.
//! Knows no record's inside.

use locus_lab::{Lab, Locsvc};
use serde_json::{Value, json};
use ureq::http::Method;

#[test]
fn api() {
    let Some(lab) = Lab::start("api") else { return };
    let mut locsvc = Locsvc::new(&lab);
    locsvc.start();
    let level = locsvc.provision(0, 3, 7_100, |_| {});
    lab.say("bodies that are no request");
    bodies_that_are_no_request(&locsvc);
    lab.say("records that no table could hold");
    records_out_of_bounds(&locsvc);
    lab.say("a batch is all or nothing");
    a_batch_is_all_or_nothing(&locsvc);
    lab.say("paths and methods that do not exist");
    paths_and_methods(&locsvc);
    assert_eq!(locsvc.level(), level, "nothing of all this was a change");
    lab.say("every answer to a change carries the level it made");
    levels_rise_by_one(&locsvc, level);
    assert!(locsvc.stop().success());
}

#[track_caller]
fn refused(locsvc: &Locsvc, method: Method, path: &str, body: &[u8], statuses: &[u16]) {
    let answer = locsvc.api().call(method, path, body).expect("an answer");
    assert!(
        statuses.contains(&answer.status),
        "{path}: {} {}",
        answer.status,
        answer.body
    );
    let reason = answer.json();
    let told = reason["error"]
        .as_str()
        .is_some_and(|text| !text.is_empty());
    assert!(
        told && reason["code"].is_string(),
        "{path}: no reason in {:?}",
        answer.body
    );
}

fn bodies_that_are_no_request(locsvc: &Locsvc) {
    let path = "/v1/aors/sip:a@example.net";
    let large = vec![b' '; 8 * 1024 * 1024];
    refused(locsvc, Method::PUT, path, &large, &[413]);
    refused(locsvc, Method::POST, "/v1/batch", &large, &[413]);
    for body in [
        &b"{"[..],
        b"contacts",
        b"[1,2]",
        b"\xff\xfe\x00",
        b"{\"contacts\":7}",
    ] {
        refused(locsvc, Method::PUT, path, body, &[400, 422]);
    }
    for body in [
        json!({ "contacts": [{ "uri": "sip:a@h" }], "owner": "me" }),
        json!({ "contacts": [{ "uri": "sip:a@h", "Q": 0.5 }] }),
        json!({ "contact": [{ "uri": "sip:a@h" }] }),
    ] {
        refused(
            locsvc,
            Method::PUT,
            path,
            body.to_string().as_bytes(),
            &[400, 422],
        );
    }
}

fn records_out_of_bounds(locsvc: &Locsvc) {
    let good = json!({ "contacts": [{ "uri": "sip:a@10.0.0.1" }] }).to_string();
    let long = "x".repeat(300);
    for aor in [
        format!("sip:{long}@example.net"),
        "sip:".to_owned(),
        "sip:a".to_owned() + "%00b@example.net",
        "tel:+4930".to_owned(),
        "sip:a@b@c".to_owned(),
    ] {
        refused(
            locsvc,
            Method::PUT,
            &format!("/v1/aors/{aor}"),
            good.as_bytes(),
            &[400, 422],
        );
    }
    let contact = |contact: Value| json!({ "contacts": [contact] }).to_string();
    let many: Vec<Value> = (0..40)
        .map(|n| json!({ "uri": format!("sip:c{n}@h") }))
        .collect();
    for body in [
        contact(json!({ "uri": "" })),
        contact(json!({ "uri": "not a uri" })),
        contact(json!({ "uri": format!("sip:{}@h", "x".repeat(600)) })),
        contact(json!({ "uri": "sip:a@h\r\nVia: x" })),
        contact(json!({ "uri": "sip:a@h", "q": 1.5 })),
        contact(json!({ "uri": "sip:a@h", "q": -0.1 })),
        contact(json!({ "uri": "sip:a@h", "expires_s": 0 })),
        contact(json!({ "uri": "sip:a@h", "expires_s": -5 })),
        contact(json!({ "uri": "sip:a@h", "expires_s": 99_999_999_999_u64 })),
        json!({ "contacts": many }).to_string(),
    ] {
        refused(
            locsvc,
            Method::PUT,
            "/v1/aors/sip:a@example.net",
            body.as_bytes(),
            &[400, 422],
        );
    }
    let route = json!({ "targets": [{ "uri": "sip:gw@h", "priority": 1, "weight": 1 }], "strip": 0, "prefix": "" });
    for prefix in ["1234567890123456", "12x4", "+"] {
        let path = format!("/v1/routes/{prefix}");
        refused(
            locsvc,
            Method::PUT,
            &path,
            route.to_string().as_bytes(),
            &[400, 422],
        );
    }
}

fn a_batch_is_all_or_nothing(locsvc: &Locsvc) {
    let put =
        |aor: &str, uri: &str| json!({ "op": "put_aor", "aor": aor, "contacts": [{ "uri": uri }] });
    let mixed = json!({ "changes": [put("sip:good@example.net", "sip:a@h"), put("sip:bad@example.net", "")] });
    refused(
        locsvc,
        Method::POST,
        "/v1/batch",
        mixed.to_string().as_bytes(),
        &[400, 422],
    );
    assert_eq!(
        locsvc.api().get("/v1/aors/sip:good@example.net").status,
        404
    );
    let many: Vec<Value> = (0..1_025)
        .map(|n| put(&format!("sip:m{n}@example.net"), "sip:a@h"))
        .collect();
    let body = json!({ "changes": many }).to_string();
    refused(
        locsvc,
        Method::POST,
        "/v1/batch",
        body.as_bytes(),
        &[400, 413, 422],
    );
    for body in [
        json!({ "changes": [] }),
        json!({ "changes": [{ "op": "drop_all" }] }),
    ] {
        refused(
            locsvc,
            Method::POST,
            "/v1/batch",
            body.to_string().as_bytes(),
            &[400, 413, 422],
        );
    }
}

fn paths_and_methods(locsvc: &Locsvc) {
    refused(
        locsvc,
        Method::GET,
        "/v1/aors/sip:nobody@example.net",
        b"",
        &[404],
    );
    refused(locsvc, Method::GET, "/v1/routes/4930", b"", &[404]);
    refused(locsvc, Method::GET, "/v2/level", b"", &[404]);
    refused(locsvc, Method::POST, "/v1/level", b"{}", &[405]);
}

fn levels_rise_by_one(locsvc: &Locsvc, before: u64) {
    let api = locsvc.api();
    let contacts = |uri: &str| json!({ "contacts": [{ "uri": uri }] });
    let path = "/v1/aors/sip:new@example.net";
    assert_eq!(api.put(path, &contacts("sip:1@h")).level(), before + 1);
    assert_eq!(api.put(path, &contacts("sip:2@h")).level(), before + 2);
    let got = api.get(path);
    assert_eq!(got.json()["contacts"][0]["uri"], "sip:2@h", "{}", got.body);
    assert_eq!(api.delete(path).level(), before + 3);
    assert_eq!(api.get(path).status, 404);
    assert_eq!(locsvc.level(), before + 3);
}
