//! Who may do what through the example configuration: strangers reach phones, not gateways, and nobody
//! takes over another's address. Knows no table.

use locus_lab::{Callee, Cluster, Lab, Manner, Phone};
use serde_json::json;

const GATEWAY_PORT: u16 = 7_004;

#[test]
fn trust() {
    let Some(lab) = Lab::start("trust") else {
        return;
    };
    let cluster = Cluster::started(lab, 1);
    a_stranger_does_not_reach_a_gateway(&cluster);
    a_route_that_a_caller_brings_along_is_not_followed(&cluster);
    a_second_set_of_credentials_takes_over_nobody(&cluster);
    cluster.emergency_call(&cluster.n1);
}

fn a_stranger_does_not_reach_a_gateway(cluster: &Cluster) {
    cluster
        .lab
        .say("a number from a stranger is challenged, by either role");
    let callee = cluster.lab.host("callee");
    let gateway = Callee::listen(callee, GATEWAY_PORT, Manner::Answer);
    let target = json!({ "targets": [{ "uri": format!("sip:10.77.0.22:{GATEWAY_PORT}") }] });
    let api = cluster.locsvc.api();
    cluster.wait_visible(api.put("/v1/routes/4930", &target).level());
    let node = cluster.n1.address();
    let mut stranger = Phone::new(callee, "stranger");
    for port in [5060, 5070] {
        for uri in ["sip:4930123@example.net", "sip:+4930123@example.net"] {
            let answer = stranger.invite(node, port, uri);
            assert_eq!(answer.code, 407, "{uri}: {}", answer.text);
            assert_eq!(answer.headers("Contact").len(), 0, "{}", answer.text);
        }
    }
    assert_eq!(gateway.received().len(), 0);
    let mut trusted = Phone::new(cluster.lab.host("caller"), "caller");
    assert_eq!(
        trusted.invite(node, 5060, "sip:4930123@example.net").code,
        200
    );
}

fn a_route_that_a_caller_brings_along_is_not_followed(cluster: &Cluster) {
    cluster
        .lab
        .say("a Route that a caller brought along leads nowhere");
    let callee = cluster.lab.host("callee");
    let elsewhere = Callee::listen(callee, GATEWAY_PORT, Manner::Answer);
    let route = format!("Route: <sip:10.77.0.22:{GATEWAY_PORT};lr>\r\n");
    let mut caller = Phone::new(cluster.lab.host("caller"), "caller");
    let node = cluster.n1.address();
    let answer = caller.request(node, 5060, "OPTIONS", "sip:nobody@example.net", &route);
    assert_eq!(answer.code, 404, "{}", answer.text);
    assert_eq!(elsewhere.received().len(), 0);
}

/// The name that counts is the one whose password was checked, not another header's.
fn a_second_set_of_credentials_takes_over_nobody(cluster: &Cluster) {
    cluster
        .lab
        .say("credentials of two users in one REGISTER: only the proved one counts");
    let mut mallory = Phone::new(cluster.lab.host("caller"), "u0001");
    let other = "Contact: <sip:mallory@10.77.0.21:5099>\r\nExpires: 600\r\n\
                 Proxy-Authorization: Digest username=\"u0002\", realm=\"example.net\", nonce=\"x\", \
                 uri=\"sip:example.net\", response=\"00000000000000000000000000000000\"\r\n";
    let answer = mallory.register_for(cluster.n1.address(), "sip:u0002@example.net", other);
    assert!([401, 403].contains(&answer.code), "{}", answer.text);
    let api = cluster.locsvc.api();
    assert_eq!(api.get("/v1/aors/sip:u0002@example.net").status, 404);
}
