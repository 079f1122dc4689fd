//! What the CA has issued as people read it; it opens no folder.

use std::time::{Duration, SystemTime};

use locus_identity::{AuthorityState, CaCertificate, CaContent, CertificateState};
use time::OffsetDateTime;

use super::{Cell, Colour, Tone, duration, number, table, text};

/// Less than this left, a certificate is shown as one to be renewed.
const RENEW_WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Returns the day and the second in UTC: `2027-11-24 13:05:59Z`.
pub(crate) fn date(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (hour, minute, second) = at.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02}Z", at.date())
}

/// Returns the CA's lives and all certificates, as two tables.
pub(crate) fn certificates(content: &CaContent, colour: Colour) -> String {
    let mut out = format!("cluster {}\n", content.cluster);
    let rows = content.authorities.iter().map(|authority| {
        let tone = match authority.state {
            AuthorityState::Current => Tone::Plain,
            AuthorityState::Previous => Tone::Warn,
            AuthorityState::Retired => Tone::Bad,
        };
        vec![
            number(Some(authority.number)),
            text(date(authority.not_after)),
            toned(authority.state.as_str(), tone),
        ]
    });
    let rows: Vec<_> = rows.collect();
    out.push_str(&table(&["CA", "ENDS", "STATE"], &rows, colour));
    out.push('\n');
    if content.certificates.is_empty() {
        out.push_str("nothing has been issued\n");
        return out;
    }
    let heads = ["SERIAL", "HOLDER", "CA", "ENDS", "LEFT", "STATE", "HOSTS"];
    let rows = content.certificates.iter().map(|one| row(one, content.at));
    out.push_str(&table(&heads, &rows.collect::<Vec<_>>(), colour));
    out
}

fn toned(word: &str, tone: Tone) -> Cell {
    let cell = text(word);
    Cell { tone, ..cell }
}

fn row(one: &CaCertificate, at: SystemTime) -> Vec<Cell> {
    let left = one.not_after.duration_since(at).unwrap_or_default();
    let tone = match one.state {
        CertificateState::Valid if left < RENEW_WITHIN => Tone::Warn,
        CertificateState::Valid => Tone::Good,
        CertificateState::Expired | CertificateState::Revoked | CertificateState::Retired => {
            Tone::Bad
        }
    };
    let left = match one.state {
        CertificateState::Valid => duration(left),
        CertificateState::Expired | CertificateState::Revoked | CertificateState::Retired => {
            "-".to_owned()
        }
    };
    vec![
        text(one.serial.to_string()),
        text(one.holder.to_string()),
        number(Some(one.authority)),
        text(date(one.not_after)),
        text(left),
        toned(one.state.as_str(), tone),
        text(one.hosts.join(" ")),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use locus_identity::CaAuthority;

    use super::*;

    #[test]
    fn certificates_are_two_tables() {
        let at = |s: u64| UNIX_EPOCH + Duration::from_secs(s);
        let day = 24 * 3600;
        let now = 1_795_564_800;
        let authority = |number, state| CaAuthority {
            number,
            not_after: at(now + 3650 * day),
            state,
        };
        let certificate = |holder: &str, ends: u64, state| CaCertificate {
            serial: "5f3a".parse().unwrap(),
            holder: holder.parse().unwrap(),
            hosts: Vec::new(),
            authority: 2,
            not_after: at(ends),
            revoked: None,
            state,
        };
        let content = CaContent {
            cluster: "lab".parse().unwrap(),
            at: at(now),
            authorities: vec![
                authority(1, AuthorityState::Previous),
                authority(2, AuthorityState::Current),
            ],
            certificates: vec![
                CaCertificate {
                    hosts: vec!["10.77.0.10".into(), "m1.example.net".into()],
                    ..certificate("locsvc/m1", now + 365 * day, CertificateState::Valid)
                },
                certificate("node/n1/7", now + 12 * day + 7200, CertificateState::Valid),
                certificate("operator/alice/read", now + day, CertificateState::Revoked),
            ],
        };
        let expected = "\
cluster lab
CA  ENDS                  STATE
 1  2036-11-22 00:00:00Z  previous
 2  2036-11-22 00:00:00Z  current

SERIAL  HOLDER               CA  ENDS                  LEFT      STATE    HOSTS
5f3a    locsvc/m1             2  2027-11-25 00:00:00Z  365 d     valid    10.77.0.10 m1.example.net
5f3a    node/n1/7             2  2026-12-07 02:00:00Z  12 d 2 h  valid
5f3a    operator/alice/read   2  2026-11-26 00:00:00Z  -         revoked
";
        assert_eq!(certificates(&content, Colour::No), expected);
        let coloured = certificates(&content, Colour::Yes);
        assert!(coloured.contains("\u{1b}[33mvalid"), "{coloured:?}");
        let none = CaContent {
            certificates: Vec::new(),
            ..content
        };
        assert!(certificates(&none, Colour::No).ends_with("nothing has been issued\n"));
    }
}
