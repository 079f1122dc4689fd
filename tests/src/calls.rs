//! Calls by sipp to everybody in a cluster, and the phones that answer them, for tests that only need to know
//! that all came through. Knows no fault.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::lab::{Lab, scenario};
use crate::sipp::{Load, Sipp, Tally};
use crate::subscribers::{ANSWERING_PORT, RINGING_PORTS, Subscriber};

/// Longest run of one batch of calls.
const DEADLINE: Duration = Duration::from_secs(60);
/// Calls and registrations per second.
const RATE: u32 = 50;

/// The phones of all subscribers, on the callee's host.
#[derive(Debug)]
pub struct Telephones {
    banks: Vec<Sipp>,
    batches: usize,
}

impl Telephones {
    /// Puts them there.
    ///
    /// # Panics
    /// When sipp does not come up.
    pub fn serve(lab: &Lab) -> Self {
        let bank = |file: &str, port| {
            Sipp::serve(
                lab,
                &format!("callee-{port}"),
                &scenario("proxy", file),
                port,
            )
        };
        Self {
            banks: vec![
                bank("answer.xml", ANSWERING_PORT),
                bank("ring.xml", RINGING_PORTS[0]),
                bank("ring.xml", RINGING_PORTS[1]),
            ],
            batches: 0,
        }
    }

    /// Registers the phones of all subscribers through node 1 and returns how many there are.
    ///
    /// # Panics
    /// When one is refused.
    #[track_caller]
    pub fn register(&mut self, cluster: &Cluster) -> u64 {
        let callee = cluster.lab.host("callee").address();
        let subscribers = cluster.subscribers.iter();
        let lines: Vec<String> = subscribers
            .flat_map(|one| one.register_lines(callee, 3_600))
            .collect();
        let target = cluster.n1.proxy();
        let tally = self.run(cluster, "register", "register/phone.xml", &lines, target);
        assert_eq!(
            (tally.answered, tally.failed),
            (tally.placed, 0),
            "{tally:?}"
        );
        tally.placed
    }

    /// Calls every subscriber through node 2, by redirect and by proxy, and returns how many calls came
    /// through.
    ///
    /// # Panics
    /// When one does not.
    #[track_caller]
    pub fn call(&mut self, cluster: &Cluster) -> u64 {
        let lines: Vec<String> = cluster.subscribers.iter().map(Subscriber::aor).collect();
        let (redirect, proxy) = (cluster.n2.redirect(), cluster.n2.proxy());
        let redirect = self.run(cluster, "redirect", "redirect/caller.xml", &lines, redirect);
        let proxy = self.run(cluster, "proxy", "proxy/caller.xml", &lines, proxy);
        let tally = redirect + proxy;
        assert_eq!(
            (tally.answered, tally.failed),
            (tally.placed, 0),
            "{redirect:?} {proxy:?}"
        );
        tally.placed
    }

    fn run(
        &mut self,
        cluster: &Cluster,
        kind: &str,
        file: &str,
        lines: &[String],
        target: std::net::SocketAddr,
    ) -> Tally {
        self.batches += 1;
        let (folder, file) = file.split_once('/').expect("scenario/file");
        let load = Load {
            name: &format!("{kind}-{}", self.batches),
            scenario: scenario(folder, file),
            lines,
            target,
            rate: RATE,
        };
        Sipp::call(&cluster.lab, &load).done(DEADLINE).tally
    }

    /// Takes them away and returns how many calls each bank has seen, the answering one first.
    pub fn close(self) -> Vec<Tally> {
        self.banks
            .into_iter()
            .map(|bank| bank.finish().tally)
            .collect()
    }
}
