//! A panic in each entry of the module: a logged error code, and a server that lives on.
//! Knows the entries by name only.

use std::fs;
use std::path::{Path, PathBuf};

use locus_lab::{Cluster, FOLLOW_DEADLINE, Kamailio, Lab, Phone, root, scenario, wait};

/// Entries that a request reaches; the user part of the request names them.
const BY_REQUEST: [(&str, &str); 6] = [
    ("locus_lookup", "locus_lookup"),
    ("locus_lookup_uri", "locus_lookup"),
    ("locus_route", "locus_route"),
    ("locus_emergency", "locus_emergency"),
    ("locus_peer", "locus_peer"),
    ("locus", "locus"),
];
/// Entries that the core calls by itself: around each script, and every second.
const BY_ITSELF: [&str; 3] = ["before_script", "after_script", "timer"];
/// Entries that an RPC reaches.
const BY_RPC: [&[&str]; 2] = [&["locus.status"], &["locus.show", "sip:u0000@example.net"]];
/// Entries that run while the server starts.
const AT_START: [&str; 4] = ["mod_register", "modparam", "mod_init", "child_init"];

#[test]
fn a_panic_in_each_entry_is_an_error_code() {
    let Some(lab) = Lab::start("inject") else {
        return;
    };
    let module = root().join("target/inject");
    assert!(
        module.join("locus.so").exists(),
        "{}: run `make build-inject`",
        module.display()
    );
    let mut cluster = Cluster::prepare(lab, 1);
    let wish = cluster.lab.folder().join("inject");
    fs::write(&wish, "").expect("the run folder can be written");
    prepare(&mut cluster, module, &wish);
    cluster.start();
    let level = cluster.locsvc.provision(0, 1, 7_100, |_| {});
    cluster.wait_visible(level);
    let workers = cluster.n1.kamailio().udp_workers();
    assert!(!workers.is_empty());
    for (user, entry) in BY_REQUEST {
        by_request(&cluster, &wish, user, entry);
    }
    for entry in BY_ITSELF {
        by_itself(&mut cluster, &wish, entry);
    }
    let answer = register(&cluster, &wish, "locus_save");
    assert!(answer.starts_with("SIP/2.0 299 rc=-3"), "{answer}");
    let answer = register(&cluster, &wish, "");
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    for words in BY_RPC {
        fs::write(&wish, words[0]).expect("the run folder can be written");
        let refused = cluster.n1.kamailio().rpc(words);
        cluster.lab.say(&format!("{}: {refused:?}", words[0]));
        fs::write(&wish, "").expect("the run folder can be written");
        assert!(
            cluster.n1.kamailio().rpc(words).is_ok(),
            "{words:?} works again"
        );
        assert!(refused.is_err(), "{refused:?}");
        assert!(log(&mut cluster).contains(&format!("{} failed", words[0])));
    }
    assert_eq!(
        cluster.n1.kamailio().udp_workers(),
        workers,
        "no worker has died"
    );
    cluster.n1.stop_kamailio();
    for entry in AT_START {
        fs::write(&wish, entry).expect("the run folder can be written");
        at_start(&mut cluster, entry);
    }
    cluster.emergency_call(&cluster.n2);
}

/// Node 1 gets the test build and the test's configuration; node 2 stays as it is.
fn prepare(cluster: &mut Cluster, module: PathBuf, wish: &Path) {
    let plan = cluster.n1.plan();
    plan.module = module;
    plan.config = scenario("inject", "kamailio.cfg");
    plan.environment = vec![("LOCUS_INJECT".to_owned(), wish.display().to_string())];
}

fn log(cluster: &mut Cluster) -> String {
    let bytes = fs::read(cluster.n1.kamailio().process().log()).expect("the log can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn by_request(cluster: &Cluster, wish: &Path, user: &str, entry: &str) {
    let mut phone = Phone::new(cluster.lab.host("caller"), "u0000");
    let uri = format!("sip:{user}@{}", cluster.n1.address());
    let mut ask = || {
        phone
            .request(cluster.n1.address(), 5060, "OPTIONS", &uri, "")
            .text
    };
    fs::write(wish, entry).expect("the run folder can be written");
    let injected = ask();
    fs::write(wish, "").expect("the run folder can be written");
    let plain = ask();
    let code = |answer: &str| answer.lines().next().unwrap_or_default().to_owned();
    cluster.lab.say(&format!(
        "{user}: {} with a panic, {} without",
        code(&injected),
        code(&plain)
    ));
    // A variable has no return code: it has no value, and the script's own variable becomes 0.
    let wanted = if user == "locus" { "rc=0" } else { "rc=-3" };
    assert!(
        injected.starts_with(&format!("SIP/2.0 299 {wanted}")),
        "{injected}"
    );
    let works = plain.starts_with("SIP/2.0 299 rc=") && !plain.contains(wanted);
    assert!(works, "{plain}");
}

/// A panic there costs the request nothing.
fn by_itself(cluster: &mut Cluster, wish: &Path, entry: &str) {
    let address = cluster.n1.address();
    let mut phone = Phone::new(cluster.lab.host("caller"), "u0000");
    let uri = format!("sip:locus_lookup@{address}");
    fs::write(wish, entry).expect("the run folder can be written");
    let answer = phone.request(address, 5060, "OPTIONS", &uri, "").text;
    cluster.lab.say(&format!(
        "{entry}: the request is answered, and the log says what failed"
    ));
    assert!(answer.starts_with("SIP/2.0 299 rc=-1"), "{entry}: {answer}");
    wait::until(&format!("{entry} to be logged"), FOLLOW_DEADLINE, || {
        log(cluster).contains(&format!("{entry} failed"))
    });
    fs::write(wish, "").expect("the run folder can be written");
}

fn register(cluster: &Cluster, wish: &Path, entry: &str) -> String {
    fs::write(wish, entry).expect("the run folder can be written");
    let mut phone = Phone::new(cluster.lab.host("caller"), "u0000");
    let contact = "Contact: <sip:u0000@10.77.0.21:7001>\r\n";
    phone.register(cluster.n1.address(), contact).text
}

fn at_start(cluster: &mut Cluster, entry: &str) {
    let namespace = cluster.lab.host("n1").clone();
    let name = format!("start-{entry}");
    let mut kamailio = Kamailio::launch(&cluster.lab, &name, &namespace, cluster.n1.plan());
    let status = kamailio.process().finish(FOLLOW_DEADLINE);
    let bytes = fs::read(kamailio.process().log()).expect("the log can be read");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    cluster
        .lab
        .say(&format!("{entry}: the server refuses to start, {status}"));
    assert!(
        text.contains(&format!("{entry} failed")),
        "{entry} is not in the log"
    );
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{entry}: {status}, not an orderly refusal"
    );
}
