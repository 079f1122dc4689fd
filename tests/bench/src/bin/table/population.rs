//! The records of the table bench: subscribers of one carrier, with bindings as telephones and gateways
//! register them. Knows what they are, not what is done with them.

use locus_bench::{Random, Subscriber};
use locus_proto::{
    AorRecord, Binding, BindingRefs, BootId, Change, ChangeOp, Level, MasterTime, Methods, NodeId,
    Owner, Q,
};

/// Bytes of every key: the kind, twelve digits, the domain.
pub(crate) const KEY_BYTES: usize = 31;
/// Where the digits of a key that differ begin and end.
const DIGITS: std::ops::Range<usize> = 5..13;
/// Where the first contact's user part begins in a value: behind the record's head, the binding's fixed
/// fields and `sip:`.
const CONTACT_USER: usize = 4 + 64 + 4;

/// 2026-01-01 in milliseconds.
const SERVICE_START: u64 = 1_767_225_600_000;
const GRANTED_S: u32 = 3_600;

const USER_AGENTS: [&str; 8] = [
    "Grandstream HT801 1.0.31.1",
    "AVM FRITZ!Box 7590 154.07.57 TAL",
    "Yealink SIP-T46U 108.86.0.45",
    "snomD785/10.1.148.1",
    "Linphone/5.2.4 (belle-sip/5.3.26)",
    "Cisco-CP8845-3PCC/12.0.1",
    "PolyVVX-VVX_411-UA/6.4.3.5156",
    "Bria iOS release 6.12.4",
];
const TRANSPORTS: [&str; 4] = ["udp", "udp", "udp", "tls"];

/// Writes the key of subscriber `n`.
pub(crate) fn write_key(n: usize, key: &mut [u8; KEY_BYTES]) {
    key.copy_from_slice(b"a493000000000@locus.example.net");
    let mut rest = n;
    for digit in key[DIGITS].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
}

/// Returns the record of subscriber `n` after `turn` refreshes, equally long for every turn.
pub(crate) fn value(n: usize, turn: u32) -> Vec<u8> {
    let mut random = Random::new(0x5eed ^ u64::try_from(n).unwrap_or(0));
    let mut record = AorRecord {
        bindings: vec![binding(n, turn, &mut random, Q::NONE)],
    };
    // Every thirteenth has a second device.
    if random.below(13) == 0 {
        let q = Q::from_thousandths(500).unwrap_or(Q::NONE);
        record.bindings.push(binding(n, turn, &mut random, q));
    }
    record.encode()
}

fn binding(n: usize, turn: u32, random: &mut Random, q: Q) -> Binding {
    let chance = |random: &mut Random, per_cent: usize| random.below(100) < per_cent;
    let text = |yes: bool, text: String| if yes { text } else { String::new() };
    let byte = random.below(256);
    let port = 1_024 + random.below(60_000);
    let transport = TRANSPORTS[random.below(TRANSPORTS.len())];
    let mut uri = format!(
        "sip:{}@198.51.100.{byte}:{port};transport={transport}",
        Subscriber(n).user()
    );
    if chance(random, 50) {
        uri.push_str(&format!(";line={:08x}", random.below(1 << 32)));
    }
    let now = SERVICE_START + u64::from(turn) * 1_000;
    let behind_nat = chance(random, 50);
    let instance = format!(
        "<urn:uuid:{:08x}-0000-1000-8000-{n:012x}>",
        random.below(1 << 32)
    );
    Binding {
        uri,
        q,
        expires: MasterTime(now + u64::from(GRANTED_S) * 1_000),
        granted_s: GRANTED_S,
        modified: MasterTime(now),
        path: text(
            chance(random, 20),
            "<sip:edge1.locus.example.net;lr>".into(),
        ),
        received: text(behind_nat, format!("sip:203.0.113.{byte}:{port}")),
        socket: "udp:192.0.2.10:5060".into(),
        owner: Owner {
            node: NodeId(u16::try_from(n % 7).unwrap_or(0)),
            boot: BootId(0x0123_4567_89ab_cdef),
            connection: 0,
        },
        user_agent: USER_AGENTS[random.below(USER_AGENTS.len())].into(),
        call_id: format!("{:016x}@198.51.100.{byte}", random.next_u64()),
        cseq: 1 + turn,
        instance: text(chance(random, 60), instance),
        reg_id: 0,
        methods: Methods(0x1fff),
        flags: 0,
    }
}

/// Returns whether `value` is the whole record of subscriber `n` after any number of refreshes.
pub(crate) fn is_right(n: usize, found: &[u8]) -> bool {
    let first = BindingRefs::new(found)
        .ok()
        .and_then(|mut refs| refs.next());
    let Some(Ok(first)) = first else {
        return false;
    };
    found == value(n, first.cseq.wrapping_sub(1))
}

/// Returns whether `value` begins with a contact of the subscriber whose key is `key`: what can be afforded
/// where the time of the check itself would count.
#[inline]
pub(crate) fn is_of(key: &[u8; KEY_BYTES], found: &[u8]) -> bool {
    found
        .get(CONTACT_USER..)
        .is_some_and(|user| user.starts_with(&key[1..DIGITS.end]))
}

/// The change that brings subscriber `n` to `turn` at `level`.
pub(crate) fn change(n: usize, turn: u32, level: Level) -> Change {
    Change {
        key: Subscriber(n).key(),
        level,
        op: ChangeOp::Put(value(n, turn)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_subscribers() {
        for n in [0, 7, 12_345_678, 99_999_999] {
            let mut bytes = [0; KEY_BYTES];
            write_key(n, &mut bytes);
            assert_eq!(bytes, Subscriber(n).key().as_bytes());
        }
    }

    #[test]
    fn records_are_realistic_and_keep_their_length() {
        let lengths: Vec<usize> = (0..2_000).map(|n| value(n, 0).len()).collect();
        let mean = lengths.iter().sum::<usize>() / lengths.len();
        assert!((240..300).contains(&mean), "mean {mean}");
        let mut bytes = [0; KEY_BYTES];
        for (n, length) in lengths.into_iter().enumerate() {
            let later = value(n, 77);
            assert_eq!(later.len(), length);
            assert!(is_right(n, &later) && !is_right(n + 1, &later));
            write_key(n, &mut bytes);
            assert!(is_of(&bytes, &later));
            write_key(n + 1, &mut bytes);
            assert!(!is_of(&bytes, &later));
            assert_eq!(AorRecord::decode(&later).unwrap().encode(), later);
        }
    }
}
