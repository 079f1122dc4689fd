//! Packets that a host loses on their way in, by nftables. Knows addresses and shares, not what is in them.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;

use crate::netns::Namespace;

/// The table of all faults; there is one at a time on a host.
const TABLE: &str = "lab";

/// What a host loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// UDP.
    Udp,
    /// UDP to one address, such as a group.
    UdpTo(IpAddr),
    /// Everything.
    All,
}

impl Namespace {
    /// Loses `per_mille` of each 1,000 packets of `traffic`, at random, before the host's own stack sees
    /// them, instead of whatever was lost before.
    ///
    /// # Panics
    /// When nftables refuses.
    pub fn lose(&self, traffic: Traffic, per_mille: u16) {
        let what = match traffic {
            Traffic::Udp => "iifname e0 meta l4proto udp".to_owned(),
            Traffic::UdpTo(IpAddr::V4(group)) => format!("ip daddr {group} meta l4proto udp"),
            Traffic::UdpTo(IpAddr::V6(group)) => format!("ip6 daddr {group} meta l4proto udp"),
            Traffic::All => "iifname e0".to_owned(),
        };
        let share = match per_mille {
            1_000.. => String::new(),
            _ => format!("numgen random mod 1000 < {per_mille}"),
        };
        self.nft(&format!(
            "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{ chain in {{\n\
             type filter hook prerouting priority -300;\n\
             {what} {share} counter drop\n}}\n}}\n"
        ));
    }

    /// Loses nothing any more and returns how many packets were lost since [`Namespace::lose`].
    ///
    /// # Panics
    /// When nothing was to be lost, or nftables refuses.
    pub fn lose_nothing(&self) -> u64 {
        let lost = self.lost();
        self.nft(&format!("delete table inet {TABLE}\n"));
        lost
    }

    /// How many packets were lost since [`Namespace::lose`].
    ///
    /// # Panics
    /// When nothing is to be lost.
    pub fn lost(&self) -> u64 {
        let mut command = self.command("nft");
        let output = command
            .args(["-j", "list", "table", "inet", TABLE])
            .output()
            .expect("nftables is installed");
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{} loses nothing", self.name()));
        let rules = listed["nftables"].as_array().into_iter().flatten();
        let counters = rules
            .filter_map(|rule| rule["rule"]["expr"].as_array())
            .flatten()
            .filter_map(|part| part["counter"]["packets"].as_u64());
        counters.sum()
    }

    fn nft(&self, lines: &str) {
        let mut child = self
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nftables is installed");
        let mut input = child.stdin.take().expect("stdin is piped");
        input
            .write_all(lines.as_bytes())
            .expect("nft reads its lines");
        drop(input);
        let status = child.wait().expect("nft can be waited for");
        assert!(status.success(), "nft refused:\n{lines}");
    }
}
