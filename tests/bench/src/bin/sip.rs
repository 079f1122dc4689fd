//! bench-sip: CPU of one Kamailio worker for each INVITE answered by 302, three ways in interleaved rounds:
//! a constant, `locus_lookup()`, usrloc's `lookup()`; 100,000 addresses-of-record. Only measures.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use locus_bench::{Generator, Random, Sample, cpu_time};
use locus_lab::{Cluster, Figure, Lab, Node, Plan, write_figures};
use serde_json::{Value, json};

const AORS: usize = 100_000;
/// Interleaved rounds that count; one more before them warms up.
const ROUNDS: usize = 45;
/// Requests of one way in one round: a fraction of a second, so that whatever else the machine does falls
/// on all three ways of a round alike.
const REQUESTS: usize = 8_000;
/// The three ways, the baseline first.
const WAYS: [&str; 3] = ["constant", "locus", "usrloc"];
/// What all three send: the contacts of every address-of-record. Without q, because a script cannot set
/// that of the request URI.
const CONTACTS: [&str; 2] = ["sip:phone@10.77.0.22:7001", "sip:phone@10.77.0.22:7002"];

fn main() -> ExitCode {
    let Some(lab) = Lab::start("bench-sip") else {
        return ExitCode::FAILURE;
    };
    let mut cluster = Cluster::prepare(lab, 0);
    cluster.locsvc.settings().set("records_max", "150000");
    cluster.n1.settings().set("records_max", "150000");
    cluster.locsvc.start();
    cluster.n1.start_agent();
    println!("{AORS} addresses-of-record into Locus …");
    provision(&cluster);
    bench_config(&mut cluster.n1);
    cluster.n1.start_kamailio(&cluster.lab);
    let server = SocketAddr::from((cluster.n1.address(), 5060));
    let mut generator = Generator::new(cluster.lab.host("caller"), server);
    println!("{AORS} addresses-of-record into usrloc …");
    register(&mut generator);
    same_answers(&mut generator);
    let workers = cluster.n1.kamailio().udp_workers();
    let [worker] = workers[..] else {
        println!("bench-sip: one worker was wanted, there are {workers:?}");
        return ExitCode::FAILURE;
    };
    println!(
        "{} interleaved rounds of {REQUESTS} requests each way …",
        ROUNDS + 1
    );
    let samples = measure(&mut generator, worker);
    report(&samples);
    ExitCode::SUCCESS
}

fn provision(cluster: &Cluster) {
    let contacts = CONTACTS.map(|uri| json!({ "uri": uri }));
    let all: Vec<usize> = (0..AORS).collect();
    let mut level = 0;
    for chunk in all.chunks(1_000) {
        let changes: Vec<Value> = chunk
            .iter()
            .map(|n| {
                json!({ "op": "put_aor", "aor": format!("sip:{}@locus.example.net", user(*n)),
                    "contacts": contacts })
            })
            .collect();
        level = cluster
            .locsvc
            .api()
            .post("/v1/batch", &json!({ "changes": changes }))
            .level();
    }
    cluster.n1.wait_level(level, locus_lab::FOLLOW_DEADLINE);
}

/// Numbers as carriers provision them: one block.
fn user(n: usize) -> String {
    format!("4930{n:08}")
}

fn bench_config(node: &mut Node) {
    let plan: &mut Plan = node.plan();
    plan.config = locus_lab::root().join("tests/bench/kamailio.cfg");
    plan.memory_mib = Some(1_024);
}

fn register(generator: &mut Generator) {
    let from = generator.address();
    let mut n = 0;
    generator.run(AORS, "200", |number, out| {
        let user = user(n);
        n += 1;
        // usrloc answers with the last one first when none has a q.
        let [second, first] = CONTACTS;
        write!(
            out,
            "REGISTER sip:usrloc.example.net SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{number}\r\n\
             From: <sip:{user}@usrloc.example.net>;tag=1\r\nTo: <sip:{user}@usrloc.example.net>\r\n\
             Call-ID: r{number}\r\nCSeq: 1 REGISTER\r\nContact: <{first}>, <{second}>\r\n\
             Expires: 7200\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        .expect("a Vec takes all");
    });
}

fn invite(from: SocketAddr, way: &str, n: usize, number: u64, out: &mut Vec<u8>) {
    const BODY: &str = "v=0\r\no=- 1 1 IN IP4 10.77.0.21\r\ns=call\r\nc=IN IP4 10.77.0.21\r\nt=0 0\r\n\
        m=audio 40000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
        a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n";
    let user = user(n);
    write!(
        out,
        "INVITE sip:{user}@{way}.example.net SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{number}\r\n\
         From: \"A caller\" <sip:caller@example.net>;tag=t{number}\r\nTo: <sip:{user}@{way}.example.net>\r\n\
         Call-ID: {number}@10.77.0.21\r\nCSeq: 1 INVITE\r\nContact: <sip:caller@{from}>\r\n\
         Max-Forwards: 70\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\nUser-Agent: bench-sip\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
    .expect("a Vec takes all");
}

/// The three ways must do the same work on the wire.
fn same_answers(generator: &mut Generator) {
    let from = generator.address();
    let answers = WAYS.map(|way| {
        let text = generator.ask(|number, out| invite(from, way, 4_711, number, out));
        let contact = text.lines().find(|line| line.starts_with("Contact:"));
        contact.unwrap_or(&text).to_owned()
    });
    println!("all answer {}", answers[0]);
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:#?}"
    );
}

/// Microseconds of CPU for each request, one sample for each way.
fn measure(generator: &mut Generator, worker: u32) -> [Sample; 3] {
    let from = generator.address();
    let mut random = Random::new(20_260_101);
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for round in 0..=ROUNDS {
        // Each round begins with another way, so that none always follows the same.
        for turn in 0..WAYS.len() {
            let at = (round + turn) % WAYS.len();
            let before = cpu_time(worker);
            generator.run(REQUESTS, "302", |number, out| {
                invite(from, WAYS[at], random.below(AORS), number, out);
            });
            let spent = cpu_time(worker).saturating_sub(before);
            let requests = u32::try_from(REQUESTS).map_or(f64::INFINITY, f64::from);
            if round > 0 {
                rounds[at].push(spent.as_secs_f64() * 1e6 / requests);
            }
        }
    }
    rounds.map(|values| values.into_iter().collect())
}

fn report(samples: &[Sample; 3]) {
    let base = &samples[0];
    println!(
        "\nINVITE → 302, one worker, {AORS} addresses-of-record, {} rounds of {REQUESTS}",
        base.count()
    );
    println!("  way        µs CPU each (± 95 %)   ratio to constant (± 95 %)");
    for (way, sample) in WAYS.iter().zip(samples) {
        let ratios = sample.ratios(base);
        println!(
            "  {way:<10} {:6.2} ± {:4.2}          {:5.3} ± {:5.3}",
            sample.mean(),
            sample.interval(),
            ratios.mean(),
            ratios.interval()
        );
    }
    println!("  (usrloc with hash_size 16; floor for locus: 1.12)");
    let figure = |name, sample: &Sample| Figure {
        name,
        value: sample.mean(),
        unit: "us",
        baseline: Some(base.mean()),
    };
    let path = write_figures(
        "bench-sip",
        &[
            figure("invite_302_cpu_locus", &samples[1]),
            figure("invite_302_cpu_usrloc", &samples[2]),
        ],
    );
    println!("  {}", path.display());
}
