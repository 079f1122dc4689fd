//! Turns one provisioned change into a record; it does not write it.

use locus_proto::{AorRecord, Binding, Key, MasterTime};

use super::request::{Outcome, ProvisionChange, ProvisionContact};
use super::validate::{self, InvalidRecord};

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    /// It stays as it is.
    Keep,
    /// It is now this value.
    Put(Vec<u8>),
    /// It is gone.
    Delete,
}

/// An edit and what to tell whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edited {
    /// What becomes of the record.
    pub edit: Edit,
    /// What that is, seen from the record's present state.
    pub outcome: Outcome,
}

impl ProvisionChange {
    /// Returns the key of the record that it changes.
    pub fn key(&self) -> Key {
        match self {
            Self::PutAor { aor, .. } | Self::DeleteAor(aor) => Key::aor(aor),
            Self::PutRoute { prefix, .. } | Self::DeleteRoute(prefix) => Key::route(*prefix),
        }
    }
}

/// Returns what `change` makes of its record, whose value is `current`, at service time `now`.
///
/// A record that would be the same is kept: it costs no level. Contacts with an expiry are never the
/// same, since their life begins anew.
///
/// # Errors
/// [`InvalidRecord`]: the change cannot be kept.
pub(crate) fn change(
    change: &ProvisionChange,
    current: Option<&[u8]>,
    now: MasterTime,
) -> Result<Edited, InvalidRecord> {
    let value = match change {
        ProvisionChange::PutAor { contacts, .. } => {
            validate::contacts(contacts)?;
            let record = record(contacts, now);
            if current.is_some_and(|current| is_same(&record, current)) {
                return Ok(Edited {
                    edit: Edit::Keep,
                    outcome: Outcome::Unchanged,
                });
            }
            Some(record.encode())
        }
        ProvisionChange::PutRoute { route, .. } => {
            validate::route(route)?;
            Some(route.encode())
        }
        ProvisionChange::DeleteAor(_) | ProvisionChange::DeleteRoute(_) => None,
    };
    let (edit, outcome) = match (current, value) {
        (None, None) => (Edit::Keep, Outcome::Absent),
        (Some(_), None) => (Edit::Delete, Outcome::Deleted),
        (None, Some(value)) => (Edit::Put(value), Outcome::Created),
        (Some(current), Some(value)) if current == value => (Edit::Keep, Outcome::Unchanged),
        (Some(_), Some(value)) => (Edit::Put(value), Outcome::Replaced),
    };
    Ok(Edited { edit, outcome })
}

fn record(contacts: &[ProvisionContact], now: MasterTime) -> AorRecord {
    let mut record = AorRecord::default();
    for contact in contacts {
        let granted_s = contact.expires_s.unwrap_or(0);
        let expires = match contact.expires_s {
            None => MasterTime::NEVER,
            Some(seconds) => now.plus_ms(u64::from(seconds) * 1000),
        };
        record.insert(Binding {
            q: contact.q,
            expires,
            granted_s,
            modified: now,
            path: contact.path.clone(),
            received: contact.received.clone(),
            instance: contact.instance.clone(),
            reg_id: contact.reg_id,
            methods: contact.methods,
            ..Binding::permanent(&contact.uri)
        });
    }
    record
}

/// Whether `current` holds the bindings of `record`, but for the time at which they were written.
fn is_same(record: &AorRecord, current: &[u8]) -> bool {
    let Ok(mut current) = AorRecord::decode(current) else {
        return false; // it is replaced by one that can be read
    };
    if current.bindings.len() != record.bindings.len() {
        return false;
    }
    for (theirs, ours) in current.bindings.iter_mut().zip(&record.bindings) {
        theirs.modified = ours.modified;
    }
    current == *record
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_proto::{AddressOfRecord, Digits, Route, Target};

    fn aor() -> AddressOfRecord {
        AddressOfRecord::parse("alice@example.net").unwrap()
    }

    fn put(contacts: Vec<ProvisionContact>) -> ProvisionChange {
        ProvisionChange::PutAor {
            aor: aor(),
            contacts,
        }
    }

    fn value(edited: &Edited) -> Vec<u8> {
        match &edited.edit {
            Edit::Put(value) => value.clone(),
            Edit::Keep | Edit::Delete => panic!("{edited:?}"),
        }
    }

    #[test]
    fn what_is_the_same_already_is_kept() {
        let permanent = put(vec![ProvisionContact::permanent("sip:a@x")]);
        let first = change(&permanent, None, MasterTime(1000)).unwrap();
        assert_eq!(first.outcome, Outcome::Created);
        let stored = value(&first);
        let again = change(&permanent, Some(&stored), MasterTime(9000)).unwrap();
        assert_eq!(
            (again.edit, again.outcome),
            (Edit::Keep, Outcome::Unchanged)
        );

        let mut other = ProvisionContact::permanent("sip:a@x");
        other.expires_s = Some(60);
        let other = put(vec![other]);
        let replaced = change(&other, Some(&stored), MasterTime(9000)).unwrap();
        assert_eq!(replaced.outcome, Outcome::Replaced);
        let stored = value(&replaced);
        let binding = &AorRecord::decode(&stored).unwrap().bindings[0];
        assert_eq!(
            (binding.expires, binding.granted_s),
            (MasterTime(69_000), 60)
        );
        // The same contact again lives longer: a change.
        let refreshed = change(&other, Some(&stored), MasterTime(9001)).unwrap();
        assert_eq!(refreshed.outcome, Outcome::Replaced);
    }

    #[test]
    fn deletes_only_what_is_there() {
        for delete in [
            ProvisionChange::DeleteAor(aor()),
            ProvisionChange::DeleteRoute(Digits::parse("4930").unwrap()),
        ] {
            let gone = change(&delete, Some(b"x"), MasterTime(1)).unwrap();
            assert_eq!((gone.edit, gone.outcome), (Edit::Delete, Outcome::Deleted));
            let absent = change(&delete, None, MasterTime(1)).unwrap();
            assert_eq!((absent.edit, absent.outcome), (Edit::Keep, Outcome::Absent));
        }
    }

    #[test]
    fn routes_are_compared_whole() {
        let put = |weight| ProvisionChange::PutRoute {
            prefix: Digits::parse("4930").unwrap(),
            route: Route {
                targets: vec![Target {
                    uri: "sip:gw.example.net".into(),
                    priority: 1,
                    weight,
                }],
                ..Route::default()
            },
        };
        let stored = value(&change(&put(1), None, MasterTime(1)).unwrap());
        let outcome = |weight| {
            change(&put(weight), Some(&stored), MasterTime(2))
                .unwrap()
                .outcome
        };
        assert_eq!(outcome(1), Outcome::Unchanged);
        assert_eq!(outcome(2), Outcome::Replaced);
    }
}
