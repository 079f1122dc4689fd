//! Nodes and masters of different versions understand each other, or end the conversation at once.
//!
//! Run in both builds: `cargo test -p locus-proto` speaks version 1, with `--features synthetic-v2` also a
//! version 2 that stands for any later one. The golden files of version 2 are bytes of the newer build to
//! the older one.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod hex;

use hex::{files, folder};
use locus_proto::v1::Hello;
use locus_proto::{DecodeError, Deframer, Message, WireVersion};

fn golden(version: &str, name: &str) -> Vec<u8> {
    let (_, bytes) = files(&folder(version))
        .into_iter()
        .find(|(file, _)| file == name)
        .unwrap();
    bytes
}

fn greeting(bytes: &[u8]) -> Option<Hello> {
    match Message::from_bytes(bytes) {
        Ok(Message::Hello(hello)) => Some(hello),
        Ok(_) | Err(_) => None,
    }
}

/// The greeting of a node whose newest version is `newest`, as its bytes arrive.
fn hello(newest: u8) -> Hello {
    let hello = greeting(&golden("v1", "hello")).unwrap();
    let bytes = Message::Hello(Hello { newest, ..hello }).to_bytes_in(WireVersion::NEWEST);
    // Nothing of a greeting needs a version that the other side may not know.
    assert_eq!(bytes[4], 1);
    greeting(&bytes).unwrap()
}

#[test]
fn a_master_speaks_the_older_of_the_two_newest_versions() {
    for newest in 1..=255 {
        let agreed = WireVersion::agree(hello(newest).newest);
        assert_eq!(agreed.get(), newest.min(WireVersion::NEWEST.get()));
    }
}

#[test]
fn a_greeting_of_no_version_is_refused() {
    let golden = golden("v1", "hello");
    let at = 12 + (2 + 3) + (2 + 2) + (2 + 19) + 2 + 8;
    assert_eq!(golden[at], 1, "the newest version stands here");
    let mut none = golden;
    none[at] = 0;
    let what = "newest version";
    assert_eq!(
        Message::from_bytes(&none),
        Err(DecodeError::Malformed { what })
    );
}

#[test]
fn a_welcome_into_a_version_that_was_not_offered_is_refused() {
    let mut welcome = golden("v1", "welcome_continue");
    assert_eq!(welcome[12], 1, "the agreed version stands here");
    let spoken = WireVersion::NEWEST.get();
    for found in [0, spoken + 1] {
        welcome[12] = found;
        let expected = DecodeError::Version { found, spoken };
        assert_eq!(Message::from_bytes(&welcome), Err(expected));
    }
}

/// What is heard of a stream: the messages before its first error, and that error.
fn hear(bytes: &[u8]) -> (usize, Option<DecodeError>) {
    let mut deframer = Deframer::default();
    deframer.handle_bytes(bytes);
    let mut heard = 0;
    loop {
        match deframer.poll() {
            Ok(Some(_)) => heard += 1,
            Ok(None) => return (heard, None),
            Err(error) => {
                deframer.handle_bytes(&golden("v1", "heartbeat"));
                assert_eq!(deframer.poll(), Err(error.clone()), "it must stay broken");
                return (heard, Some(error));
            }
        }
    }
}

#[test]
fn a_message_of_an_unknown_version_ends_the_conversation() {
    let heartbeat = golden("v1", "heartbeat");
    let mut unknown = heartbeat.clone();
    let spoken = WireVersion::NEWEST.get();
    let found = spoken + 1;
    unknown[4] = found;
    let stream = [heartbeat.clone(), unknown, heartbeat].concat();
    let error = DecodeError::Version { found, spoken };
    assert_eq!(hear(&stream), (1, Some(error)));
}

#[test]
#[cfg(not(feature = "synthetic-v2"))]
fn a_speaker_of_version_1_hears_nothing_of_version_2() {
    for (name, bytes) in files(&folder("v2")) {
        let error = DecodeError::Version {
            found: 2,
            spoken: 1,
        };
        assert_eq!(hear(&bytes), (0, Some(error)), "{name}");
    }
}

#[test]
#[cfg(feature = "synthetic-v2")]
fn a_speaker_of_version_2_hears_both_in_one_stream() {
    let newer = files(&folder("v2"));
    assert_eq!(newer.len(), 2, "heartbeat and status");
    let mut stream = Vec::new();
    for (name, bytes) in &newer {
        let older = golden("v1", name);
        assert_eq!(bytes.len(), older.len() + 8, "one field more");
        let heard = Message::from_bytes(bytes).unwrap();
        assert_eq!(Message::from_bytes(&older), Ok(heard.clone()));
        // Spoken to either neighbour, it is what that one knows.
        assert_eq!(&heard.to_bytes_in(WireVersion::agree(2)), bytes);
        assert_eq!(heard.to_bytes_in(WireVersion::agree(1)), older);
        stream.extend_from_slice(bytes);
        stream.extend(older);
    }
    assert_eq!(hear(&stream), (4, None));
}

#[test]
#[cfg(feature = "synthetic-v2")]
fn version_2_has_one_form_of_each_message() {
    // The field that version 2 adds is read, and must say what it is for.
    let mut heartbeat = golden("v2", "heartbeat");
    *heartbeat.last_mut().unwrap() ^= 1;
    let what = "level again";
    assert_eq!(
        Message::from_bytes(&heartbeat),
        Err(DecodeError::Malformed { what })
    );
    // A message that version 2 did not change does not come in it.
    let mut frame = golden("v1", "frame_changes");
    frame[4] = 2;
    assert!(matches!(
        Message::from_bytes(&frame),
        Err(DecodeError::Unknown { value: 4, .. })
    ));
}
