//! Longest-prefix match against the obvious way to do it.

use std::collections::BTreeMap;

use locus_proto::{Digits, Key};

use super::support::{Dice, Model, commit, delete, live, put};
use crate::{Geometry, Lookup, RecordBuffer};

fn random_digits(dice: &mut Dice, len_max: u64) -> String {
    let len = 1 + dice.roll(len_max);
    // Few different digits, so that prefixes meet.
    (0..len)
        .map(|_| ["1", "2", "0"][usize::try_from(dice.roll(3)).unwrap()])
        .collect()
}

#[test]
fn equals_the_naive_match() {
    let geometry = Geometry {
        buckets: 60,
        arena_bytes: 1 << 20,
    };
    let (mut writer, mut model) = (live(geometry), Model::default());
    let mut routes: BTreeMap<String, u64> = BTreeMap::new();
    let (mut dice, mut buffer) = (Dice(3), RecordBuffer::new());
    for _ in 0..60 {
        let mut batch = Vec::new();
        let mut level = model.level.0;
        for _ in 0..8 {
            let prefix = random_digits(&mut dice, 7);
            let key = Key::route(Digits::parse(&prefix).unwrap());
            if batch
                .iter()
                .any(|change: &locus_proto::Change| change.key == key)
            {
                continue;
            }
            level += 1;
            if dice.roll(3) == 0 {
                routes.remove(&prefix);
                batch.push(delete(key, level));
            } else {
                routes.insert(prefix, level);
                batch.push(put(key, level, 12));
            }
        }
        commit(&mut writer, &mut model, &batch);
        let reader = writer.reader();
        for _ in 0..40 {
            let number = random_digits(&mut dice, 15);
            let naive = (1..=number.len())
                .rev()
                .find_map(|len| routes.get(&number[..len]));
            let found = match reader.route(Digits::parse(&number).unwrap(), &mut buffer) {
                Lookup::Found(record) => Some(record.level.0),
                Lookup::Absent => None,
                Lookup::Unavailable(reason) => panic!("{reason}"),
            };
            assert_eq!(found, naive.copied(), "{number}");
        }
    }
    assert!(routes.len() > 50, "{} routes prove little", routes.len());
}
