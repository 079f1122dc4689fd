//! Files that are no snapshots: each is refused, none costs more memory than a chunk.

use super::*;

#[test]
fn every_truncation_is_an_error() {
    let bytes = small();
    for len in 0..bytes.len() {
        assert!(load(&bytes[..len]).is_err(), "{len} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(load(&longer).is_err());
}

#[test]
fn every_other_byte_is_an_error() {
    let bytes = small();
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut other = bytes.clone();
            other[at] ^= flip;
            assert!(load(&other).is_err(), "byte {at} ^ {flip:#x}");
        }
    }
}

#[test]
fn a_piece_that_is_lost_zeroed_or_moved_is_an_error() {
    let bytes = small();
    let mut random = crate::random::Random::new(11);
    let len = u64::try_from(bytes.len()).unwrap();
    let index = |n: u64| usize::try_from(n).unwrap();
    for _ in 0..1500 {
        let from = random.between(0, len - 1);
        let to = index(random.between(from + 1, len));
        let from = index(from);
        let mut lost = bytes.clone();
        lost.drain(from..to);
        let mut zeroed = bytes.clone();
        zeroed[from..to].fill(0);
        let mut twice = bytes.clone();
        twice.splice(from..from, bytes[from..to].iter().copied());
        for other in [lost, zeroed, twice] {
            assert!(other == bytes || load(&other).is_err(), "{from}..{to}");
        }
    }
}

#[test]
fn noise_is_an_error() {
    let mut random = crate::random::Random::new(5);
    for _ in 0..500 {
        let len = random.between(0, 600);
        let byte = |_| u8::try_from(random.between(0, 255)).unwrap();
        let mut noise: Vec<u8> = (0..len).map(byte).collect();
        assert!(load(&noise).is_err());
        // Behind a header that is right.
        let whole = small();
        noise.splice(0..0, whole[..whole.len() / 2].iter().copied());
        assert!(load(&noise).is_err());
    }
}

#[test]
fn says_what_is_wrong() {
    type Edit = fn(&mut Vec<u8>);
    let with = |edit: Edit| {
        let mut bytes = small();
        edit(&mut bytes);
        load(&bytes).unwrap_err().to_string()
    };
    let cases: [(Edit, &str); 5] = [
        (|bytes| bytes.truncate(9), "it ends too early"),
        (|bytes| bytes[0] = b'X', "it is no snapshot"),
        (
            |bytes| bytes[8] = 2,
            "it has format 2, this build reads format 1",
        ),
        (
            |bytes| bytes[20] ^= 1,
            "the checksum of its header is wrong",
        ),
        (
            |bytes| {
                let at = bytes.len() - 200;
                bytes[at] ^= 1;
            },
            "the checksum of its content is wrong",
        ),
    ];
    for (edit, expected) in cases {
        assert_eq!(with(edit), expected);
    }
}

/// Whatever a file says of its lengths: a reader takes no memory for it before it has the bytes.
#[test]
fn lengths_are_believed_up_to_their_limits_only() {
    let too_long = |at: usize| {
        let mut bytes = small();
        bytes[at..at + 4].fill(0xff);
        load(&bytes).unwrap_err().to_string()
    };
    assert_eq!(too_long(12), "a part of it is malformed", "the header");
    let first_chunk = 16 + usize::from(small()[12]) + 4;
    assert_eq!(
        too_long(first_chunk + 4),
        "a part of it is malformed",
        "a chunk"
    );
}

/// Checksums that are right do not make a snapshot.
#[test]
fn contradictions_are_errors() {
    let written = |edit: &dyn Fn(&mut SnapshotWriter<Vec<u8>>), end: End| {
        let mut writer = SnapshotWriter::new(Vec::new(), &header()).unwrap();
        edit(&mut writer);
        load(&writer.finish(&end).unwrap())
    };
    let same = End {
        position: header().position,
        ..end()
    };
    assert!(written(&|_| (), same).is_ok());
    assert!(written(&|_| (), end()).is_err(), "no frame leads there");
    let framed = |edit: fn(&mut Frame)| {
        let mut frame = frame();
        edit(&mut frame);
        move |writer: &mut SnapshotWriter<Vec<u8>>| writer.frame(&encoded(&frame)).unwrap()
    };
    assert!(written(&framed(|_| ()), end()).is_ok());
    let edits: [fn(&mut Frame); 5] = [
        |frame| frame.header.from = Level(4),
        |frame| frame.header.epoch.counter = 3,
        |frame| frame.header.root_before = Root([51, 7]),
        |frame| frame.header.root_after = Root([61, 7]),
        |frame| {
            frame.header.kind = FrameKind::Epoch;
            frame.header.to = Level(5);
            frame.changes.clear();
        },
    ];
    for edit in edits {
        assert!(written(&framed(edit), end()).is_err());
    }
    // A new epoch, as it begins with a new master.
    let mut next = end();
    next.position.epoch.counter = 3;
    next.position.level = Level(5);
    next.position.root = Root([50, 7]);
    let epoch = framed(|frame| {
        frame.header.kind = FrameKind::Epoch;
        frame.header.epoch.counter = 3;
        frame.header.to = Level(5);
        frame.header.root_after = Root([50, 7]);
        frame.changes.clear();
    });
    assert!(written(&epoch, next).is_ok());
    let raw = |bytes: &'static [u8]| {
        move |writer: &mut SnapshotWriter<Vec<u8>>| writer.frame(bytes).unwrap()
    };
    assert!(written(&raw(b""), same).is_err());
    assert!(written(&raw(b"no frame"), same).is_err());
    let malformed = |writer: &mut SnapshotWriter<Vec<u8>>| {
        let mut records = Records::default();
        records.push(Level(1), b"?", b"value");
        writer.records(&mut records).unwrap();
    };
    assert!(written(&malformed, same).is_err(), "a key that is none");
}

#[test]
fn more_than_a_chunk_is_not_written() {
    let mut writer = SnapshotWriter::new(Vec::new(), &header()).unwrap();
    let mut records = Records::default();
    records.push(Level(1), b"key", &vec![0; CHUNK_BYTES_MAX]);
    assert!(writer.records(&mut records).is_err());
    assert!(writer.frame(&vec![0; CHUNK_BYTES_MAX]).is_err());
}
