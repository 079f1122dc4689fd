//! The benches' subscribers: a block of numbers as carriers provision them, one realistic binding each.
//! Knows what they are, not what is done with them.

use locus_lab::Locsvc;
use locus_proto::{AddressOfRecord, Key};
use serde_json::{Value, json};

/// Changes in one request of the API.
const BATCH: usize = 1_000;

/// One subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscriber(pub usize);

impl Subscriber {
    /// The domain of their addresses-of-record.
    pub const DOMAIN: &str = "locus.example.net";

    /// The number.
    pub fn user(self) -> String {
        format!("4930{:08}", self.0)
    }

    /// The address-of-record, without scheme: what the API's paths hold.
    pub fn aor(self) -> String {
        format!("{}@{}", self.user(), Self::DOMAIN)
    }

    /// The key of their record.
    ///
    /// # Panics
    /// When the address-of-record is none.
    pub fn key(self) -> Key {
        let aor = AddressOfRecord::parse(&self.aor());
        Key::aor(&aor.unwrap_or_else(|error| panic!("{}: {error}", self.aor())))
    }

    /// The contact's URI, equally long for all subscribers; `turn`, at most five digits, tells one update
    /// from the next. With the fixed fields, the q and the instance, a record of about 250 bytes.
    pub fn contact(self, turn: usize) -> String {
        format!(
            "sip:{}@198.51.100.27:40612;transport=udp;line=sr-{:016x};reg=lab_{turn:05};ob",
            self.user(),
            self.0
        )
    }

    /// `+sip.instance` (RFC 5626), without quotes.
    pub fn instance(self) -> String {
        format!("<urn:uuid:00000000-0000-1000-8000-{:012x}>", self.0)
    }

    /// Body of `PUT /v1/aors/…`. Without q, because a script cannot give one to the Request-URI and
    /// bench-sip wants the same bytes from all.
    pub fn body(self, turn: usize) -> Value {
        json!({ "contacts": [{ "uri": self.contact(turn), "instance": self.instance() }] })
    }
}

/// Provisions subscribers `0..count` with turn 0 in batches and returns the level created.
pub fn provision(locsvc: &Locsvc, count: usize) -> u64 {
    let all: Vec<Subscriber> = (0..count).map(Subscriber).collect();
    let mut level = 0;
    for batch in all.chunks(BATCH) {
        let changes: Vec<Value> = batch
            .iter()
            .map(|one| {
                let contacts = &one.body(0)["contacts"];
                json!({ "op": "put_aor", "aor": one.aor(), "contacts": contacts })
            })
            .collect();
        let answer = locsvc
            .api()
            .post("/v1/batch", &json!({ "changes": changes }));
        level = answer.level();
    }
    level
}

#[cfg(test)]
mod tests {
    use locus_proto::{AorRecord, Binding};

    use super::*;

    #[test]
    fn all_are_equally_long_and_realistic() {
        let (first, last) = (Subscriber(0), Subscriber(99_999));
        assert_eq!(first.contact(0).len(), last.contact(99_999).len());
        assert_eq!(first.instance().len(), last.instance().len());
        let key = last.key();
        assert_eq!(&key.as_bytes()[1..], last.aor().as_bytes());
        let mut binding = Binding::permanent(&last.contact(1));
        binding.instance = last.instance();
        let bytes = AorRecord {
            bindings: vec![binding],
        }
        .encode()
        .len()
            + key.as_bytes().len();
        assert!((230..270).contains(&bytes), "{bytes}");
    }
}
