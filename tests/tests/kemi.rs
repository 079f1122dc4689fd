//! The module's functions from a KEMI script (Lua): the same answers as from kamailio.cfg.
//! Knows no table.

use locus_lab::{Cluster, Lab, Phone, scenario};
use serde_json::json;

#[test]
fn every_function_answers_a_lua_script() {
    let Some(lab) = Lab::start("kemi") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    let script = scenario("kemi", "kemi.lua");
    let plan = cluster.n1.plan();
    plan.config = scenario("kemi", "kamailio.cfg");
    plan.defines
        .push(format!("KEMI_SCRIPT=\"{}\"", script.display()));
    cluster.start();
    let api = cluster.locsvc.api();
    let contact = json!({ "contacts": [{ "uri": "sip:alice@10.77.0.22:7001" }] });
    api.put("/v1/aors/sip:alice@example.net", &contact);
    let behind_nat = json!({ "contacts": [
        { "uri": "sip:bob@192.0.2.1", "received": "sip:10.77.0.22:7002" }
    ] });
    api.put("/v1/aors/sip:bob@example.net", &behind_nat);
    let route = json!({ "targets": [{ "uri": "sip:10.77.0.22:7003" }], "strip": 2, "prefix": "0" });
    let level = api.put("/v1/routes/4930", &route).level();
    cluster.wait_visible(level);

    let node = cluster.n1.address();
    let mut phone = Phone::new(cluster.lab.host("caller"), "u0000");
    let mut ask = |uri: &str| phone.request(node, 5060, "OPTIONS", uri, "").text;
    for (uri, expected) in [
        ("sip:alice@example.net", "rc=1 sip:alice@10.77.0.22:7001"),
        (
            "sip:bob@example.net",
            "rc=2 sip:bob@192.0.2.1 sip:10.77.0.22:7002",
        ),
        ("sip:nobody@example.net", "rc=-1 "),
        (
            "sip:lookup_uri@example.net",
            "rc=1 sip:alice@10.77.0.22:7001",
        ),
        (
            "sip:49301234@example.net",
            "rc=1 sip:0301234@10.77.0.22:7003",
        ),
        ("sip:4401234@example.net", "rc=-1 "),
        ("sip:route@example.net", "rc=-3 "),
        ("sip:112@example.net", "rc=emergency "),
    ] {
        let answer = ask(uri);
        let status = answer.lines().next().unwrap_or_default();
        assert!(
            status.starts_with(&format!("SIP/2.0 299 {expected}")),
            "{uri}: {status}"
        );
    }
    cluster
        .lab
        .say("a script that changes the Request-URI first is answered for what it has become");
    for way in ["whole", "user", "variable", "user_variable", "twice"] {
        let answer = ask(&format!("sip:rewritten_{way}@example.net"));
        let status = answer.lines().next().unwrap_or_default();
        assert!(
            status.starts_with("SIP/2.0 299 rc=1 sip:alice@10.77.0.22:7001"),
            "{way}: {status}"
        );
    }
    let peer = format!(
        "rc=1 sip:peer@example.net sip:{}:5060",
        cluster.n2.address()
    );
    assert!(ask("sip:peer@example.net").contains(&peer));

    cluster.lab.say("KSR.locus.save() answers the phone itself");
    let mut owner = Phone::new(cluster.lab.host("caller"), "u0001");
    let extra = "Contact: <sip:u0001@10.77.0.21:5099>\r\nExpires: 600\r\n";
    let answer = owner.request(node, 5060, "REGISTER", "sip:u0001@example.net", extra);
    assert_eq!(answer.code, 200, "{}", answer.text);
    assert_eq!(answer.expires_of("sip:u0001@10.77.0.21:5099"), Some(600));
    cluster.emergency_call(&cluster.n2);
}
