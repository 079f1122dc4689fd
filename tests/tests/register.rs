//! REGISTER as phones see it, through the example configuration: who may, what is refused, what comes back.
//! Knows no registrar.

use std::time::Duration;

use locus_lab::{Cluster, Lab, Phone, wait};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn register() {
    let Some(lab) = Lab::start("register") else {
        return;
    };
    let cluster = Cluster::started(lab, 12);
    only_the_owner_may(&cluster);
    a_phone_is_found_where_it_registered_and_everywhere(&cluster);
    contacts_are_fetched_refreshed_and_removed(&cluster);
    an_older_cseq_is_refused(&cluster);
    a_star_removes_all(&cluster);
    an_expiry_below_the_minimum_is_423(&cluster);
    malformed_and_oversized_values_are_refused(&cluster);
    too_many_contacts_are_refused(&cluster);
    cluster.emergency_call(&cluster.n1);
}

fn phone(cluster: &Cluster, user: &str) -> Phone {
    Phone::new(cluster.lab.host("caller"), user)
}

/// Contacts that locsvc holds for the user.
fn held(cluster: &Cluster, user: &str) -> Vec<String> {
    let answer = cluster
        .locsvc
        .api()
        .get(&format!("/v1/aors/sip:{user}@example.net"));
    let json = answer.json();
    let contacts = json["contacts"].as_array().cloned().unwrap_or_default();
    contacts
        .iter()
        .filter_map(|contact| Some(contact["uri"].as_str()?.to_owned()))
        .collect()
}

fn only_the_owner_may(cluster: &Cluster) {
    cluster
        .lab
        .say("no or wrong credentials: 401; somebody else's address: 403");
    let n1 = cluster.n1.address();
    let contact = "Contact: <sip:me@10.77.0.21:7001>\r\n";
    let level = cluster.locsvc.level();
    let wrong = phone(cluster, "u0000")
        .with_password("guess")
        .register(n1, contact);
    assert_eq!(wrong.code, 401, "{}", wrong.text);
    let unknown = phone(cluster, "u9999").register(n1, contact);
    assert_eq!(unknown.code, 401, "{}", unknown.text);
    let other = phone(cluster, "u0000").register_for(n1, "sip:u0001@example.net", contact);
    assert_eq!(other.code, 403, "{}", other.text);
    assert_eq!(cluster.locsvc.level(), level, "nothing was changed");
    assert!(held(cluster, "u0001").is_empty());
}

fn a_phone_is_found_where_it_registered_and_everywhere(cluster: &Cluster) {
    cluster
        .lab
        .say("after the 200 the phone is found on that node at once, on the other one soon");
    let (n1, n2) = (cluster.n1.address(), cluster.n2.address());
    let mut registered = phone(cluster, "u0000");
    let answer = registered.register(n1, "Contact: <sip:u0000@10.77.0.22:7001>;expires=120\r\n");
    assert_eq!(answer.code, 200, "{}", answer.text);
    assert_eq!(answer.contacts(), ["sip:u0000@10.77.0.22:7001"]);
    let expires = answer.expires_of("sip:u0000@10.77.0.22:7001");
    assert!(
        expires.is_some_and(|seconds| (119..=120).contains(&seconds)),
        "{}",
        answer.text
    );
    let mut caller = phone(cluster, "u0001");
    let here = caller.invite(n1, 5070, "sip:u0000@example.net");
    assert_eq!(
        (here.code, here.contacts()),
        (302, vec!["sip:u0000@10.77.0.22:7001".to_owned()])
    );
    wait::until("the other node to find it", SOON, || {
        caller.invite(n2, 5070, "sip:u0000@example.net").code == 302
    });
}

fn contacts_are_fetched_refreshed_and_removed(cluster: &Cluster) {
    cluster
        .lab
        .say("two contacts in one REGISTER, a fetch without any, one removed by expires=0");
    let n1 = cluster.n1.address();
    let mut owner = phone(cluster, "u0002");
    let two =
        "Contact: <sip:b@10.77.0.22:7001>;q=0.5, <sip:a@10.77.0.22:7001>;q=0.9\r\nExpires: 300\r\n";
    let answer = owner.register(n1, two);
    assert_eq!(answer.code, 200, "{}", answer.text);
    let both = ["sip:a@10.77.0.22:7001", "sip:b@10.77.0.22:7001"];
    assert_eq!(held(cluster, "u0002"), both);
    let fetched = owner.register(n1, "");
    assert_eq!(
        (fetched.code, fetched.contacts()),
        (200, both.map(str::to_owned).to_vec())
    );
    let refreshed = owner.register(n1, "Contact: <sip:a@10.77.0.22:7001>;q=0.1;expires=600\r\n");
    assert_eq!(
        refreshed.contacts(),
        ["sip:b@10.77.0.22:7001", "sip:a@10.77.0.22:7001"]
    );
    let removed = owner.register(n1, "Contact: <sip:b@10.77.0.22:7001>;expires=0\r\n");
    assert_eq!(
        (removed.code, removed.contacts()),
        (200, vec![both[0].to_owned()])
    );
}

fn an_older_cseq_is_refused(cluster: &Cluster) {
    cluster
        .lab
        .say("an older CSeq in the same Call-ID changes nothing (RFC 3261 10.3)");
    let n1 = cluster.n1.address();
    let mut owner = phone(cluster, "u0003");
    let aor = owner.aor();
    let newer = owner.register_as(
        n1,
        &aor,
        "same",
        100,
        "Contact: <sip:c@10.77.0.22:7001>;q=0.9\r\n",
    );
    assert_eq!(newer.code, 200, "{}", newer.text);
    let level = cluster.locsvc.level();
    let older = owner.register_as(
        n1,
        &aor,
        "same",
        90,
        "Contact: <sip:c@10.77.0.22:7001>;expires=0\r\n",
    );
    assert!((400..600).contains(&older.code), "{}", older.text);
    assert_eq!(cluster.locsvc.level(), level, "nothing was changed");
    assert_eq!(held(cluster, "u0003"), ["sip:c@10.77.0.22:7001"]);
    cluster
        .lab
        .say("another Call-ID (the phone was restarted) is no obstacle");
    let other = owner.register_as(
        n1,
        &aor,
        "other",
        2,
        "Contact: <sip:c@10.77.0.22:7001>;expires=0\r\n",
    );
    assert_eq!(other.code, 200, "{}", other.text);
    assert!(held(cluster, "u0003").is_empty());
}

fn a_star_removes_all(cluster: &Cluster) {
    cluster
        .lab
        .say("Contact: * removes all with Expires: 0, and is malformed otherwise");
    let n1 = cluster.n1.address();
    let mut owner = phone(cluster, "u0004");
    let two = "Contact: <sip:a@10.77.0.22:7001>, <sip:b@10.77.0.22:7001>\r\n";
    assert_eq!(owner.register(n1, two).code, 200);
    let wrong = owner.register(n1, "Contact: *\r\nExpires: 60\r\n");
    assert_eq!(wrong.code, 400, "{}", wrong.text);
    let mixed = owner.register(
        n1,
        "Contact: *\r\nContact: <sip:a@10.77.0.22:7001>\r\nExpires: 0\r\n",
    );
    assert_eq!(mixed.code, 400, "{}", mixed.text);
    assert_eq!(held(cluster, "u0004").len(), 2);
    let all = owner.register(n1, "Contact: *\r\nExpires: 0\r\n");
    assert_eq!((all.code, all.contacts().len()), (200, 0), "{}", all.text);
    assert!(held(cluster, "u0004").is_empty());
}

fn an_expiry_below_the_minimum_is_423(cluster: &Cluster) {
    cluster
        .lab
        .say("an expiry below the minimum: 423 with Min-Expires; above the maximum: shortened");
    let n1 = cluster.n1.address();
    let mut owner = phone(cluster, "u0005");
    let brief = owner.register(n1, "Contact: <sip:a@10.77.0.22:7001>;expires=5\r\n");
    assert_eq!(
        (brief.code, brief.header("Min-Expires")),
        (423, "60"),
        "{}",
        brief.text
    );
    let long = owner.register(
        n1,
        "Contact: <sip:a@10.77.0.22:7001>;expires=4000000000\r\n",
    );
    assert_eq!(long.code, 200, "{}", long.text);
    let granted = long.expires_of("sip:a@10.77.0.22:7001");
    assert!(
        granted.is_some_and(|seconds| (3_599..=3_600).contains(&seconds)),
        "{}",
        long.text
    );
}

fn malformed_and_oversized_values_are_refused(cluster: &Cluster) {
    cluster
        .lab
        .say("malformed or oversized contacts, q and addresses: refused, nothing changed");
    let n1 = cluster.n1.address();
    let level = cluster.locsvc.level();
    let long = "x".repeat(600);
    let contacts = [
        format!("Contact: <sip:{long}@10.77.0.22:7001>\r\n"),
        "Contact: <http://10.77.0.22/>\r\n".to_owned(),
        "Contact: <sip:@@>\r\n".to_owned(),
        "Contact: <sip:a@10.77.0.22:7001\r\n".to_owned(),
        "Contact: <sip:a@10.77.0.22:7001>;q=7.5\r\n".to_owned(),
        "Contact: <sip:a@10.77.0.22:7001>;q=abc\r\n".to_owned(),
    ];
    for contact in contacts {
        let answer = phone(cluster, "u0006").register(n1, &contact);
        assert!(
            (400..500).contains(&answer.code),
            "{contact}{}",
            answer.text
        );
    }
    let mut owner = phone(cluster, "u0006");
    let aor = format!("sip:{long}@example.net");
    let answer = owner.register_for(n1, &aor, "Contact: <sip:a@10.77.0.22:7001>\r\n");
    assert!((400..500).contains(&answer.code), "{}", answer.text);
    assert_eq!(cluster.locsvc.level(), level, "nothing was changed");
    cluster
        .lab
        .say("an expires that is no number counts as the default (RFC 3261 20.19)");
    let answer = owner.register(n1, "Contact: <sip:a@10.77.0.22:7001>;expires=soon\r\n");
    assert!(matches!(answer.code, 200 | 400), "{}", answer.text);
    let granted = answer.expires_of("sip:a@10.77.0.22:7001");
    assert!(
        answer.code == 400 || granted.is_some_and(|seconds| seconds > 3_590),
        "{}",
        answer.text
    );
}

fn too_many_contacts_are_refused(cluster: &Cluster) {
    cluster
        .lab
        .say("more contacts than a look-up may return: refused as a whole");
    let n1 = cluster.n1.address();
    let contacts: String = (0..20)
        .map(|n| format!("Contact: <sip:c{n}@10.77.0.22:7001>\r\n"))
        .collect();
    let answer = phone(cluster, "u0007").register(n1, &contacts);
    assert!(
        (400..600).contains(&answer.code) && answer.code != 503,
        "{}",
        answer.text
    );
    assert!(held(cluster, "u0007").is_empty());
}
