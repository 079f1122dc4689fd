//! Compares nodes' tables, record by record, with each other and with the API's answers.
//! Knows how a binding looks in both, nothing of how it got there.

use locus_proto::{AddressOfRecord, AorRecord, Binding, Key, MasterTime};
use serde_json::Value;

use crate::api::Api;
use crate::node::Node;
use crate::view::Dump;

/// Differences that are told; the first few say what is wrong.
const DIFFERENCES_MAX: usize = 10;

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Records in each table.
    pub records: usize,
    /// What differs, one line each, at most ten.
    pub differences: Vec<String>,
}

impl Comparison {
    fn differs(&mut self, what: String) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(what);
        }
    }
}

/// Dumps the tables of `nodes`, asks the API for each of `aors`, and compares: the tables must be equal
/// byte for byte and hold exactly these addresses-of-record with the contacts the API gives.
pub fn compare(
    api: &Api,
    nodes: &[&Node],
    aors: &[String],
    mut progress: impl FnMut(),
) -> Comparison {
    let dumps: Vec<Dump> = nodes.iter().map(|node| node.view().dump()).collect();
    let mut found = Comparison::default();
    let Some(first) = dumps.first() else {
        return found;
    };
    found.records = first.len();
    for (node, dump) in nodes.iter().zip(&dumps).skip(1) {
        if dump.len() != first.len() {
            found.differs(format!(
                "{} holds {} records, not {}",
                node.name(),
                dump.len(),
                first.len()
            ));
        }
        for (key, record) in dump {
            if first.get(key) != Some(record) {
                found.differs(format!(
                    "{} differs at key {}",
                    node.name(),
                    key.escape_ascii()
                ));
            }
        }
    }
    for aor in aors {
        if let Err(difference) = compare_one(api, first, aor) {
            found.differs(format!("{aor}: {difference}"));
        }
        progress();
    }
    found
}

fn compare_one(api: &Api, dump: &Dump, aor: &str) -> Result<(), String> {
    let address = AddressOfRecord::parse(aor).map_err(|error| error.to_string())?;
    let (_, value) = dump
        .get(Key::aor(&address).as_bytes())
        .ok_or("not in the table")?;
    let record = AorRecord::decode(value).map_err(|error| error.to_string())?;
    let answer = api.get(&format!("/v1/aors/{aor}"));
    if answer.status != 200 {
        return Err(format!("the API answers {} {}", answer.status, answer.body));
    }
    let contacts = answer.json()["contacts"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if contacts.len() != record.bindings.len() {
        let (here, there) = (record.bindings.len(), contacts.len());
        return Err(format!(
            "{here} bindings in the table, {there} contacts by the API"
        ));
    }
    for (binding, contact) in record.bindings.iter().zip(&contacts) {
        compare_contact(binding, contact)?;
    }
    Ok(())
}

fn compare_contact(binding: &Binding, contact: &Value) -> Result<(), String> {
    let texts = [
        ("uri", &binding.uri),
        ("path", &binding.path),
        ("received", &binding.received),
        ("instance", &binding.instance),
    ];
    for (name, text) in texts {
        let there = contact[name].as_str().unwrap_or_default();
        if there != text {
            return Err(format!(
                "{name} is {text:?} in the table, {there:?} by the API"
            ));
        }
    }
    let q = binding.q.thousandths().map(|q| f64::from(q) / 1_000.0);
    if contact["q"].as_f64() != q {
        return Err(format!(
            "q is {q:?} in the table, {} by the API",
            contact["q"]
        ));
    }
    let left = contact["expires_s"].as_u64();
    let permanent = binding.expires == MasterTime::NEVER;
    // The tables hold the moment, the API what is left of it.
    let fits = left.map_or(permanent, |left| {
        !permanent && left <= u64::from(binding.granted_s)
    });
    if !fits {
        return Err(format!(
            "granted {} s, {left:?} s left by the API",
            binding.granted_s
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_is_compared() {
        let mut binding = Binding::permanent("sip:a@h");
        let same = json!({ "uri": "sip:a@h" });
        assert_eq!(compare_contact(&binding, &same), Ok(()));
        for other in [
            json!({ "uri": "sip:b@h" }),
            json!({ "uri": "sip:a@h", "q": 0.5 }),
            json!({ "uri": "sip:a@h", "path": "<sip:p>" }),
            json!({ "uri": "sip:a@h", "expires_s": 60 }),
        ] {
            assert!(compare_contact(&binding, &other).is_err(), "{other}");
        }
        binding.expires = MasterTime(1);
        binding.granted_s = 60;
        assert!(compare_contact(&binding, &same).is_err());
        let lives = json!({ "uri": "sip:a@h", "expires_s": 59 });
        assert_eq!(compare_contact(&binding, &lives), Ok(()));
    }
}
