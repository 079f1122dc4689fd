//! Whatever bytes come, a decoder returns: no panic, no unbounded allocation, no second guess of a version.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod hex;

use hex::{files, folder};
use locus_proto::v1::{BODY_BYTES_MAX, ENVELOPE_BYTES};
use locus_proto::{DecodeError, Deframer, Message, WireVersion};

fn golden() -> Vec<Vec<u8>> {
    let mut messages: Vec<_> = files(&folder("v1")).into_iter().map(|(_, b)| b).collect();
    messages.sort();
    messages
}

#[test]
fn every_truncation_of_every_message_is_an_error() {
    for message in golden() {
        for len in 0..message.len() {
            assert!(Message::from_bytes(&message[..len]).is_err());
        }
        let mut longer = message.clone();
        longer.push(0);
        assert_eq!(Message::from_bytes(&longer), Err(DecodeError::Trailing(1)));
    }
}

#[test]
fn every_body_cut_short_behind_a_true_length_is_an_error() {
    for message in golden() {
        for len in ENVELOPE_BYTES..message.len() {
            let mut cut = message[..len].to_vec();
            let body = u32::try_from(len - ENVELOPE_BYTES).unwrap();
            cut[8..12].copy_from_slice(&body.to_le_bytes());
            assert!(
                Message::from_bytes(&cut).is_err(),
                "{len} of {}",
                message.len()
            );
        }
    }
}

#[test]
fn every_changed_byte_is_survived() {
    for message in golden() {
        for at in 0..message.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = message.clone();
                changed[at] ^= flip;
                if let Ok(decoded) = Message::from_bytes(&changed) {
                    // What is accepted must be written as it was read, or two readers would differ.
                    let again = Message::from_bytes(&decoded.to_bytes());
                    assert_eq!(again.as_ref(), Ok(&decoded));
                }
            }
        }
    }
}

#[test]
fn other_versions_and_strangers_are_refused() {
    let good = golden().remove(0);
    let mut version = good.clone();
    let spoken = WireVersion::NEWEST.get();
    for found in [0, spoken + 1, 255] {
        version[4] = found;
        let expected = DecodeError::Version { found, spoken };
        assert_eq!(Message::from_bytes(&version), Err(expected));
    }
    let mut stranger = good.clone();
    stranger[..4].copy_from_slice(b"GET ");
    assert!(matches!(
        Message::from_bytes(&stranger),
        Err(DecodeError::Magic(_))
    ));
    let mut kind = good.clone();
    for unknown in [0, 24, 99, 255] {
        kind[5] = unknown;
        assert!(matches!(
            Message::from_bytes(&kind),
            Err(DecodeError::Unknown { value, .. }) if value == u64::from(unknown)
        ));
    }
    let mut flags = good.clone();
    flags[6] = 1;
    assert_eq!(
        Message::from_bytes(&flags),
        Err(DecodeError::Malformed { what: "flags" })
    );
    let mut long = good;
    long[8..12].copy_from_slice(&u32::try_from(BODY_BYTES_MAX + 1).unwrap().to_le_bytes());
    assert!(matches!(
        Message::from_bytes(&long),
        Err(DecodeError::TooLong { .. })
    ));
}

#[test]
fn a_stream_cut_anywhere_gives_the_same_messages() {
    let all = golden();
    let stream = all.concat();
    for size in [1, 2, 7, 13, 100, stream.len()] {
        let mut deframer = Deframer::default();
        let mut found = Vec::new();
        for piece in stream.chunks(size) {
            deframer.handle_bytes(piece);
            while let Some(message) = deframer.poll().unwrap() {
                found.push(message.to_bytes());
            }
        }
        assert_eq!(found, all, "in pieces of {size}");
    }
}

#[test]
fn a_broken_stream_stays_broken() {
    let mut deframer = Deframer::default();
    deframer.handle_bytes(b"GET / HTTP/1.1\r\n");
    let error = deframer.poll().unwrap_err();
    deframer.handle_bytes(&golden()[0]);
    assert_eq!(deframer.poll(), Err(error));
}
