//! The stage on which all scenes play: the cluster, the callees' phones, and how calls are made.
//! Knows no scene.

use std::net::SocketAddr;
use std::time::Duration;

use locus_lab::{
    ANSWERING_POINT_PORT, ANSWERING_PORT, Chassis, Cluster, GROUP, Lab, Load, Outcome, Phone,
    REDIRECT_PORT, RINGING_PORTS, Sipp, Subscriber, Tally, scenario,
};

use crate::expectations::Expectations;
use crate::report::{Calls, Report};
use crate::story::Story;

/// Who works the cluster.
pub(crate) const OPERATOR: &str = "alice";
/// Longest run of one batch of calls.
const CALLS_DEADLINE: Duration = Duration::from_secs(60);
/// The bank of the answering point; the phones of a subscriber are the first one to three banks.
const ANSWERING_POINT: usize = 3;
const EMERGENCY_RATE: u32 = 20;
/// Calls per second while an agent comes back.
const CALLS_MEANWHILE: u32 = 100;
/// Emergency calls alternate between a number and the service URN.
const EMERGENCY: [&str; 2] = ["sip:112@example.net", "urn:service:sos"];

/// A phone bank on the callee host.
#[derive(Debug)]
struct Bank {
    sipp: Sipp,
    what: &'static str,
    /// Calls that reached it, as far as the callers know.
    expected: u64,
}

/// The stage.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) story: Story,
    pub(crate) report: Report,
    pub(crate) expect: Expectations,
    banks: Vec<Bank>,
    batches: usize,
    pub(crate) cluster: Cluster,
    /// Once the cluster's machines are boards of one.
    pub(crate) chassis: Option<Chassis>,
}

impl Stage {
    /// Builds the cluster and starts the callees' phones.
    pub(crate) fn set(lab: Lab, expect: Expectations, story: Story) -> Self {
        let mut cluster = Cluster::prepare(lab, expect.subscribers);
        let reload_above = expect.reload_above.to_string();
        cluster
            .locsvc
            .settings()
            .set("distribution.reload_above", &reload_above);
        cluster
            .locsvc
            .settings()
            .set("registrar.min_expires_s", "1");
        let alice = cluster.lab.authority().operator(OPERATOR, "admin");
        cluster.locsvc.open_api(&alice);
        cluster.locsvc.use_group(GROUP, "auto");
        story.step("network namespaces: locsvc, n1, n2, caller, callee behind one bridge");
        story.step("everybody has an identity, made by an operator:");
        for command in cluster.lab.authority().commands() {
            story.typed(&command);
        }
        cluster.start();
        story.step("locsvc, two locus-agents and two Kamailios with locus.so are up");
        story.step(&format!(
            "mutual TLS 1.3 between locsvc and agents; the API, {}, answers {OPERATOR} alone",
            cluster.locsvc.url()
        ));
        let bank = |what, file: &str, port| Bank {
            sipp: Sipp::serve(
                &cluster.lab,
                &format!("callee-{port}"),
                &scenario("proxy", file),
                port,
            ),
            what,
            expected: 0,
        };
        let banks = vec![
            bank("answering phones", "answer.xml", ANSWERING_PORT),
            bank("ringing phones (second)", "ring.xml", RINGING_PORTS[0]),
            bank("ringing phones (third)", "ring.xml", RINGING_PORTS[1]),
            bank(
                "emergency answering point",
                "answer.xml",
                ANSWERING_POINT_PORT,
            ),
        ];
        story.step("sipp plays the callees' phones: one answers, the others ring until cancelled");
        Self {
            story,
            report: Report::default(),
            expect,
            banks,
            batches: 0,
            cluster,
            chassis: None,
        }
    }

    /// Deletes the records of all subscribers, so that what a call finds afterwards has come since.
    pub(crate) fn forget_everybody(&mut self, what: &str) {
        let aors = self.cluster.subscribers.iter().map(Subscriber::aor);
        let changes: Vec<_> = aors
            .map(|aor| serde_json::json!({ "op": "delete_aor", "aor": aor }))
            .collect();
        let body = serde_json::json!({ "changes": changes });
        let level = self.cluster.locsvc.api().post("/v1/batch", &body).level();
        self.cluster.wait_visible(level);
        // What each node counts from here on comes after this.
        self.cluster.wait_coherent();
        let mut caller = Phone::new(self.cluster.lab.host("caller"), "caller");
        let (node, aor) = (self.cluster.n2.address(), self.cluster.subscribers[0].aor());
        let answer = caller.invite(node, REDIRECT_PORT, &aor).code;
        self.report.expect(
            &format!("{what}: a call to a deleted subscriber"),
            answer,
            404,
        );
        self.story.step(&format!(
            "all {} subscribers are deleted: node 2 answers a call with {answer}",
            self.cluster.subscribers.len()
        ));
    }

    /// Calls every subscriber through node 2, odd ones by redirect and even ones by proxy, and the
    /// emergency number once; checks the order of every 302.
    pub(crate) fn call_everybody(&mut self, what: &str) {
        let all = self.cluster.subscribers.clone();
        // Pairs alternate, so that both roles meet every number of phones.
        let (by_redirect, by_proxy): (Vec<_>, Vec<_>) =
            all.into_iter().enumerate().partition(|(n, _)| n % 2 == 1);
        let strip = |list: Vec<(usize, Subscriber)>| list.into_iter().map(|(_, one)| one).collect();
        self.calls(what, strip(by_redirect), strip(by_proxy));
    }

    fn calls(&mut self, what: &str, by_redirect: Vec<Subscriber>, by_proxy: Vec<Subscriber>) {
        self.batches += 1;
        let batch = self.batches;
        let uris = |list: &[Subscriber]| list.iter().map(Subscriber::aor).collect::<Vec<_>>();
        let (redirect_lines, proxy_lines) = (uris(&by_redirect), uris(&by_proxy));
        let start = |kind: &str, file, lines: &[String], target: SocketAddr| {
            let load = Load {
                name: &format!("{kind}-{batch}"),
                scenario: file,
                lines,
                target,
                rate: self.expect.rate,
            };
            Sipp::call(&self.cluster.lab, &load)
        };
        let n2 = &self.cluster.n2;
        let redirect = start(
            "redirect",
            scenario("redirect", "caller.xml"),
            &redirect_lines,
            n2.redirect(),
        );
        let proxy = start(
            "proxy",
            scenario("proxy", "caller.xml"),
            &proxy_lines,
            n2.proxy(),
        );
        let redirect = redirect.done(CALLS_DEADLINE);
        let proxy = proxy.done(CALLS_DEADLINE).tally;
        let emergency = self.emergency_call();
        self.check_order(what, &by_redirect, &redirect);
        for subscriber in &by_proxy {
            for bank in self.banks.iter_mut().take(subscriber.phones) {
                bank.expected += 1;
            }
        }
        let calls = Calls {
            redirect: redirect.tally,
            proxy,
            emergency,
        };
        self.report.expect(
            &format!("{what}: redirect calls"),
            count(&by_redirect),
            calls.redirect.placed,
        );
        self.report.expect(
            &format!("{what}: proxy calls"),
            count(&by_proxy),
            calls.proxy.placed,
        );
        self.report.calls(what, calls);
        self.story.step(&format!(
            "{what}: {}/{} redirected in q order, {}/{} proxied and answered, {}/{} emergency",
            calls.redirect.answered,
            calls.redirect.placed,
            calls.proxy.answered,
            calls.proxy.placed,
            calls.emergency.answered,
            calls.emergency.placed,
        ));
    }

    /// Places one emergency call through node 2.
    fn emergency_call(&mut self) -> Tally {
        self.batches += 1;
        self.banks[ANSWERING_POINT].expected += 1;
        let line = EMERGENCY[self.batches % EMERGENCY.len()].to_owned();
        let load = Load {
            name: &format!("emergency-{}", self.batches),
            scenario: scenario("proxy", "caller.xml"),
            lines: &[line],
            target: self.cluster.n2.proxy(),
            // sipp begins its first call after one period.
            rate: EMERGENCY_RATE,
        };
        Sipp::call(&self.cluster.lab, &load)
            .done(CALLS_DEADLINE)
            .tally
    }

    /// One emergency call that counts for a scene without other calls.
    pub(crate) fn emergency(&mut self, what: &str) {
        let tally = self.emergency_call();
        self.report.calls(
            what,
            Calls {
                emergency: tally,
                ..Calls::default()
            },
        );
        self.story.step(&format!(
            "{what}: {}/{} emergency call answered",
            tally.answered, tally.placed
        ));
    }

    fn check_order(&mut self, what: &str, called: &[Subscriber], outcome: &Outcome) {
        let callee = self.cluster.lab.host("callee").address();
        let mut right = 0_u64;
        for subscriber in called {
            let start = format!("{};", subscriber.aor());
            let line = outcome
                .messages
                .iter()
                .find(|line| line.starts_with(&start));
            let contacts: Vec<&str> = line
                .map(|line| {
                    line.split('<')
                        .skip(1)
                        .filter_map(|part| part.split('>').next())
                        .collect()
                })
                .unwrap_or_default();
            right += u64::from(contacts == subscriber.contacts_in_order(callee));
        }
        self.report.expect(
            &format!("{what}: 302 with the right contacts in q order"),
            right,
            count(called),
        );
    }

    /// Registers every phone through node 1, all with `expires`.
    pub(crate) fn register_everybody(&mut self, what: &str, expires: Duration) -> u64 {
        self.batches += 1;
        let callee = self.cluster.lab.host("callee").address();
        let expires_s = u32::try_from(expires.as_secs()).unwrap_or(u32::MAX);
        let subscribers = self.cluster.subscribers.iter();
        let lines: Vec<String> = subscribers
            .flat_map(|one| one.register_lines(callee, expires_s))
            .collect();
        let load = Load {
            name: &format!("register-{}", self.batches),
            scenario: scenario("register", "phone.xml"),
            lines: &lines,
            target: self.cluster.n1.proxy(),
            rate: 200,
        };
        let tally = Sipp::call(&self.cluster.lab, &load)
            .done(CALLS_DEADLINE)
            .tally;
        let all = count(&lines);
        self.report
            .expect(&format!("{what}: phones registered"), tally.answered, all);
        self.report
            .expect(&format!("{what}: phones refused"), tally.failed, 0);
        tally.answered
    }

    /// Starts calls through node 2 that go on until [`Stage::hang_up`]: all subscribers by proxy, over
    /// and over.
    pub(crate) fn keep_calling(&mut self) -> Sipp {
        self.batches += 1;
        // Only subscribers with one phone: how many were called is then known from the count alone.
        let ones = self
            .cluster
            .subscribers
            .iter()
            .filter(|one| one.phones == 1);
        let once: Vec<String> = ones.map(Subscriber::aor).collect();
        let rate = CALLS_MEANWHILE;
        let enough = usize::try_from(rate).unwrap_or(usize::MAX) * 60;
        let lines: Vec<String> = once.into_iter().cycle().take(enough).collect();
        let load = Load {
            name: &format!("background-{}", self.batches),
            scenario: scenario("proxy", "caller.xml"),
            lines: &lines,
            target: self.cluster.n2.proxy(),
            rate,
        };
        Sipp::call(&self.cluster.lab, &load)
    }

    /// Ends calls begun by [`Stage::keep_calling`], with one emergency call, and reports them.
    pub(crate) fn hang_up(&mut self, what: &str, calls: Sipp) {
        let proxy = calls.finish().tally;
        let emergency = self.emergency_call();
        self.banks[0].expected += proxy.placed;
        self.report.expect(
            &format!("{what}: calls were placed"),
            proxy.placed > 0,
            true,
        );
        self.report.calls(
            what,
            Calls {
                proxy,
                emergency,
                redirect: Tally::default(),
            },
        );
        self.story.step(&format!(
            "{what}: {}/{} calls answered meanwhile, {}/{} emergency",
            proxy.answered, proxy.placed, emergency.answered, emergency.placed
        ));
    }

    /// Ends the callees' phones and compares what they saw with what the callers counted.
    pub(crate) fn close(mut self) -> (Report, Story, Cluster, Option<Chassis>) {
        for bank in std::mem::take(&mut self.banks) {
            let tally = bank.sipp.finish().tally;
            let seen = (tally.placed, tally.answered, tally.failed);
            self.report
                .expect(bank.what, seen, (bank.expected, bank.expected, 0));
        }
        for (name, node) in [("n1", &self.cluster.n1), ("n2", &self.cluster.n2)] {
            self.report.level(name, node.view().level());
        }
        self.report.expect(
            "levels of both nodes",
            self.cluster.n1.view().level(),
            self.cluster.n2.view().level(),
        );
        (self.report, self.story, self.cluster, self.chassis)
    }
}

fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}
