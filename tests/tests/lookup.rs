//! Look-ups as callers see them, through the example configuration: order, branches, what only a proxy can
//! reach, methods, nothing found, emergency. Knows no table.

use std::time::Duration;

use locus_lab::{Callee, Cluster, Lab, Manner, Node, Phone, wait};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn lookup() {
    let Some(lab) = Lab::start("lookup") else {
        return;
    };
    let cluster = Cluster::started(lab, 1);
    nothing_is_found(&cluster);
    a_redirect_lists_contacts_by_q(&cluster);
    a_proxied_call_forks(&cluster);
    a_failing_branch_does_not_hide_the_others(&cluster);
    what_needs_received_or_path_is_only_proxied(&cluster);
    methods_are_respected(&cluster);
    an_expired_contact_is_not_called(&cluster);
    numbers_are_routed_by_longest_prefix(&cluster);
    emergency_calls_complete(&cluster);
    a_node_without_table_answers_500_or_hands_on(cluster);
}

fn put(cluster: &Cluster, aor: &str, contacts: &Value) {
    let body = json!({ "contacts": contacts });
    let level = cluster
        .locsvc
        .api()
        .put(&format!("/v1/aors/{aor}"), &body)
        .level();
    cluster.wait_visible(level);
}

fn caller(cluster: &Cluster) -> Phone {
    Phone::new(cluster.lab.host("caller"), "caller")
}

fn callee(cluster: &Cluster, port: u16, manner: Manner) -> Callee {
    Callee::listen(cluster.lab.host("callee"), port, manner)
}

fn nothing_is_found(cluster: &Cluster) {
    cluster.lab.say("a stranger is not found, by either role");
    let n2 = cluster.n2.address();
    let mut phone = caller(cluster);
    assert_eq!(phone.invite(n2, 5070, "sip:nobody@example.net").code, 404);
    assert_eq!(phone.invite(n2, 5060, "sip:nobody@example.net").code, 404);
}

fn a_redirect_lists_contacts_by_q(cluster: &Cluster) {
    cluster
        .lab
        .say("302: contacts by q, and in the order given where q is equal");
    put(
        cluster,
        "sip:order@example.net",
        &json!([
            { "uri": "sip:third@10.77.0.22:7001", "q": 0.3 },
            { "uri": "sip:first@10.77.0.22:7001", "q": 1.0 },
            { "uri": "sip:second-a@10.77.0.22:7001", "q": 0.7 },
            { "uri": "sip:second-b@10.77.0.22:7001", "q": 0.7 },
        ]),
    );
    for node in [&cluster.n1, &cluster.n2] {
        let answer = caller(cluster).invite(node.address(), 5070, "sip:order@example.net");
        assert_eq!(answer.code, 302, "{}", answer.text);
        let users = ["first", "second-a", "second-b", "third"];
        assert_eq!(
            answer.contacts(),
            users.map(|user| format!("sip:{user}@10.77.0.22:7001"))
        );
        assert!(
            answer.header("Contact").contains("q=0.7"),
            "{}",
            answer.text
        );
    }
    cluster
        .lab
        .say("case and escapes do not matter (RFC 3261 19.1.4)");
    let answer = caller(cluster).invite(cluster.n2.address(), 5070, "sip:ORD%65R@Example.NET");
    assert_eq!(answer.code, 302, "{}", answer.text);
}

fn a_proxied_call_forks(cluster: &Cluster) {
    cluster
        .lab
        .say("proxy: three branches, one answers, the others are cancelled");
    let answering = callee(cluster, 7001, Manner::Answer);
    let ringing = [
        callee(cluster, 7002, Manner::Ring),
        callee(cluster, 7003, Manner::Ring),
    ];
    put(
        cluster,
        "sip:forked@example.net",
        &json!([
            { "uri": answering.uri("forked"), "q": 0.5 },
            { "uri": ringing[0].uri("forked"), "q": 1.0 },
            { "uri": ringing[1].uri("forked"), "q": 0.7 },
        ]),
    );
    let answer = caller(cluster).invite(cluster.n2.address(), 5060, "sip:forked@example.net");
    assert_eq!(answer.code, 200, "{}", answer.text);
    assert_eq!(answering.count("INVITE", "sip:forked@"), 1);
    for phone in &ringing {
        wait::until("the ringing phones to be cancelled", SOON, || {
            phone.count("INVITE", "sip:forked@") == 1 && phone.count("CANCEL", "sip:forked@") >= 1
        });
    }
}

fn a_failing_branch_does_not_hide_the_others(cluster: &Cluster) {
    cluster
        .lab
        .say("proxy: one phone is busy, the other answers; all busy is busy");
    let (busy, answering) = (
        callee(cluster, 7001, Manner::Reject(486)),
        callee(cluster, 7002, Manner::Answer),
    );
    put(
        cluster,
        "sip:busy@example.net",
        &json!([{ "uri": busy.uri("busy"), "q": 1.0 }, { "uri": answering.uri("busy"), "q": 0.5 }]),
    );
    let n2 = cluster.n2.address();
    assert_eq!(
        caller(cluster)
            .invite(n2, 5060, "sip:busy@example.net")
            .code,
        200
    );
    put(
        cluster,
        "sip:busy@example.net",
        &json!([{ "uri": busy.uri("busy") }]),
    );
    assert_eq!(
        caller(cluster)
            .invite(n2, 5060, "sip:busy@example.net")
            .code,
        486
    );
}

fn what_needs_received_or_path_is_only_proxied(cluster: &Cluster) {
    cluster
        .lab
        .say("a contact behind NAT or behind a Path proxy is never handed out by redirect");
    let phone = callee(cluster, 7004, Manner::Answer);
    let n2 = cluster.n2.address();
    let nat = json!([{ "uri": "sip:nat@192.168.1.2:5060", "received": "sip:10.77.0.22:7004" }]);
    let path = json!([{ "uri": "sip:path@192.168.1.3:5060", "path": "<sip:10.77.0.22:7004;lr>" }]);
    for (user, contacts) in [("nat", nat), ("path", path)] {
        let aor = format!("sip:{user}@example.net");
        put(cluster, &aor, &contacts);
        let answer = caller(cluster).invite(n2, 5060, &aor);
        assert_eq!(answer.code, 200, "{user} by proxy: {}", answer.text);
        assert_eq!(phone.count("INVITE", &format!("sip:{user}@192.168.1.")), 1);
        let answer = caller(cluster).invite(n2, 5070, &aor);
        assert_eq!(
            answer.code, 200,
            "{user} by redirect is relayed: {}",
            answer.text
        );
        assert_eq!(phone.count("INVITE", &format!("sip:{user}@192.168.1.")), 2);
    }
    let requests = phone.received();
    let routed = requests
        .iter()
        .find(|text| text.contains("sip:path@192.168.1.3"));
    assert!(routed.is_some_and(|text| text.contains("\r\nRoute: <sip:10.77.0.22:7004;lr>")));
}

fn methods_are_respected(cluster: &Cluster) {
    cluster
        .lab
        .say("a contact that takes INVITE only is not sent a MESSAGE: 405");
    let phone = callee(cluster, 7001, Manner::Answer);
    let mut owner = Phone::new(cluster.lab.host("caller"), "u0000");
    let contact = format!(
        "Contact: <{}>;methods=\"INVITE, ACK, BYE, CANCEL\"\r\n",
        phone.uri("u0000")
    );
    let answer = owner.register(cluster.n2.address(), &contact);
    assert_eq!(answer.code, 200, "{}", answer.text);
    let n2 = cluster.n2.address();
    assert_eq!(
        caller(cluster)
            .invite(n2, 5060, "sip:u0000@example.net")
            .code,
        200
    );
    let answer = caller(cluster).request(n2, 5060, "MESSAGE", "sip:u0000@example.net", "");
    assert_eq!(answer.code, 405, "{}", answer.text);
    assert_eq!(phone.count("MESSAGE", ""), 0);
}

fn an_expired_contact_is_not_called(cluster: &Cluster) {
    cluster
        .lab
        .say("a contact is found until it expires, and not afterwards");
    put(
        cluster,
        "sip:brief@example.net",
        &json!([{ "uri": "sip:brief@10.77.0.22:7001", "expires_s": 2 }]),
    );
    let n2 = cluster.n2.address();
    assert_eq!(
        caller(cluster)
            .invite(n2, 5070, "sip:brief@example.net")
            .code,
        302
    );
    wait::until("the contact to expire", SOON, || {
        caller(cluster)
            .invite(n2, 5070, "sip:brief@example.net")
            .code
            == 404
    });
    cluster
        .lab
        .say("and the master removes it by a logged change");
    wait::until("the master to remove it", Duration::from_secs(10), || {
        cluster
            .locsvc
            .api()
            .get("/v1/aors/sip:brief@example.net")
            .status
            == 404
    });
}

fn numbers_are_routed_by_longest_prefix(cluster: &Cluster) {
    cluster
        .lab
        .say("a number goes where its longest prefix says");
    let (general, special) = (
        callee(cluster, 7005, Manner::Answer),
        callee(cluster, 7006, Manner::Answer),
    );
    let target = |phone: &Callee| {
        let uri = phone.uri("x").replace("x@", "");
        json!({ "targets": [{ "uri": uri, "priority": 1, "weight": 1 }], "strip": 0, "prefix": "" })
    };
    let api = cluster.locsvc.api();
    api.put("/v1/routes/49", &target(&general)).level();
    let level = api.put("/v1/routes/4930", &target(&special)).level();
    cluster.wait_visible(level);
    let n2 = cluster.n2.address();
    assert_eq!(
        caller(cluster)
            .invite(n2, 5060, "sip:+493012345@example.net")
            .code,
        200
    );
    assert_eq!(
        (
            general.count("INVITE", ""),
            special.count("INVITE", "493012345")
        ),
        (0, 1)
    );
    assert_eq!(
        caller(cluster)
            .invite(n2, 5060, "sip:+498912345@example.net")
            .code,
        200
    );
    assert_eq!(
        (
            general.count("INVITE", "498912345"),
            special.count("INVITE", "")
        ),
        (1, 1)
    );
    assert_eq!(
        caller(cluster)
            .invite(n2, 5060, "sip:+3312345@example.net")
            .code,
        404
    );
    cluster
        .lab
        .say("what is no number, or too long for one, is not found");
    for user in ["%2B4930x1", "123456789012345678901234567890", "%2B"] {
        let uri = format!("sip:{user}@example.net");
        let code = caller(cluster).invite(n2, 5060, &uri).code;
        assert!(matches!(code, 404 | 484), "{uri}: {code}");
    }
}

fn emergency_calls_complete(cluster: &Cluster) {
    cluster
        .lab
        .say("112, 911 and urn:service:sos reach the answering point with their headers");
    let point = cluster.answering_point();
    let headers = "Geolocation: <cid:here@caller>\r\nResource-Priority: esnet.0\r\n";
    for port in [5060, 5070] {
        for uri in [
            "sip:112@example.net",
            "sip:911@example.net",
            "urn:service:sos",
            "urn:service:sos.fire",
        ] {
            let answer =
                caller(cluster).request(cluster.n2.address(), port, "INVITE", uri, headers);
            assert_eq!(answer.code, 200, "{uri} at port {port}: {}", answer.text);
        }
    }
    let calls: Vec<String> = point
        .received()
        .into_iter()
        .filter(|text| text.starts_with("INVITE "))
        .collect();
    assert_eq!(calls.len(), 8);
    for call in calls {
        assert!(headers.lines().all(|line| call.contains(line)), "{call}");
    }
}

fn a_node_without_table_answers_500_or_hands_on(mut cluster: Cluster) {
    cluster
        .lab
        .say("a node whose table is gone hands a call to its peer, once");
    lose_table(&mut cluster.n2, &cluster.lab);
    cluster.emergency_call(&cluster.n2);
    let answering = callee(&cluster, 7001, Manner::Answer);
    let order = "sip:order@example.net";
    assert_eq!(
        caller(&cluster)
            .invite(cluster.n2.address(), 5060, order)
            .code,
        200
    );
    assert_eq!(answering.count("INVITE", "first@"), 1);
    cluster
        .lab
        .say("with no peer ready it answers 500 with Retry-After, never 503");
    lose_table(&mut cluster.n1, &cluster.lab);
    for port in [5060, 5070] {
        let answer = caller(&cluster).invite(cluster.n2.address(), port, order);
        assert_eq!(answer.code, 500, "{}", answer.text);
        let retry = answer
            .header("Retry-After")
            .parse::<u32>()
            .unwrap_or_default();
        assert!((1..=120).contains(&retry), "{}", answer.text);
    }
    cluster.emergency_call(&cluster.n2);
    cluster.lab.say("the agents come, and the nodes answer");
    cluster.n1.start_agent();
    cluster.n2.start_agent();
    cluster.wait_coherent();
    for node in [&cluster.n1, &cluster.n2] {
        let answer = caller(&cluster).invite(node.address(), 5070, order);
        assert_eq!(answer.code, 302, "{}", answer.text);
    }
}

fn lose_table(node: &mut Node, lab: &Lab) {
    node.stop_kamailio();
    node.stop_agent();
    for entry in std::fs::read_dir(node.table().path()).expect("the folder is there") {
        std::fs::remove_file(entry.expect("it can be read").path()).expect("it can be emptied");
    }
    node.start_kamailio(lab);
}
