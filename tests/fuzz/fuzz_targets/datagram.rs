//! Any bytes as a datagram of the multicast group whose seal was opened: header and payload are an error
//! or a value, never a panic, and a value has exactly the bytes that it was read from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use locus_proto::DecodeError;
use locus_proto::v1::{
    Confirm, DATAGRAM_HEADER_BYTES, DatagramHeader, DatagramKind, Gone, GroupBeat, GroupStatus,
    Nack, RANGES_MAX,
};

fuzz_target!(|input: &[u8]| {
    let split = DatagramHeader::split(input);
    let Ok(header) = DatagramHeader::decode(input) else {
        assert!(split.is_err(), "a datagram without a header");
        return;
    };
    let (head, payload) = input.split_at(DATAGRAM_HEADER_BYTES);
    assert_eq!(header.encode(), head, "the seal covers these bytes");
    if let Ok((of_whole, sealed)) = split {
        assert_eq!((of_whole, sealed), (header, payload));
    }
    if let Ok(again) = again(header.kind, payload) {
        assert_eq!(again, payload, "{:?}", header.kind);
    }
});

/// Reads a payload and writes it again; DATA is a piece of something longer and is fuzzed as that.
fn again(kind: DatagramKind, payload: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    match kind {
        DatagramKind::Data => out.extend_from_slice(payload),
        DatagramKind::Beat => GroupBeat::decode(payload)?.encode(&mut out),
        DatagramKind::Confirm => {
            let confirm = Confirm::decode(payload)?;
            assert!((1..=RANGES_MAX).contains(&confirm.ranges.len()));
            confirm.encode(&mut out);
        }
        DatagramKind::Gone => Gone::decode(payload)?.encode(&mut out),
        DatagramKind::Nack => {
            let nack = Nack::decode(payload)?;
            let apart = |pair: &[locus_proto::v1::SeqRange]| pair[0].end() <= pair[1].first;
            assert!(nack.ranges.windows(2).all(apart), "{nack:?}");
            nack.encode(&mut out);
        }
        DatagramKind::Status => GroupStatus::decode(payload)?.encode(&mut out),
    }
    Ok(out)
}
