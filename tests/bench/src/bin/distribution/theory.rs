//! What cannot be beaten: the encoded records themselves, and the repairs that independent loss demands.

use locus_bench::Subscriber;
use locus_proto::{AorRecord, Binding};

/// Fields of a change in a frame beside key and value (proto/README.md).
const CHANGE_HEADER_BYTES: usize = 16;

/// Bytes of one encoded record of the load.
pub(crate) fn record_bytes() -> usize {
    let one = Subscriber(0);
    let bindings = vec![Binding::permanent(&one.contact(0))];
    let value = AorRecord { bindings }.encode().len();
    CHANGE_HEADER_BYTES + one.key().as_bytes().len() + value
}

/// Bytes of `updates` encoded records.
pub(crate) fn payload(updates: usize) -> u64 {
    u64::try_from(updates * record_bytes()).unwrap_or(u64::MAX)
}

/// Quotient of two counts of bytes.
pub(crate) fn ratio(bytes: u64, of: u64) -> f64 {
    number(bytes) / number(of)
}

/// Mean transmissions of a datagram until `nodes` with independent loss have it:
/// the sum over m from 0 of 1 − (1 − p^m)^N (distribution.md section 4).
pub(crate) fn transmissions(nodes: i32, loss: f64) -> f64 {
    let mut sum = 0.0;
    let mut lost = 1.0; // p^m
    loop {
        let term = 1.0 - (1.0_f64 - lost).powi(nodes);
        sum += term;
        if term < 1e-9 {
            return sum;
        }
        lost *= loss;
    }
}

fn number(count: u64) -> f64 {
    locus_bench::float(usize::try_from(count).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transmissions_are_those_of_the_design() {
        for (nodes, loss, expected) in [
            (8, 0.01, 1.078),
            (8, 0.05, 1.357),
            (8, 0.2, 2.189),
            (1000, 0.01, 2.10),
        ] {
            let found = transmissions(nodes, loss);
            assert!((found - expected).abs() < 0.006, "{nodes} {loss}: {found}");
        }
        assert!(transmissions(8, 0.0) == 1.0, "{}", transmissions(8, 0.0));
    }
}
