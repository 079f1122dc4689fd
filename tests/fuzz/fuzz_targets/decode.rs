//! Any bytes to the decoders of the wire and of keys: an error or a value, never a panic. What decodes
//! can be sent on as the same message; it knows nothing of what a message means.
#![no_main]

use libfuzzer_sys::fuzz_target;
use locus_proto::{Deframer, Key, Message};

fuzz_target!(|input: &[u8]| {
    if let Ok(message) = Message::from_bytes(input) {
        let again = Message::from_bytes(&message.to_bytes());
        assert_eq!(again.as_ref(), Ok(&message), "what was read can be sent");
    }
    let _key = Key::from_bytes(input);
    // The same bytes as a stream that comes in pieces; the first byte says in which.
    let Some((size, stream)) = input.split_first() else {
        return;
    };
    let (mut whole, mut pieces) = (Deframer::default(), Deframer::default());
    whole.handle_bytes(stream);
    let mut expected = Vec::new();
    while let Ok(Some(message)) = whole.poll() {
        expected.push(message);
    }
    let mut found = Vec::new();
    for piece in stream.chunks(usize::from(*size).max(1)) {
        pieces.handle_bytes(piece);
        while let Ok(Some(message)) = pieces.poll() {
            found.push(message);
        }
    }
    assert_eq!(found, expected, "how a stream is cut changes nothing");
});
