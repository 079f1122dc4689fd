//! A writer is killed again and again; see `locus_proofs::kill_loop`.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use locus_proofs::{Room, Work, ignored, kill_loop};

const WRITER: &str = env!("CARGO_BIN_EXE_proofs-writer");
/// In `make test`; a thousand in `make soak-table`.
const KILLS: u64 = 50;
/// So many of a hundred kills must find a batch or a repair unfinished, or the loop proves little.
const UNFINISHED_PERCENT_MIN: u64 = 30;
const SEED: u64 = 20_261_124;

fn number(variable: &str, otherwise: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn a_killed_writer_leaves_a_whole_table() {
    const NAME: &str = "a_killed_writer_leaves_a_whole_table";
    let room = match Room::new("kill") {
        Ok(room) => room,
        Err(missing) => return ignored(NAME, &missing),
    };
    let (seed, kills) = (number("LOCUS_SEED", SEED), number("LOCUS_KILLS", KILLS));
    println!("{NAME}: LOCUS_SEED={seed} LOCUS_KILLS={kills}");
    let report = kill_loop(WRITER, room.path(), Work::Right, seed, kills).unwrap();
    println!("{NAME}: {report:?}");
    assert_eq!(report.kills, kills);
    let percent = report.unfinished_percent();
    assert!(
        percent >= UNFINISHED_PERCENT_MIN,
        "only {percent} % of the kills found a batch or a repair unfinished: the loop proves too little"
    );
    assert!(report.in_repair > 0, "no kill found a repair unfinished");
    assert!(report.lookups > kills, "the readers hardly read");
}

/// Whoever looks after each death must be able to see.
#[test]
fn a_stray_store_is_noticed() {
    let room = match Room::new("stray") {
        Ok(room) => room,
        Err(missing) => return ignored("a_stray_store_is_noticed", &missing),
    };
    let error = kill_loop(WRITER, room.path(), Work::Stray, SEED, KILLS).unwrap_err();
    println!("a_stray_store_is_noticed: {error}");
    // By a look-up, or by the writer itself, which is asked to change the record.
    let noticed = ["Rotten", "rotted", "corrupt"]
        .iter()
        .any(|word| error.contains(word));
    assert!(noticed, "{error}");
}
