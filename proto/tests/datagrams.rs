//! Golden bytes of the datagrams, and whatever else may come from a network.
//!
//! The files in `tests/golden/lrm` hold header and payload before sealing, those in `tests/golden/sealed` the
//! whole datagrams under the keys named here: vectors for whoever writes another end.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "hex/bless.rs"]
mod bless;
mod hex;

use hex::{files, folder, unhex};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, Signature, UnparsedPublicKey};

use locus_proto::v1::{
    Confirm, DATAGRAM_BYTES_MAX, DATAGRAM_HEADER_BYTES, DatagramHeader, DatagramKind,
    FragmentFlags, GROUP_FRAME_BYTES_MAX, GROUP_FRAME_CONTEXT, Gone, GroupBeat, GroupFrame,
    GroupStatus, Nack, RANGES_MAX, SEAL_BYTES, SIGNATURE_BYTES, SeqRange,
};
use locus_proto::{DecodeError, Message, NodeId};

const STREAM: u64 = 0xfeed_0000_0000_beef;
const SEQ: u64 = 70_001;
/// The group's key, and every node's.
const KEY: [u8; 32] = [0x5e; 32];
/// Seed of the signing key.
const SIGNING_SEED: [u8; 32] = [0x51; 32];

fn signer() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&SIGNING_SEED).unwrap()
}

/// Signs the messages of a frame that begins at [`SEQ`], as the README says.
fn sign(messages: &[u8]) -> Signature {
    let place = [STREAM.to_le_bytes(), SEQ.to_le_bytes()].concat();
    signer().sign(&[GROUP_FRAME_CONTEXT, &place, messages].concat())
}

fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).unwrap())
}

/// Seals a datagram, as the README says.
fn seal(header: &DatagramHeader, payload: &[u8]) -> Vec<u8> {
    let head = header.encode();
    let nonce = Nonce::assume_unique_for_key(header.nonce());
    let mut sealed = payload.to_vec();
    key()
        .seal_in_place_append_tag(nonce, Aad::from(&head), &mut sealed)
        .unwrap();
    [&head[..], &sealed].concat()
}

fn header(kind: DatagramKind) -> DatagramHeader {
    let whole = kind == DatagramKind::Data;
    let flags = FragmentFlags {
        first: whole,
        last: whole,
    };
    let of_master = kind.is_of_master();
    DatagramHeader {
        kind,
        key: if of_master { 3 } else { 0 },
        flags,
        node: NodeId(if of_master { 0 } else { 7 }),
        stream: STREAM,
        seq: SEQ,
        low: if of_master { 60_000 } else { 60_001 },
    }
}

fn message(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(folder("v1").join(format!("{name}.hex"))).unwrap();
    unhex(&text)
}

fn frame() -> Vec<u8> {
    let messages = [message("frame_epoch"), message("heartbeat")].concat();
    [sign(&messages).as_ref(), &messages].concat()
}

fn ranges() -> Vec<SeqRange> {
    vec![
        SeqRange {
            first: 60_001,
            count: 1,
        },
        SeqRange {
            first: 60_010,
            count: 50,
        },
    ]
}

fn beat() -> GroupBeat {
    GroupBeat {
        highest: 70_001,
        level: 99,
        members: 9,
        rtt_us: 250,
        back_off: 2,
        sent_us: 1_000_000,
    }
}

fn status() -> GroupStatus {
    GroupStatus {
        contiguous: 60_000,
        highest: 70_001,
        lost_total: 51,
        nacks_total: 2,
        beat_us: 1_000_000,
        held_us: 40,
    }
}

/// Name, header, payload before sealing.
fn samples() -> Vec<(&'static str, DatagramHeader, Vec<u8>)> {
    let payload = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode(&mut out);
        out
    };
    let nack = Nack { ranges: ranges() };
    let confirm = Confirm { ranges: ranges() };
    let gone = Gone { low: 60_000 };
    let control = [
        ("beat", DatagramKind::Beat, payload(&|o| beat().encode(o))),
        (
            "confirm",
            DatagramKind::Confirm,
            payload(&|o| confirm.encode(o)),
        ),
        ("gone", DatagramKind::Gone, payload(&|o| gone.encode(o))),
        ("nack", DatagramKind::Nack, payload(&|o| nack.encode(o))),
        (
            "status",
            DatagramKind::Status,
            payload(&|o| status().encode(o)),
        ),
    ];
    let data = [("data", DatagramKind::Data, frame())];
    control
        .into_iter()
        .chain(data)
        .map(|(name, kind, payload)| (name, header(kind), payload))
        .collect()
}

fn decode_payload(kind: DatagramKind, payload: &[u8]) -> Result<(), DecodeError> {
    match kind {
        DatagramKind::Data => GroupFrame::split(payload)?.messages().map(drop),
        DatagramKind::Beat => GroupBeat::decode(payload).map(drop),
        DatagramKind::Confirm => Confirm::decode(payload).map(drop),
        DatagramKind::Gone => Gone::decode(payload).map(drop),
        DatagramKind::Nack => Nack::decode(payload).map(drop),
        DatagramKind::Status => GroupStatus::decode(payload).map(drop),
    }
}

#[test]
fn each_datagram_is_the_bytes_of_its_file() {
    let samples = samples();
    for (name, header, payload) in &samples {
        let bytes = [&header.encode()[..], payload].concat();
        let golden = bless::compare(&folder("lrm"), name, &bytes);
        assert_eq!(DatagramHeader::decode(&golden), Ok(*header));
        bless::compare(&folder("sealed"), name, &seal(header, payload));
    }
    let names: Vec<&str> = samples.iter().map(|(name, _, _)| *name).collect();
    for which in ["lrm", "sealed"] {
        for (file, _) in files(&folder(which)) {
            assert!(names.contains(&&*file), "{file} belongs to no sample");
        }
    }
}

#[test]
fn each_sealed_datagram_opens_and_no_changed_one_does() {
    let open = |datagram: &[u8]| {
        let (header, sealed) = DatagramHeader::split(datagram).ok()?;
        let nonce = Nonce::assume_unique_for_key(header.nonce());
        let aad = Aad::from(&datagram[..DATAGRAM_HEADER_BYTES]);
        let mut sealed = sealed.to_vec();
        let payload = key().open_in_place(nonce, aad, &mut sealed).ok()?;
        Some(payload.to_vec())
    };
    let plain = samples();
    for (name, datagram) in files(&folder("sealed")) {
        let (_, _, payload) = plain.iter().find(|(n, _, _)| **n == name).unwrap();
        assert_eq!(open(&datagram).as_ref(), Some(payload), "{name}");
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert_eq!(open(&changed), None, "{name}: byte {at} is covered");
        }
    }
}

#[test]
fn a_signature_is_for_one_place_in_one_stream() {
    let frame = frame();
    let frame = GroupFrame::split(&frame).unwrap();
    let key = UnparsedPublicKey::new(&ED25519, signer().public_key().as_ref().to_vec());
    let holds = |stream: u64, seq: u64| {
        let place = [stream.to_le_bytes(), seq.to_le_bytes()].concat();
        let text = [GROUP_FRAME_CONTEXT, &place, frame.messages].concat();
        key.verify(&text, frame.signature).is_ok()
    };
    assert!(holds(STREAM, SEQ));
    assert!(!holds(STREAM, SEQ + 1), "moved");
    assert!(!holds(STREAM + 1, SEQ), "played again in another life");
}

#[test]
fn each_payload_is_read_as_it_was_written() {
    let payload = |name| {
        let (_, _, payload) = samples().into_iter().find(|(n, _, _)| *n == name).unwrap();
        payload
    };
    assert_eq!(GroupBeat::decode(&payload("beat")), Ok(beat()));
    assert_eq!(GroupStatus::decode(&payload("status")), Ok(status()));
    assert_eq!(Gone::decode(&payload("gone")), Ok(Gone { low: 60_000 }));
    let ranges = ranges();
    assert_eq!(Nack::decode(&payload("nack")).unwrap().ranges, ranges);
    assert_eq!(Confirm::decode(&payload("confirm")).unwrap().ranges, ranges);
    let bytes = payload("data");
    let frame = GroupFrame::split(&bytes).unwrap();
    assert_eq!(frame.signature, sign(frame.messages).as_ref());
    let messages = frame.messages().unwrap();
    assert!(matches!(
        messages[..],
        [Message::Frame(_), Message::Heartbeat(_)]
    ));
}

#[test]
fn a_nonce_names_kind_sender_and_number() {
    let nonce = header(DatagramKind::Nack).nonce();
    assert_eq!(nonce, [5, 7, 0, 0, 0x71, 0x11, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn every_truncation_and_every_byte_behind_the_end_is_an_error() {
    for (name, header, payload) in samples() {
        let head = header.encode();
        for len in 0..head.len() {
            assert!(DatagramHeader::decode(&head[..len]).is_err(), "{name}");
        }
        if header.kind == DatagramKind::Data {
            continue; // Its messages end anywhere between two of them: see the test of frames.
        }
        for len in 0..payload.len() {
            assert!(
                decode_payload(header.kind, &payload[..len]).is_err(),
                "{name}: {len}"
            );
        }
        let mut longer = payload;
        longer.push(0);
        assert_eq!(
            decode_payload(header.kind, &longer),
            Err(DecodeError::Trailing(1)),
            "{name}"
        );
    }
}

#[test]
fn a_datagram_has_room_for_a_seal_and_no_more_bytes_than_the_limit() {
    let head = header(DatagramKind::Beat).encode();
    let with = |len: usize| [&head[..], &vec![0; len]].concat();
    for len in 0..SEAL_BYTES {
        assert!(DatagramHeader::split(&with(len)).is_err(), "{len}");
    }
    let room = DATAGRAM_BYTES_MAX - DATAGRAM_HEADER_BYTES;
    for len in [SEAL_BYTES, room] {
        let datagram = with(len);
        let (read, sealed) = DatagramHeader::split(&datagram).unwrap();
        assert_eq!((read, sealed.len()), (header(DatagramKind::Beat), len));
    }
    assert!(matches!(
        DatagramHeader::split(&with(room + 1)),
        Err(DecodeError::TooLong { .. })
    ));
}

/// Decodes the header of a datagram of this kind with one byte of it set.
fn with_byte(
    kind: DatagramKind,
    at: usize,
    byte: u8,
) -> (Vec<u8>, Result<DatagramHeader, DecodeError>) {
    let mut bytes = header(kind).encode().to_vec();
    bytes[at] = byte;
    let result = DatagramHeader::decode(&bytes);
    (bytes, result)
}

#[test]
fn strangers_versions_kinds_and_flags_that_nobody_defined_are_refused() {
    let (_, stranger) = with_byte(DatagramKind::Data, 0, b'X');
    assert!(matches!(stranger, Err(DecodeError::Magic(_))));
    for found in [0, 2, 255] {
        let spoken = 1;
        let (_, result) = with_byte(DatagramKind::Data, 2, found);
        assert_eq!(result, Err(DecodeError::Version { found, spoken }));
    }
    for kind in [0, 7, 8, 255] {
        let (_, result) = with_byte(DatagramKind::Data, 3, kind);
        assert!(matches!(result, Err(DecodeError::Unknown { .. })), "{kind}");
    }
    for kind in DatagramKind::ALL {
        for flags in 0..=255 {
            let (_, result) = with_byte(kind, 5, flags);
            let known = flags == 0 || (kind == DatagramKind::Data && flags <= 3);
            assert_eq!(result.is_ok(), known, "{kind:?} {flags}");
        }
    }
}

#[test]
fn a_kind_is_sent_by_the_master_or_by_a_node_never_by_both() {
    for kind in DatagramKind::ALL {
        for node in [0, 1, 65_535] {
            let header = DatagramHeader {
                node: NodeId(node),
                ..header(kind)
            };
            let right = kind.is_of_master() == (node == 0);
            assert_eq!(
                DatagramHeader::decode(&header.encode()).is_ok(),
                right,
                "{kind:?} of {node}"
            );
        }
    }
}

#[test]
fn numbers_begin_with_one() {
    for kind in DatagramKind::ALL {
        let header = DatagramHeader {
            seq: 0,
            ..header(kind)
        };
        let what = "sequence number";
        assert_eq!(
            DatagramHeader::decode(&header.encode()),
            Err(DecodeError::Malformed { what })
        );
    }
}

#[test]
fn every_changed_byte_of_a_header_is_refused_or_kept() {
    for kind in DatagramKind::ALL {
        for at in 0..DATAGRAM_HEADER_BYTES {
            for byte in 0..=255 {
                // What is accepted must be written as it was read: the header is what the seal covers.
                let (bytes, result) = with_byte(kind, at, byte);
                if let Ok(header) = result {
                    assert_eq!(header.encode()[..], bytes);
                }
            }
        }
    }
}

fn nack(ranges: &[(u64, u16)]) -> Result<Vec<SeqRange>, DecodeError> {
    let mut payload = vec![u8::try_from(ranges.len()).unwrap()];
    for (first, count) in ranges {
        payload.extend(first.to_le_bytes());
        payload.extend(count.to_le_bytes());
    }
    let confirmed = Confirm::decode(&payload).map(|confirm| confirm.ranges);
    let asked = Nack::decode(&payload).map(|nack| nack.ranges);
    assert_eq!(asked, confirmed, "both are read alike");
    asked
}

#[test]
fn ranges_ascend_hold_something_and_are_few() {
    let many: Vec<(u64, u16)> = (1..=41).map(|at| (at * 2, 1)).collect();
    for good in [
        &many[..RANGES_MAX],
        &[(1, 1)],
        &[(1, 1), (2, u16::MAX)],
        &[(u64::MAX - 1, 1)],
    ] {
        let read: Vec<_> = nack(good)
            .unwrap()
            .iter()
            .map(|range| (range.first, range.count))
            .collect();
        assert_eq!(read, good);
    }
    let bad: [&[(u64, u16)]; 7] = [
        &[],
        &[(0, 1)],
        &[(1, 0)],
        &[(5, 2), (6, 1)],
        &[(5, 1), (1, 1)],
        &[(u64::MAX, 1)],
        &[(u64::MAX - 5, 6)],
    ];
    for bad in bad {
        let what = "range";
        assert_eq!(nack(bad), Err(DecodeError::Malformed { what }), "{bad:?}");
    }
    assert!(matches!(nack(&many), Err(DecodeError::TooLong { .. })));
    // What is too much is left out, so that the count tells the truth.
    let range = SeqRange { first: 1, count: 1 };
    let mut payload = Vec::new();
    Nack {
        ranges: (0..300)
            .map(|at| SeqRange {
                first: at * 2 + 1,
                ..range
            })
            .collect(),
    }
    .encode(&mut payload);
    assert_eq!(Nack::decode(&payload).unwrap().ranges.len(), RANGES_MAX);
}

#[test]
fn a_distribution_frame_holds_changes_and_heartbeats_of_version_1_alone() {
    let signed = |messages: &[u8]| [&[0; SIGNATURE_BYTES][..], messages].concat();
    let whole = frame();
    let ends = [SIGNATURE_BYTES + message("frame_epoch").len(), whole.len()];
    for len in 0..=whole.len() {
        let read = GroupFrame::split(&whole[..len]).and_then(|frame| frame.messages());
        assert_eq!(read.is_ok(), ends.contains(&len), "{len}");
    }
    for (name, bytes) in files(&folder("v1")) {
        let allowed = name.starts_with("frame_") || name == "heartbeat";
        let bytes = signed(&bytes);
        let read = GroupFrame::split(&bytes).unwrap().messages();
        assert_eq!(read.is_ok(), allowed, "{name}");
    }
    for (name, bytes) in files(&folder("v2")) {
        let bytes = signed(&bytes);
        let read = GroupFrame::split(&bytes).unwrap().messages();
        let (found, spoken) = (2, 1);
        let expected = DecodeError::Version { found, spoken };
        assert_eq!(read, Err(expected), "{name}");
    }
    assert!(matches!(
        GroupFrame::split(&vec![0; GROUP_FRAME_BYTES_MAX + 1]),
        Err(DecodeError::TooLong { .. })
    ));
}
