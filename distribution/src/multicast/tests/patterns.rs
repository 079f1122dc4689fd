//! Any pattern of loss, overtaking and doubling ends with every message once and in order.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{MS, Network, S, World};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_message_comes_once_and_in_order(
        seed in any::<u64>(),
        nodes in 1_usize..6,
        loss in 0.0..0.4_f64,
        jitter_us in 0_u64..3000,
        twice in 0.0..0.3_f64,
        sizes in prop::collection::vec(200_usize..20_000, 1..40),
        gaps in prop::collection::vec(0_u64..4000, 1..10),
    ) {
        let network = Network {
            loss,
            twice,
            jitter: Duration::from_micros(jitter_us),
            ..Network::default()
        };
        let mut world = World::new(nodes, network, seed);
        for (index, bytes) in sizes.iter().enumerate() {
            world.send(*bytes);
            world.run(gaps[index % gaps.len()] * 1000 + 1);
        }
        // With loss for half a second and more somebody may be put out; then it has a true beginning.
        for _ in 0..50 {
            world.run(100 * MS);
        }
        let last = u64::try_from(sizes.len()).unwrap();
        for node in &world.nodes {
            let out = world.lagging.contains(&node.id) || !node.events.is_empty();
            let end = if out { u64::try_from(node.levels.len()).unwrap() } else { last };
            prop_assert!(node.levels.iter().copied().eq(1..=end), "{}: {:?}", node.id, node.levels);
        }
        prop_assert!(world.now > S);
    }
}
