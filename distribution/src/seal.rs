//! Keys of the group: who may read it, who said it; it knows no window, no timer and no socket.
//!
//! Everything is drawn from one 32-byte seed by HKDF-SHA-256, so that a recording replays. The seed is
//! random per start of a process and never written down (rules 7.1).
//!
//! **The nonce rule.** A nonce is the datagram's kind, node and seq. Each kind of the master, and each kind
//! of each node, counts its own seq from 1 and never goes back; a resend is the same bytes, not a second
//! seal. A node that is offered the group again gets another key of its own, because it begins again at 1.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use locus_proto::NodeId;
use locus_proto::v1::{
    DATAGRAM_HEADER_BYTES, DatagramHeader, GROUP_FRAME_CONTEXT, SEAL_BYTES, SIGNATURE_BYTES,
};

/// Context, stream and first seq: what is signed before the messages.
const SIGNED_PREFIX_BYTES: usize = GROUP_FRAME_CONTEXT.len() + 16;
/// Where in a distribution frame that prefix is put, over the room of the signature, to sign without a copy.
const SIGNED_FROM: usize = SIGNATURE_BYTES - SIGNED_PREFIX_BYTES;

/// What the seed is drawn out to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The group's key of this number; its id on the wire is the lowest byte.
    Group(u64),
    /// The pairwise key of a node at its n-th offer.
    Node(NodeId, u64),
    /// The signing key.
    Signing,
}

/// Draws the 32 bytes for `purpose` out of `seed`.
///
/// ```text
/// HKDF-SHA-256(salt = "locus group 1", ikm = seed, info = label | stream u64 LE | a u64 LE | b u64 LE)
/// ```
pub(crate) fn derive(seed: &[u8; 32], stream: u64, purpose: Purpose) -> [u8; 32] {
    let (label, a, b): (&[u8], u64, u64) = match purpose {
        Purpose::Group(number) => (b"group", number, 0),
        Purpose::Node(node, offer) => (b"node", node.0.into(), offer),
        Purpose::Signing => (b"sign", 0, 0),
    };
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"locus group 1");
    let (stream, a, b) = (stream.to_le_bytes(), a.to_le_bytes(), b.to_le_bytes());
    let info = [label, &stream, &a, &b];
    let mut out = [0; 32];
    salt.extract(seed)
        .expand(&info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes are less than HKDF's limit of 255 hashes");
    out
}

/// One key of AES-256-GCM; seals whole datagrams, the header as associated data.
#[derive(Debug)]
pub(crate) struct Seal(LessSafeKey);

impl Seal {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, secret).expect("AES-256 takes 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Seals `datagram` where it lies: header, payload, and [`SEAL_BYTES`] that the tag overwrites.
    pub(crate) fn seal(&self, header: &DatagramHeader, datagram: &mut [u8]) {
        let (head, rest) = datagram.split_at_mut(DATAGRAM_HEADER_BYTES);
        head.copy_from_slice(&header.encode());
        let (payload, tag) = rest.split_at_mut(rest.len() - SEAL_BYTES);
        let sealed = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(header.nonce()),
                Aad::from(&*head),
                payload,
            )
            .expect("a datagram is far below AES-GCM's limit of 64 GiB");
        tag.copy_from_slice(sealed.as_ref());
    }

    /// Opens `datagram` where it lies and returns its payload; `None` if this key did not seal it so.
    ///
    /// `header` is what its first bytes decode to. A datagram that was refused is spoilt.
    pub(crate) fn open<'a>(
        &self,
        header: &DatagramHeader,
        datagram: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let (head, sealed) = datagram.split_at_mut_checked(DATAGRAM_HEADER_BYTES)?;
        self.0
            .open_in_place(
                Nonce::assume_unique_for_key(header.nonce()),
                Aad::from(&*head),
                sealed,
            )
            .ok()
    }
}

/// Signs distribution frames; the master's alone.
#[derive(Debug)]
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("Ed25519 takes 32 bytes"))
    }

    /// Returns the key that nodes verify with.
    pub(crate) fn verify_key(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.public_key().as_ref());
        out
    }

    /// Signs a distribution frame where it lies: [`SIGNATURE_BYTES`] that are overwritten, then messages.
    pub(crate) fn sign(&self, stream: u64, first: u64, frame: &mut [u8]) {
        frame[SIGNED_FROM..SIGNATURE_BYTES].copy_from_slice(&signed_prefix(stream, first));
        let signature = self.0.sign(&frame[SIGNED_FROM..]);
        frame[..SIGNATURE_BYTES].copy_from_slice(signature.as_ref());
    }
}

/// Verifies distribution frames.
#[derive(Debug)]
pub(crate) struct Verifier(UnparsedPublicKey<[u8; 32]>);

impl Verifier {
    pub(crate) fn new(verify_key: [u8; 32]) -> Self {
        Self(UnparsedPublicKey::new(&ED25519, verify_key))
    }

    /// Returns whether the master signed this distribution frame for this stream and place. The frame is
    /// used to work in and is afterwards as it was.
    pub(crate) fn verify(&self, stream: u64, first: u64, frame: &mut [u8]) -> bool {
        let Some(signature) = frame.first_chunk::<SIGNATURE_BYTES>().copied() else {
            return false;
        };
        frame[SIGNED_FROM..SIGNATURE_BYTES].copy_from_slice(&signed_prefix(stream, first));
        let verified = self.0.verify(&frame[SIGNED_FROM..], &signature).is_ok();
        frame[..SIGNATURE_BYTES].copy_from_slice(&signature);
        verified
    }
}

/// Returns what is signed before the messages: context, stream and the seq of the frame's first datagram.
fn signed_prefix(stream: u64, first: u64) -> [u8; SIGNED_PREFIX_BYTES] {
    let mut out = [0; SIGNED_PREFIX_BYTES];
    let (context, rest) = out.split_at_mut(GROUP_FRAME_CONTEXT.len());
    context.copy_from_slice(GROUP_FRAME_CONTEXT);
    rest[..8].copy_from_slice(&stream.to_le_bytes());
    rest[8..].copy_from_slice(&first.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use locus_proto::v1::{DatagramKind, FragmentFlags};

    use super::*;

    const SEED: [u8; 32] = [7; 32];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn header(kind: DatagramKind, node: u16, seq: u64) -> DatagramHeader {
        DatagramHeader {
            kind,
            key: 1,
            flags: FragmentFlags::NONE,
            node: NodeId(node),
            stream: 0x0102_0304_0506_0708,
            seq,
            low: 1,
        }
    }

    /// Computed apart from this code (OpenSSL's HKDF, AES-256-GCM and Ed25519, by way of Python).
    #[test]
    fn golden_vectors() {
        let keys = [
            (
                Purpose::Group(1),
                "bfcbc57163ea68f97865628166ca6a2dbe4d7aa96d58f96776570afe58193c50",
            ),
            (
                Purpose::Group(2),
                "db1a4888076d20f7f0c3d8057df4b499d40bf890f97600d3665e75e8ac53b1d3",
            ),
            (
                Purpose::Node(NodeId(3), 4),
                "265231c9fc1f858cbe1840ccd5967a934f3ab6eebe2b49c514d9f5f7b59950f8",
            ),
            (
                Purpose::Signing,
                "b6bd433cb08d866ac2ccaaf7300ba8fc7ba25b6713fa0a59facbc01eae917b80",
            ),
        ];
        for (purpose, expected) in keys {
            assert_eq!(hex(&derive(&SEED, 99, purpose)), expected, "{purpose:?}");
        }
        let header = header(DatagramKind::Nack, 0x0a0b, 0x1122_3344_5566_7788);
        assert_eq!(hex(&header.nonce()), "050b0a008877665544332211");
        let mut datagram = vec![0; DATAGRAM_HEADER_BYTES];
        datagram.extend_from_slice(b"forty-two");
        datagram.resize(datagram.len() + SEAL_BYTES, 0);
        Seal::new(&derive(&SEED, 99, Purpose::Group(1))).seal(&header, &mut datagram);
        assert_eq!(
            hex(&datagram[DATAGRAM_HEADER_BYTES..]),
            "a87aa724ddaf891094e3de5457f788da8c69b565541cfbc5e4"
        );
        let signer = Signer::new(&derive(&SEED, 99, Purpose::Signing));
        assert_eq!(
            hex(&signer.verify_key()),
            "2ab408562d38005f1910ca341983dc50e3a031117c6f807afce6c837566d62ed"
        );
        let mut frame = vec![0; SIGNATURE_BYTES];
        frame.extend_from_slice(b"messages");
        signer.sign(99, 5, &mut frame);
        assert_eq!(
            hex(&frame[..SIGNATURE_BYTES]),
            "8066803ee3c87e870dcbe6c013ca5f3db46e339f957385e5f7aa1d689c39524abbfb588e8c4ae2a2e7ba5cd361367011564f808d0ad320edb78fd597d8bbb309"
        );
    }

    /// A nonce is never used twice: kind, node and seq each change it.
    #[test]
    fn nonces_differ_by_kind_node_and_seq() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in DatagramKind::ALL {
            for node in [0, 1, 255, 256, u16::MAX] {
                for seq in [1, 2, 255, 256, u64::MAX] {
                    assert!(seen.insert(header(kind, node, seq).nonce()));
                }
            }
        }
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let seal = Seal::new(&SEED);
        let header = header(DatagramKind::Data, 0, 7);
        let mut datagram = vec![0; DATAGRAM_HEADER_BYTES];
        datagram.extend_from_slice(b"payload");
        datagram.resize(datagram.len() + SEAL_BYTES, 0);
        seal.seal(&header, &mut datagram);
        for bit in 0..datagram.len() * 8 {
            let mut spoilt = datagram.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            if let Ok(header) = DatagramHeader::decode(&spoilt) {
                assert!(seal.open(&header, &mut spoilt).is_none(), "bit {bit}");
            }
        }
        for len in 0..datagram.len() {
            assert!(seal.open(&header, &mut datagram.clone()[..len]).is_none());
        }
        assert!(
            Seal::new(&[8; 32])
                .open(&header, &mut datagram.clone())
                .is_none()
        );
        assert_eq!(seal.open(&header, &mut datagram).unwrap(), b"payload");
    }

    #[test]
    fn a_signature_is_for_one_place_of_one_stream() {
        let signer = Signer::new(&SEED);
        let verifier = Verifier::new(signer.verify_key());
        let mut frame = vec![0; SIGNATURE_BYTES];
        frame.extend_from_slice(b"messages");
        signer.sign(1, 2, &mut frame);
        let before = frame.clone();
        assert!(verifier.verify(1, 2, &mut frame));
        assert_eq!(frame, before, "left as it was");
        assert!(!verifier.verify(1, 3, &mut frame));
        assert!(!verifier.verify(2, 2, &mut frame));
        assert!(!Verifier::new([0; 32]).verify(1, 2, &mut frame));
        assert!(!verifier.verify(1, 2, &mut frame[..63]));
        frame[70] ^= 1;
        assert!(!verifier.verify(1, 2, &mut frame));
    }
}
