//! Requests of the API: those that only read are answered here and now, the others are handed on.

use locus_proto::{AddressOfRecord, AorRecord, Digits, Key, Level, Route, Timestamp};

use super::Core;
use super::batch::Work;
use crate::provision::{Answer, Request, RequestError, live};

impl Core {
    pub(super) fn request(&mut self, now: Timestamp, ticket: u64, request: Request) {
        let level = self.master.position().level;
        let answer = match request {
            Request::GetAor(aor) => self.get_aor(now, level, &aor),
            Request::GetRoute(prefix) => self.get_route(now, level, prefix),
            Request::Change(changes) => {
                self.enqueue(now, Work::Change { ticket, changes });
                return;
            }
            Request::Level => Answer::Level {
                position: self.master.position(),
                time: self.time(now),
                records: self.master.records(),
            },
            Request::Nodes => self.nodes(now),
            Request::Reload { node } => self.reload(now, &node),
            Request::Wait { level, deadline } => {
                self.wait(now, ticket, level, deadline);
                return;
            }
            Request::Audit {
                node,
                repair,
                deadline,
            } => {
                self.order_audit(now, ticket, node.as_ref(), repair, deadline);
                return;
            }
        };
        self.answer(ticket, answer);
    }

    fn get_aor(&mut self, now: Timestamp, level: Level, aor: &AddressOfRecord) -> Answer {
        let time = self.time(now);
        let key = Key::aor(aor);
        let decoded = match self.master.get(&key) {
            Ok(None) => Ok(None),
            Ok(Some((changed, value))) => AorRecord::decode(value)
                .map(|record| Some((changed, record)))
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        match decoded {
            Ok(record) => Answer::Aor {
                level,
                now: time,
                record: record.and_then(|(changed, mut record)| {
                    record
                        .bindings
                        .retain(|binding| live(binding.expires, time));
                    (!record.bindings.is_empty()).then_some((changed, record))
                }),
            },
            Err(reason) => {
                self.doubt(now, &key, reason);
                Answer::Refused(RequestError::Inconsistent)
            }
        }
    }

    fn get_route(&mut self, now: Timestamp, level: Level, prefix: Digits) -> Answer {
        let key = Key::route(prefix);
        let decoded = match self.master.get(&key) {
            Ok(None) => Ok(None),
            Ok(Some((changed, value))) => Route::decode(value)
                .map(|route| Some((changed, route)))
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        match decoded {
            Ok(record) => Answer::Route { level, record },
            Err(reason) => {
                self.doubt(now, &key, reason);
                Answer::Refused(RequestError::Inconsistent)
            }
        }
    }
}
