//! The lab's subscribers and their phones: what is registered, in which order it must come back, and
//! Kamailio's db_text table of credentials. Knows no process and no socket.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::sip::{DOMAIN, password};

/// The port of the phone that is picked up; every subscriber has one there.
pub const ANSWERING_PORT: u16 = 7001;
/// Ports of phones that ring until cancelled.
pub const RINGING_PORTS: [u16; 2] = [7002, 7003];
/// The port of the emergency answering point, as in scenario `cluster`'s emergency file.
pub const ANSWERING_POINT_PORT: u16 = 7112;
/// q of the phones in order of registration: the first is not the best, so that order means something.
const Q: [&str; 3] = ["0.5", "1.0", "0.7"];
/// Indices of the phones by q, best first.
const BEST_FIRST: [usize; 3] = [1, 2, 0];

/// One subscriber with one to three phones on the callee host.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// The user part of the address-of-record.
    pub user: String,
    /// How many phones are registered, 1 to 3.
    pub phones: usize,
}

impl Subscriber {
    /// The first `count` subscribers of the lab, with 1, 2, 3, 1, … phones.
    pub fn first(count: usize) -> Vec<Self> {
        (0..count)
            .map(|n| Self {
                user: format!("u{n:04}"),
                phones: n % 3 + 1,
            })
            .collect()
    }

    /// The address-of-record.
    pub fn aor(&self) -> String {
        format!("sip:{}@{DOMAIN}", self.user)
    }

    fn contact(&self, callee: Ipv4Addr, phone: usize) -> String {
        let port = if phone == 0 {
            ANSWERING_PORT
        } else {
            RINGING_PORTS[phone - 1]
        };
        format!("sip:{}@{callee}:{port}", self.user)
    }

    /// One CSV line of scenario `register` for each phone.
    pub fn register_lines(&self, callee: Ipv4Addr, expires_s: u32) -> Vec<String> {
        let (user, secret) = (&self.user, password(&self.user));
        (0..self.phones)
            .map(|phone| {
                let contact = self.contact(callee, phone);
                let credentials = format!("[authentication username={user} password={secret}]");
                format!("{user};{credentials};{contact};{};{expires_s}", Q[phone])
            })
            .collect()
    }

    /// The contacts as a redirect must list them: by q, best first.
    pub fn contacts_in_order(&self, callee: Ipv4Addr) -> Vec<String> {
        let phones = BEST_FIRST.iter().filter(|phone| **phone < self.phones);
        phones.map(|phone| self.contact(callee, *phone)).collect()
    }
}

/// Writes the db_text database `folder/subscriber` that Kamailio authenticates against.
///
/// # Panics
/// When the folder cannot be written.
pub fn write_credentials(folder: &Path, users: impl Iterator<Item = String>) {
    fs::create_dir_all(folder).expect("the database folder can be made");
    let mut table = String::from("id(int,auto) username(string) domain(string) password(string)\n");
    for (id, user) in users.enumerate() {
        writeln!(table, "{}:{user}:{DOMAIN}:{}", id + 1, password(&user))
            .expect("a String takes all");
    }
    fs::write(folder.join("subscriber"), table).expect("the database folder can be written");
    let version = "table_name(str) table_version(int)\nsubscriber:7\n";
    fs::write(folder.join("version"), version).expect("the database folder can be written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_come_by_q() {
        let callee = Ipv4Addr::new(10, 77, 0, 22);
        let three = &Subscriber::first(3)[2];
        let order = three.contacts_in_order(callee);
        let ports: Vec<&str> = order
            .iter()
            .filter_map(|uri| uri.rsplit(':').next())
            .collect();
        assert_eq!(ports, ["7002", "7003", "7001"]);
        assert_eq!(three.register_lines(callee, 60).len(), 3);
        assert_eq!(Subscriber::first(3)[0].contacts_in_order(callee).len(), 1);
    }
}
