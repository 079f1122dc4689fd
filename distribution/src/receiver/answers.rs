//! The table's answers to frames and loads: where it stands now, or why not; it touches no table.

use locus_proto::{Position, Timestamp};

use super::membership::Way;
use super::{Content, DisconnectReason, Failure, Owed, Phase, Receiver, Standing, StateReason};

impl Receiver {
    /// Takes the answer to [`super::ReceiverEvent::Apply`]: where the table stands now.
    pub fn handle_applied(&mut self, now: Timestamp, outcome: Result<Standing, Failure>) {
        let applied = |owed: &mut Owed| matches!(owed, Owed::Applied { .. });
        let Some(Owed::Applied {
            at,
            checked,
            again,
            way,
        }) = self.owed.take_if(applied)
        else {
            return; // nothing was asked
        };
        let failure = match outcome {
            Ok(standing) => {
                let Position { epoch, level, root } = standing.position;
                self.stand(standing);
                if (epoch, level) == (at.epoch, at.level) && (!checked || root == at.root) {
                    self.use_answer(now);
                    self.settle(now);
                    return;
                }
                Failure::Broken // it did what it was not asked to do
            }
            Err(failure) => failure,
        };
        self.counters.applies_failed_total += 1;
        match (failure, again) {
            (Failure::RootMismatch, Some(frame)) => {
                self.apply_in_doubt(frame, way);
                self.settle(now);
                return;
            }
            (Failure::RootMismatch, None) => {
                if self.suspect() {
                    self.content = Content::Wrong(StateReason::RootMismatch);
                } else if way == Way::Group {
                    // Over the connection it may fit; if it does not, the content is in doubt.
                    self.mistrust_group(now);
                    self.settle(now);
                    return;
                }
            }
            (Failure::Full, _) => self.content = Content::Stuck,
            (Failure::Broken, _) => self.content = Content::Wrong(StateReason::Broken),
        }
        self.disconnect(DisconnectReason::Apply(failure));
        self.settle(now);
    }

    /// Takes the answer to [`super::ReceiverEvent::FinishLoad`]: where the table stands now.
    ///
    /// A failure may come at any earlier point of a load too. The old table then goes on answering.
    pub fn handle_loaded(&mut self, now: Timestamp, outcome: Result<Standing, Failure>) {
        let loaded = |owed: &mut Owed| matches!(owed, Owed::Loaded(_));
        let failure = match (outcome, self.owed.take_if(loaded)) {
            (Ok(standing), Some(Owed::Loaded(at))) => {
                self.stand(standing);
                if standing.position == at {
                    self.content = Content::Good;
                    self.memory_doubted = false;
                    self.loaded_at = Some(now);
                    self.progress.reloads_total += 1;
                    if let Phase::Loading(_) = self.phase {
                        self.phase = Phase::Following;
                    }
                    self.settle(now);
                    return;
                }
                self.content = Content::Wrong(StateReason::Broken); // not what it was asked for
                Failure::Broken
            }
            (Ok(_), _) => return, // nothing was asked
            (Err(failure), _) => failure,
        };
        if let Phase::Loading(_) = self.phase {
            self.disconnect(DisconnectReason::Load(failure));
        }
        self.settle(now);
    }
}
