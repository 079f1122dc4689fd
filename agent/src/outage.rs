//! What a node may answer to a REGISTER while the master is out of reach (rules 2.4); it changes nothing.
//!
//! A refresh of bindings that exist and stay as they are is confirmed for a short while, so that phones
//! keep their service; whatever would change a binding is refused, since only the master decides it.

use std::time::Duration;

use locus_proto::{
    AorRecord, Asked, Binding, ContactChange, Level, MasterTime, Refusal, Registration,
    RegistrationReply,
};

use crate::random::Random;

/// Shortest expiry that is confirmed during an outage, in seconds.
pub const CONFIRMED_S_MIN: u32 = 60;
/// Longest expiry that is confirmed during an outage, in seconds: so soon does every phone come back
/// to a master that has returned.
pub const CONFIRMED_S_MAX: u32 = 120;

/// How far the node's table can be trusted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// Its level.
    pub level: Level,
    /// The master's time, as the node keeps it.
    pub now: MasterTime,
    /// The master's time when the table was last known to be complete.
    pub complete_until: MasterTime,
    /// Longest grace.
    pub max_grace: Duration,
}

impl Standing {
    /// Returns whether `binding` has run out, all grace included.
    fn expired(&self, binding: &Binding) -> bool {
        let lag_ms = self.now.ms_since(self.complete_until);
        binding
            .view()
            .is_expired(self.now, lag_ms, self.max_grace_ms())
    }

    /// Returns the whole seconds for which this node still finds `binding`, should the master stay away.
    fn remembered_s(&self, binding: &Binding) -> u64 {
        if binding.expires == MasterTime::NEVER {
            return u64::MAX;
        }
        let grace_ms = self.max_grace_ms().min(u64::from(binding.granted_s) * 1000);
        binding.expires.plus_ms(grace_ms).ms_since(self.now) / 1000
    }

    fn max_grace_ms(&self) -> u64 {
        u64::try_from(self.max_grace.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Returns the answer to `registration` by the bindings that the table holds.
///
/// `Accepted` with `durable: false` if every contact asked for is bound already and stays as it is: the
/// same URI, instance and reg-id, q, methods, flags, Path, received address and socket, an expiry above
/// zero, and a higher CSeq or another Call-ID. Confirmed contacts get 60 to 120 s at random, never more
/// than was asked for, nor more than the node itself will go on finding them without the master; the
/// others come back as they are. Anything else is `Refused(Unavailable)`.
pub(crate) fn answer(
    record: Option<&AorRecord>,
    registration: &Registration,
    standing: Standing,
    random: &mut Random,
) -> RegistrationReply {
    let refused = RegistrationReply::Refused(Refusal::Unavailable);
    let (Some(record), Asked::Update(contacts)) = (record, &registration.asked) else {
        return refused;
    };
    let mut bindings: Vec<_> = record
        .bindings
        .iter()
        .filter(|binding| !standing.expired(binding))
        .cloned()
        .collect();
    if contacts.is_empty() {
        return refused;
    }
    for contact in contacts {
        let refreshed = bindings
            .iter_mut()
            .find(|binding| is_refresh(binding, contact, registration));
        let Some(binding) = refreshed else {
            return refused;
        };
        let drawn = random.between(CONFIRMED_S_MIN.into(), CONFIRMED_S_MAX.into());
        let asked = contact.expires_s.map_or(u64::MAX, u64::from);
        let granted_s = drawn.min(asked).min(standing.remembered_s(binding));
        if granted_s == 0 {
            return refused;
        }
        binding.expires = standing.now.plus_ms(granted_s * 1000);
        binding.granted_s = u32::try_from(granted_s).unwrap_or(CONFIRMED_S_MIN);
    }
    RegistrationReply::Accepted {
        level: standing.level,
        now: standing.now,
        durable: false,
        bindings,
    }
}

/// Returns whether `contact` refreshes `binding` and changes nothing of where and how it is reached.
fn is_refresh(binding: &Binding, contact: &ContactChange, registration: &Registration) -> bool {
    // RFC 3261 §10.3 step 7: with the same Call-ID, "if the value is higher than that of the existing
    // binding, it MUST update"; "if not, the update MUST be aborted".
    let newer = binding.call_id != registration.call_id || registration.cseq > binding.cseq;
    let same_contact = binding.uri == contact.uri
        && binding.instance == contact.instance
        && binding.reg_id == contact.reg_id
        && binding.q == contact.q
        && binding.methods == contact.methods;
    let same_way = binding.path == registration.path
        && binding.received == registration.received
        && binding.socket == registration.socket
        && binding.flags == registration.flags;
    newer
        && same_contact
        && same_way
        && same_flow(binding, registration)
        && contact.expires_s != Some(0)
}

/// Returns whether the binding is still reached over the flow it was registered with.
///
/// A shared socket (connection zero) is any node's (rules 5.1): there the socket says it all. A private
/// flow is (node, boot, connection).
fn same_flow(binding: &Binding, registration: &Registration) -> bool {
    let (had, has) = (binding.owner, registration.owner);
    had == has || (had.connection == 0 && has.connection == 0)
}

#[cfg(test)]
mod tests {
    use locus_proto::{BootId, Methods, NodeId, Owner, Q};

    use super::*;

    const NOW: MasterTime = MasterTime(10_000_000);
    const STANDING: Standing = Standing {
        level: Level(7),
        now: NOW,
        complete_until: MasterTime(NOW.0 - 30_000),
        max_grace: Duration::from_secs(3600),
    };

    fn binding(uri: &str) -> Binding {
        Binding {
            expires: NOW.plus_ms(500_000),
            granted_s: 600,
            path: "<sip:edge;lr>".into(),
            received: "sip:192.0.2.1:1024".into(),
            socket: "udp:10.77.0.11:5060".into(),
            owner: Owner {
                node: NodeId(1),
                boot: BootId(5),
                connection: 0,
            },
            call_id: "call".into(),
            cseq: 10,
            instance: "<urn:uuid:1>".into(),
            reg_id: 1,
            ..Binding::permanent(uri)
        }
    }

    /// Asks for a refresh of exactly `binding`, with the next CSeq.
    fn refresh(binding: &Binding) -> Registration {
        Registration {
            aor: "alice@example.net".parse().unwrap(),
            call_id: binding.call_id.clone(),
            cseq: binding.cseq + 1,
            path: binding.path.clone(),
            received: binding.received.clone(),
            socket: binding.socket.clone(),
            owner: binding.owner,
            user_agent: "phone".into(),
            flags: binding.flags,
            asked: Asked::Update(vec![contact(binding)]),
        }
    }

    fn contact(binding: &Binding) -> ContactChange {
        ContactChange {
            uri: binding.uri.clone(),
            q: binding.q,
            expires_s: Some(600),
            instance: binding.instance.clone(),
            reg_id: binding.reg_id,
            methods: binding.methods,
        }
    }

    fn judge(record: &[Binding], registration: &Registration) -> RegistrationReply {
        let bindings = record.to_vec();
        let record = (!record.is_empty()).then_some(AorRecord { bindings });
        answer(record.as_ref(), registration, STANDING, &mut Random::new(3))
    }

    #[test]
    fn a_refresh_is_confirmed_for_a_short_while_and_the_rest_stays() {
        let record = [binding("sip:a@192.0.2.1"), binding("sip:b@192.0.2.2")];
        let RegistrationReply::Accepted {
            level,
            now,
            durable,
            bindings,
        } = judge(&record, &refresh(&record[0]))
        else {
            panic!("refused")
        };
        assert_eq!((level, now, durable), (Level(7), NOW, false));
        assert!((60..=120).contains(&bindings[0].expires.seconds_from(NOW)));
        assert_eq!(bindings[0].expires.seconds_from(NOW), bindings[0].granted_s);
        let unchanged = Binding {
            expires: record[0].expires,
            granted_s: record[0].granted_s,
            ..bindings[0].clone()
        };
        assert_eq!([unchanged, bindings[1].clone()], record);
    }

    type Edit = fn(&mut Registration, &mut ContactChange);

    #[test]
    fn only_an_unchanged_refresh_is_confirmed() {
        let cases: &[(&str, bool, Edit)] = &[
            ("as it is", true, |_, _| ()),
            ("higher CSeq", true, |r, _| r.cseq = 99),
            ("same CSeq", false, |r, _| r.cseq = 10),
            ("older CSeq", false, |r, _| r.cseq = 9),
            ("other Call-ID, low CSeq", true, |r, _| {
                r.call_id = "other".into();
                r.cseq = 1;
            }),
            ("other User-Agent", true, |r, _| r.user_agent = "new".into()),
            ("another node, shared socket", true, |r, _| {
                r.owner.node = NodeId(2)
            }),
            ("restarted node, shared socket", true, |r, _| {
                r.owner.boot = BootId(6)
            }),
            ("a private flow", false, |r, _| r.owner.connection = 4),
            ("other Path", false, |r, _| r.path = String::new()),
            ("other received", false, |r, _| {
                r.received = "sip:192.0.2.9:1".into()
            }),
            ("other socket", false, |r, _| {
                r.socket = "udp:10.77.0.12:5060".into()
            }),
            ("other flags", false, |r, _| r.flags = 1),
            ("other URI", false, |_, c| {
                c.uri = "sip:new@192.0.2.1".into()
            }),
            ("other instance", false, |_, c| {
                c.instance = "<urn:uuid:2>".into()
            }),
            ("other reg-id", false, |_, c| c.reg_id = 2),
            ("other q", false, |_, c| {
                c.q = Q::from_thousandths(500).unwrap()
            }),
            ("other methods", false, |_, c| c.methods = Methods(1)),
            ("expiry left to the registrar", true, |_, c| {
                c.expires_s = None
            }),
            ("removal", false, |_, c| c.expires_s = Some(0)),
        ];
        let bound = binding("sip:a@192.0.2.1");
        for (what, confirmed, edit) in cases {
            let (mut registration, mut change) = (refresh(&bound), contact(&bound));
            edit(&mut registration, &mut change);
            registration.asked = Asked::Update(vec![change]);
            let reply = judge(std::slice::from_ref(&bound), &registration);
            match reply {
                RegistrationReply::Accepted { .. } => assert!(confirmed, "{what}"),
                RegistrationReply::Refused(refusal) => {
                    assert!(!confirmed, "{what}");
                    assert_eq!(refusal, Refusal::Unavailable, "{what}");
                }
            }
        }
    }

    #[test]
    fn fetch_removal_of_all_and_strangers_are_refused() {
        let bound = binding("sip:a@192.0.2.1");
        let refused = RegistrationReply::Refused(Refusal::Unavailable);
        for asked in [Asked::Fetch, Asked::RemoveAll, Asked::Update(Vec::new())] {
            let registration = Registration {
                asked,
                ..refresh(&bound)
            };
            assert_eq!(judge(std::slice::from_ref(&bound), &registration), refused);
        }
        assert_eq!(judge(&[], &refresh(&bound)), refused);
        // One known contact does not carry a new one with it.
        let both = Registration {
            asked: Asked::Update(vec![
                contact(&bound),
                contact(&binding("sip:new@192.0.2.1")),
            ]),
            ..refresh(&bound)
        };
        assert_eq!(judge(&[bound], &both), refused);
    }

    #[test]
    fn a_private_flow_is_confirmed_only_on_itself() {
        let mut bound = binding("sip:a@192.0.2.1");
        bound.owner.connection = 9;
        let same = refresh(&bound);
        let other_life = Registration {
            owner: Owner {
                boot: BootId(6),
                ..bound.owner
            },
            ..same.clone()
        };
        let record = [bound];
        assert!(matches!(
            judge(&record, &same),
            RegistrationReply::Accepted { .. }
        ));
        assert!(matches!(
            judge(&record, &other_life),
            RegistrationReply::Refused(_)
        ));
    }

    #[test]
    fn never_more_than_was_asked_for() {
        let bound = binding("sip:a@192.0.2.1");
        let brief = ContactChange {
            expires_s: Some(20),
            ..contact(&bound)
        };
        let registration = Registration {
            asked: Asked::Update(vec![brief]),
            ..refresh(&bound)
        };
        let RegistrationReply::Accepted { bindings, .. } = judge(&[bound], &registration) else {
            panic!("refused")
        };
        assert_eq!(bindings[0].expires.seconds_from(NOW), 20);
    }

    #[test]
    fn never_longer_than_the_node_itself_remembers() {
        // After 600 s of outage the grace is at its end: a binding granted 600 s goes 600 s after its expiry.
        let long = Standing {
            complete_until: MasterTime(NOW.0 - 700_000),
            ..STANDING
        };
        for (left_ms, most_s) in [(45_500, Some(45)), (1_000, Some(1)), (999, None)] {
            let bound = Binding {
                expires: MasterTime(NOW.0 - 600_000 + left_ms),
                ..binding("sip:a@192.0.2.1")
            };
            assert!(!long.expired(&bound));
            let record = AorRecord {
                bindings: vec![bound.clone()],
            };
            let reply = answer(Some(&record), &refresh(&bound), long, &mut Random::new(3));
            match (reply, most_s) {
                (RegistrationReply::Accepted { bindings, .. }, Some(most_s)) => {
                    assert_eq!(bindings[0].expires.seconds_from(NOW), most_s);
                }
                (RegistrationReply::Refused(Refusal::Unavailable), None) => {}
                (reply, _) => panic!("{left_ms} ms left: {reply:?}"),
            }
        }
        let permanent = Binding {
            expires: MasterTime::NEVER,
            granted_s: 0,
            ..binding("sip:a@192.0.2.1")
        };
        assert!(matches!(
            judge(std::slice::from_ref(&permanent), &refresh(&permanent)),
            RegistrationReply::Accepted { .. }
        ));
    }

    #[test]
    fn an_expired_binding_is_neither_confirmed_nor_shown() {
        let alive = binding("sip:a@192.0.2.1");
        for (expires, granted_s, expired) in [
            // The lag of 30 s is the grace …
            (NOW.0 - 29_999, 600, false),
            (NOW.0 - 30_000, 600, true),
            // … but never more than was granted.
            (NOW.0 - 9_000, 10, false),
            (NOW.0 - 10_000, 10, true),
            (MasterTime::NEVER.0, 0, false),
        ] {
            let old = Binding {
                expires: MasterTime(expires),
                granted_s,
                ..binding("sip:old@192.0.2.1")
            };
            let record = [alive.clone(), old];
            let refused = RegistrationReply::Refused(Refusal::Unavailable);
            assert_eq!(
                judge(&record, &refresh(&record[1])) == refused,
                expired,
                "{expires}"
            );
            let RegistrationReply::Accepted { bindings, .. } = judge(&record, &refresh(&alive))
            else {
                panic!("refused")
            };
            assert_eq!(bindings.len() == 1, expired, "{expires}");
        }
        let short = Standing {
            max_grace: Duration::from_secs(1),
            ..STANDING
        };
        assert!(short.expired(&Binding {
            expires: MasterTime(NOW.0 - 1_000),
            ..alive
        }));
    }
}
