//! A writer is run instruction by instruction; see `locus_proofs::Run`.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "what fails here fails the test, and figures are told"
)]

use locus_proofs::{Order, Report, Room, Run, StepError, What, ignored};

const WRITER: &str = env!("CARGO_BIN_EXE_proofs-writer");

/// Watches one operation in a folder of its own; `None` where this machine cannot.
fn watched(
    name: &str,
    what: What,
    seed: u64,
    watch: impl FnOnce(Run<'_>) -> Result<Report, StepError>,
) -> Option<Report> {
    if cfg!(debug_assertions) {
        ignored(
            name,
            "an optimised build (`cargo test --release`): others take ten times the steps",
        );
        return None;
    }
    let room = match Room::new(&format!("step-{name}-{seed}")) {
        Ok(room) => room,
        Err(missing) => {
            ignored(name, &missing);
            return None;
        }
    };
    let run = Run {
        program: WRITER,
        folder: room.path(),
        what,
        seed,
        through_loads: true,
    };
    match watch(run) {
        Ok(report) => {
            println!("{name}: {what:?}, seed {seed}: {report:?}");
            Some(report)
        }
        Err(StepError::Missing(missing)) => {
            ignored(name, &missing);
            None
        }
        Err(StepError::Failed(error)) => panic!("{name}: {error}"),
    }
}

/// Demands that nothing failed and that enough was seen to say so.
fn assert_holds(name: &str, report: &Report) {
    assert_eq!(report.failures, 0, "{name}: {:#?}", report.told);
    assert!(
        report.mid_batch > 50,
        "{name}: few moments within the batch"
    );
    assert!(report.steps > 1000, "{name}: these are no instructions");
}

fn operation_and_recovery(name: &str, what: What, seed: u64, deaths: u64) {
    let Some(report) = watched(name, what, seed, |run| run.operation()) else {
        return;
    };
    assert_holds(name, &report);
    for death in 1..=deaths {
        let at = report.mid_steps * death / (deaths + 1);
        let name = format!("{name}-death-{death}");
        let watched = watched(&name, what, seed, |run| run.recovery(at));
        let report = watched.expect("what could be traced once can be traced again");
        assert_eq!(report.failures, 0, "{name}: {:#?}", report.told);
        assert!(
            report.mid_batch > 20,
            "{name}: few moments within the batch"
        );
    }
}

#[test]
fn apply_at_each_instruction() {
    operation_and_recovery("apply", What::Apply, 1, 2);
}

#[test]
fn repair_at_each_instruction() {
    operation_and_recovery("repair", What::Repair, 1, 1);
}

/// Whoever watches must be able to see: the same stores in a wrong order fail, in the right one they do not.
#[test]
fn a_broken_order_of_stores_is_noticed() {
    for what in [What::Apply, What::Repair] {
        for (name, order) in Order::ALL {
            let Some(report) = watched(name, what, 1, |run| run.script(order)) else {
                return;
            };
            match order {
                Order::Own => assert_holds(name, &report),
                Order::DoneFirst | Order::BeginLast | Order::SlotFirst => {
                    assert!(report.failures > 0, "{what:?} {name} went unnoticed");
                }
            }
        }
    }
}

#[test]
#[ignore = "minutes: make soak-table"]
fn soak_more_batches_and_deaths_at_each_instruction() {
    for seed in 2..6 {
        operation_and_recovery("soak-apply", What::Apply, seed, 3);
        operation_and_recovery("soak-repair", What::Repair, seed, 3);
    }
}

/// The runs through loads leave nothing out.
#[test]
#[ignore = "minutes: make soak-table"]
fn soak_all_instructions_show_the_same_images() {
    for what in [What::Apply, What::Repair] {
        let images = |through_loads| {
            watched("soak-all", what, 1, |run| {
                let run = Run {
                    through_loads,
                    ..run
                };
                run.recovery(1500)
            })
        };
        if let (Some(run), Some(stepped)) = (images(true), images(false)) {
            assert!(run.runs > 0, "{what:?}: no run through loads");
            assert_eq!(stepped.runs, 0);
            assert_eq!(run.images, stepped.images, "{what:?}");
            assert_eq!((run.failures, stepped.failures), (0, 0));
        }
    }
}
