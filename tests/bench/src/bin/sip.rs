//! bench-sip: CPU of one Kamailio worker for each INVITE answered by 302, three ways in interleaved rounds:
//! a constant, `locus_lookup()`, usrloc's `lookup()`; 100,000 addresses-of-record. Only measures.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use locus_bench::{
    Generator, Random, Rounds, Subscriber, WINDOW, cpu_time, float, header, is_quick,
    load_averages, provision,
};
use locus_lab::{Cluster, FOLLOW_DEADLINE, Figure, Lab, Node, PROXY_PORT, root, write_figures};

const AORS: usize = 100_000;
/// Room of all tables for them.
const RECORDS_MAX: &str = "150000";
/// Interleaved rounds that count; one more before them warms up.
const ROUNDS: usize = 45;
const QUICK_ROUNDS: usize = 5;
/// Requests of one way in one round: a fraction of a second, so that whatever else the machine does falls
/// on all three ways of a round alike.
const REQUESTS: usize = 8_000;
/// The three ways, the baseline first; each is the first label of a domain in `kamailio.cfg`.
const WAYS: [&str; 3] = ["constant", "locus", "usrloc"];
/// Whose contact the constant sends: a number that is never called, so equally long as every other.
const CONSTANT: Subscriber = Subscriber(99_999_999);

fn main() -> ExitCode {
    let Some(lab) = Lab::start("bench-sip") else {
        return ExitCode::FAILURE;
    };
    println!("load averages before: {}", load_averages());
    let mut cluster = Cluster::prepare(lab, 0);
    cluster.locsvc.settings().set("records_max", RECORDS_MAX);
    cluster.n1.settings().set("records_max", RECORDS_MAX);
    cluster.locsvc.start();
    cluster.n1.start_agent();
    println!("{AORS} addresses-of-record into Locus …");
    let level = provision(&cluster.locsvc, AORS);
    cluster.n1.wait_level(level, FOLLOW_DEADLINE);
    let Some(as_installed) = bench(&mut cluster, 1) else {
        return ExitCode::FAILURE;
    };
    report(&as_installed);
    let Some(ways) = bench(&mut cluster, 0) else {
        return ExitCode::FAILURE;
    };
    report(&ways);
    println!("  {} (mem_join=0)", write(&ways).display());
    ExitCode::SUCCESS
}

/// Starts Kamailio, fills usrloc and measures all ways. `mem_join` is Kamailio's: 1 is how Debian's runs; with 0
/// its allocator does not swamp the baseline (see `kamailio.cfg`), so the figures are from there.
fn bench(cluster: &mut Cluster, mem_join: u8) -> Option<[Rounds; 3]> {
    configure(&mut cluster.n1, mem_join);
    cluster.n1.start_kamailio(&cluster.lab);
    // In the node's own namespace, over loopback: the network's share, which all ways have in common and
    // which hides what they differ in, is the smallest.
    let server = SocketAddr::from((cluster.n1.address(), PROXY_PORT));
    let mut generator = Generator::new(cluster.lab.host("n1"), server);
    println!("\nmem_join={mem_join}: {AORS} addresses-of-record into usrloc …");
    register(&mut generator);
    let (request, answer) = same_answers(&mut generator);
    let workers = cluster.n1.kamailio().udp_workers();
    let [worker] = workers[..] else {
        println!("bench-sip: one worker was wanted, there are {workers:?}");
        return None;
    };
    let rounds = if is_quick() { QUICK_ROUNDS } else { ROUNDS };
    println!(
        "INVITE ({request} bytes) → 302 ({answer} bytes, each checked), one worker, window {WINDOW}, \
         {rounds} interleaved rounds of {REQUESTS} each way …"
    );
    let ways = measure(&mut generator, worker, rounds);
    cluster.n1.stop_kamailio();
    Some(ways)
}

fn configure(node: &mut Node, mem_join: u8) {
    let contact = CONSTANT.contact(0);
    let plan = node.plan();
    plan.config = root().join("tests/bench/kamailio.cfg");
    plan.memory_mib = Some(1_024);
    for (name, value) in [
        ("MEM_JOIN", mem_join.to_string()),
        ("CONSTANT_CONTACT", format!("\"{contact}\"")),
    ] {
        let define = format!("{name}=");
        plan.defines.retain(|old| !old.starts_with(&define));
        plan.defines.push(define + &value);
    }
}

fn register(generator: &mut Generator) {
    let from = generator.address();
    let mut n = 0;
    let write = |number: u64, out: &mut Vec<u8>| {
        let (user, contact) = (Subscriber(n).user(), Subscriber(n).contact(0));
        let instance = Subscriber(n).instance();
        n += 1;
        write!(
            out,
            "REGISTER sip:usrloc.example.net SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{number}\r\n\
             From: <sip:{user}@usrloc.example.net>;tag=1\r\nTo: <sip:{user}@usrloc.example.net>\r\n\
             Call-ID: {number}@bench\r\nCSeq: 1 REGISTER\r\n\
             Contact: <{contact}>;+sip.instance=\"{instance}\"\r\n\
             Expires: 7200\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        .expect("a Vec takes all");
    };
    generator.run(AORS, "200", write, |_, _| true);
}

fn invite(from: SocketAddr, way: &str, called: Subscriber, number: u64, out: &mut Vec<u8>) {
    const BODY: &str = "v=0\r\no=- 1 1 IN IP4 10.77.0.21\r\ns=call\r\nc=IN IP4 10.77.0.21\r\nt=0 0\r\n\
        m=audio 40000 RTP/AVP 9 8 0 101\r\na=rtpmap:9 G722/8000\r\na=rtpmap:8 PCMA/8000\r\n\
        a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n";
    let user = called.user();
    write!(
        out,
        "INVITE sip:{user}@{way}.example.net SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{number}\r\n\
         From: \"A caller\" <sip:caller@example.net>;tag=t{number}\r\nTo: <sip:{user}@{way}.example.net>\r\n\
         Call-ID: {number}@10.77.0.21\r\nCSeq: 1 INVITE\r\nContact: <sip:caller@{from}>\r\n\
         Max-Forwards: 70\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK\r\n\
         Supported: replaces, 100rel\r\nUser-Agent: bench-sip\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
    .expect("a Vec takes all");
}

/// Who is called by request `number`: somebody at random, the same one whenever it is asked.
fn called(number: u64) -> Subscriber {
    Subscriber(Random::new(number).below(AORS))
}

/// The contact that the answer of `way` must have.
fn expected(way: &str, called: Subscriber) -> String {
    let of = if way == WAYS[0] { CONSTANT } else { called };
    format!("<{}>", of.contact(0))
}

/// The three ways must do the same work on the wire. Returns the lengths of request and answer.
fn same_answers(generator: &mut Generator) -> (usize, usize) {
    let from = generator.address();
    let mut length = 0;
    let answers = WAYS.map(|way| {
        let write = |number, out: &mut Vec<u8>| {
            invite(from, way, Subscriber(4_711), number, out);
            length = out.len();
        };
        let text = generator.ask("302", write);
        let contact = text.lines().find(|line| line.starts_with("Contact:"));
        let line = contact.unwrap_or(&text).to_owned();
        let own = expected(way, Subscriber(4_711));
        (line.replace(&own, "<its contact>"), text.len() - way.len())
    });
    println!("all answer {:?}", answers[0].0);
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "not the same answers: {answers:#?}"
    );
    (length, answers[0].1)
}

/// Microseconds of CPU for each request, for each way.
fn measure(generator: &mut Generator, worker: u32, rounds: usize) -> [Rounds; 3] {
    let from = generator.address();
    let mut ways: [Rounds; 3] = Default::default();
    for round in 0..=rounds {
        // Each round begins with another way, so that none always follows the same.
        for turn in 0..WAYS.len() {
            let at = (round + turn) % WAYS.len();
            let way = WAYS[at];
            let before = cpu_time(worker);
            generator.run(
                REQUESTS,
                "302",
                |number, out| invite(from, way, called(number), number, out),
                |number, answer| {
                    let own = expected(way, called(number));
                    header(answer, "Contact: ")
                        .is_some_and(|contact| contact.starts_with(own.as_bytes()))
                },
            );
            let spent = cpu_time(worker).saturating_sub(before);
            if round > 0 {
                ways[at].push(spent.as_secs_f64() * 1e6 / float(REQUESTS));
            }
        }
    }
    ways
}

fn report(ways: &[Rounds; 3]) {
    println!("  way        µs CPU each: median   min    ratio of medians to constant (95 %)");
    for (way, rounds) in WAYS.iter().zip(ways) {
        let ratio = rounds.ratio(&ways[0]);
        println!(
            "  {way:<10}              {:6.2}  {:6.2}    {:5.3} ({:5.3} to {:5.3})",
            rounds.median(),
            rounds.min(),
            ratio.value,
            ratio.low,
            ratio.high
        );
    }
    println!("  (usrloc with hash_size 16; floor for locus: 1.12)");
}

fn write(ways: &[Rounds; 3]) -> PathBuf {
    let [constant, locus, usrloc] = ways;
    let figure = |name, rounds: &Rounds| Figure {
        name,
        value: rounds.median(),
        unit: "us",
        baseline: Some(constant.median()),
    };
    let figures = [
        figure("invite_302_cpu_locus", locus),
        figure("invite_302_cpu_usrloc", usrloc),
    ];
    write_figures("bench-sip", &figures)
}
