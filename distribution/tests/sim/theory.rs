//! Section 4: what reliable multicast without parity must send at least.

/// Returns the mean transmissions of a datagram until `nodes` receivers with independent loss `p` have it:
/// E = Σ_m (1 − (1 − p^m)^N).
pub(crate) fn transmissions(p: f64, nodes: usize) -> f64 {
    let nodes = nodes as f64;
    let mut sum = 0.0;
    let mut lost = 1.0; // p^m
    loop {
        // 1 − (1 − x)^N without losing small x
        let term = -(nodes * f64::ln_1p(-lost)).exp_m1();
        sum += term;
        lost *= p;
        if lost * nodes < 1e-12 {
            return sum;
        }
    }
}

#[test]
fn the_table_of_section_4() {
    for (p, row) in [
        (0.001, [1.008, 1.032, 1.062, 1.23, 1.63]),
        (0.01, [1.078, 1.28, 1.48, 1.95, 2.10]),
        (0.05, [1.357, 1.89, 2.12, 2.51, 3.04]),
        (0.2, [2.189, 3.02, 3.45, 4.31, 5.15]),
    ] {
        for (nodes, expected) in [8, 32, 64, 256, 1000].into_iter().zip(row) {
            let e = transmissions(p, nodes);
            assert!((e / expected - 1.0).abs() < 0.005, "{p} {nodes}: {e}");
        }
    }
}
