//! Any bytes as a distribution frame put together from its datagrams: an error or messages, never a
//! panic. What decodes can be sent again; the signature is somebody else's matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use locus_proto::Message;
use locus_proto::v1::{GroupFrame, SIGNATURE_BYTES};

fuzz_target!(|input: &[u8]| {
    let Ok(frame) = GroupFrame::split(input) else {
        return;
    };
    assert_eq!(frame.messages.len() + SIGNATURE_BYTES, input.len());
    let Ok(messages) = frame.messages() else {
        return;
    };
    let mut bytes = frame.signature.to_vec();
    for message in &messages {
        assert!(
            matches!(message, Message::Frame(_) | Message::Heartbeat(_)),
            "{message:?}"
        );
        message.encode(&mut bytes);
    }
    let again = GroupFrame::split(&bytes).and_then(|frame| frame.messages());
    assert_eq!(again, Ok(messages), "what was read can be sent");
});
