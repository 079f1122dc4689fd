//! Merges one registration into the bindings of its address-of-record (RFC 3261 §10.3); it stores nothing.

use locus_proto::{
    AorRecord, Asked, BINDINGS_MAX, Binding, ContactChange, MasterTime, Refusal, Registration,
};
use serde::{Deserialize, Serialize};

use super::expiry::drop_expired;
use super::validate::{self, same_uri};

/// Expiries that are granted, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrarLimits {
    /// A shorter one is refused (423).
    pub min_expires_s: u32,
    /// A longer one is shortened to this.
    pub max_expires_s: u32,
    /// Granted where none is asked for.
    pub default_expires_s: u32,
}

impl Default for RegistrarLimits {
    fn default() -> Self {
        Self {
            min_expires_s: 60,
            max_expires_s: 3600,
            default_expires_s: 3600,
        }
    }
}

/// The bindings after a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merged {
    /// The bindings in force; none means that there is no record any more.
    pub record: AorRecord,
    /// Whether they have to be written.
    pub changed: bool,
}

/// Returns the bindings of an address-of-record after `registration`, at service time `now`.
///
/// As a whole or not at all. A contact is matched by `+sip.instance` and `reg-id` where it has both
/// (RFC 5626 §6), else by URI. The same request once more, a retransmission whose answer was lost, is
/// accepted without a change. `*` removes all bindings, provisioned ones too, as RFC 3261 has it.
///
/// # Errors
/// [`Refusal`]: nothing changes.
pub(crate) fn merge(
    current: &AorRecord,
    registration: &Registration,
    limits: &RegistrarLimits,
    now: MasterTime,
) -> Result<Merged, Refusal> {
    validate::registration(registration).map_err(|_| Refusal::Malformed)?;
    let mut record = current.clone();
    let dropped = drop_expired(&mut record, now);
    let changed = match &registration.asked {
        // The removal of expired bindings alone is left to the expiry queue: a question writes nothing.
        Asked::Fetch => false,
        Asked::RemoveAll => {
            let is_old =
                |b: &Binding| b.call_id == registration.call_id && registration.cseq <= b.cseq;
            if record.bindings.iter().any(is_old) {
                return Err(Refusal::OldCseq);
            }
            let any = !record.bindings.is_empty();
            record.bindings.clear();
            any || dropped
        }
        Asked::Update(contacts) => {
            let mut merge = Merge {
                stored: record.clone(),
                record,
                changed: false,
            };
            for contact in contacts {
                merge.contact(contact, registration, limits, now)?;
            }
            record = merge.record;
            merge.changed
        }
    };
    if record.bindings.len() > BINDINGS_MAX {
        return Err(Refusal::TooMany);
    }
    Ok(Merged { record, changed })
}

struct Merge {
    /// The bindings before the request: only they have an older CSeq to be respected.
    stored: AorRecord,
    record: AorRecord,
    changed: bool,
}

impl Merge {
    fn contact(
        &mut self,
        contact: &ContactChange,
        registration: &Registration,
        limits: &RegistrarLimits,
        now: MasterTime,
    ) -> Result<(), Refusal> {
        let granted_s = granted(contact.expires_s, limits)?;
        let new = granted_s.map(|granted_s| binding(contact, registration, granted_s, now));
        if let Some(at) = find(&self.stored, contact) {
            let stored = &self.stored.bindings[at];
            if stored.call_id == registration.call_id && registration.cseq <= stored.cseq {
                let repeated = new.as_ref().is_some_and(|new| is_repeated(stored, new));
                return if repeated {
                    Ok(())
                } else {
                    Err(Refusal::OldCseq)
                };
            }
        }
        let found = find(&self.record, contact);
        match (found, new) {
            (None, None) => return Ok(()), // a removal that has been done already
            (Some(at), None) => {
                self.record.bindings.remove(at);
            }
            (None, Some(new)) => self.record.insert(new),
            (Some(at), Some(new)) => {
                let old = &mut self.record.bindings[at];
                if old.q == new.q {
                    *old = new; // a refresh keeps its place among those of the same q
                } else {
                    self.record.bindings.remove(at);
                    self.record.insert(new);
                }
            }
        }
        self.changed = true;
        Ok(())
    }
}

/// Returns the expiry that is granted; `None` for a removal.
fn granted(asked: Option<u32>, limits: &RegistrarLimits) -> Result<Option<u32>, Refusal> {
    match asked {
        Some(0) => Ok(None),
        Some(asked) if asked < limits.min_expires_s => Err(Refusal::TooBrief(limits.min_expires_s)),
        Some(asked) => Ok(Some(asked.min(limits.max_expires_s))),
        None => Ok(Some(limits.default_expires_s)),
    }
}

fn binding(
    contact: &ContactChange,
    registration: &Registration,
    granted_s: u32,
    now: MasterTime,
) -> Binding {
    Binding {
        uri: contact.uri.clone(),
        q: contact.q,
        expires: now.plus_ms(u64::from(granted_s) * 1000),
        granted_s,
        modified: now,
        path: registration.path.clone(),
        received: registration.received.clone(),
        socket: registration.socket.clone(),
        owner: registration.owner,
        user_agent: registration.user_agent.clone(),
        call_id: registration.call_id.clone(),
        cseq: registration.cseq,
        instance: contact.instance.clone(),
        reg_id: contact.reg_id,
        methods: contact.methods,
        flags: registration.flags,
    }
}

fn find(record: &AorRecord, contact: &ContactChange) -> Option<usize> {
    let by_instance = |b: &Binding| b.reg_id == contact.reg_id && b.instance == contact.instance;
    // A phone that has begun to send a reg-id takes over its binding without one.
    let by_uri =
        |b: &Binding| (contact.reg_id == 0 || b.reg_id == 0) && same_uri(&b.uri, &contact.uri);
    let outbound = contact.reg_id != 0 && !contact.instance.is_empty();
    let first = outbound.then(|| record.bindings.iter().position(by_instance));
    first
        .flatten()
        .or_else(|| record.bindings.iter().position(by_uri))
}

/// Whether `new` is what made `stored`, but for the time.
fn is_repeated(stored: &Binding, new: &Binding) -> bool {
    let at_its_time = Binding {
        expires: stored.expires,
        modified: stored.modified,
        ..new.clone()
    };
    *stored == at_its_time
}

#[cfg(test)]
mod tests;
