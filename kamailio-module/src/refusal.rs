//! Answers without a destination: what the script gets for each, and what counts them.
//!
//! "There is nothing" and "this node cannot say" are never the same answer (rules 4.4). It changes no request.

use locus_ffi::{Code, Counter};
use locus_plugin::{Answer, Contacts, Reason, RouteAnswer, Routed, Unready};

use crate::counters;
use crate::functions;

/// What becomes of a request that gets no destination.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal {
    code: Code,
    counted: &'static Counter,
    /// More closely, for an operator who asks why.
    cause: Option<&'static Counter>,
}

impl Refusal {
    /// No contact.
    pub(crate) const ABSENT: Self = Self::new(functions::ABSENT, &counters::ABSENT);
    /// Contacts, and none takes the method.
    const NO_METHOD: Self = Self::new(functions::NO_METHOD, &counters::ABSENT);
    /// No route.
    const UNROUTED: Self = Self::new(functions::ABSENT, &counters::UNROUTED);
    /// What is malformed.
    pub(crate) const FAILED: Self = Self::new(Code::INTERNAL, &counters::FAILED);

    const fn new(code: Code, counted: &'static Counter) -> Self {
        Self {
            code,
            counted,
            cause: None,
        }
    }

    /// Returns the contacts, or what an answer without any comes to.
    pub(crate) fn contacts(answer: Answer<'_>) -> Result<Contacts<'_>, Self> {
        match answer {
            Answer::Found(contacts) => Ok(contacts),
            Answer::Absent => Err(Self::ABSENT),
            Answer::MethodNotSupported => Err(Self::NO_METHOD),
            Answer::Unavailable(unready) => Err(Self::of(unready)),
        }
    }

    /// Returns the route, or what an answer without one comes to.
    pub(crate) fn routed(answer: RouteAnswer<'_>) -> Result<Routed<'_>, Self> {
        match answer {
            RouteAnswer::Found(routed) => Ok(routed),
            RouteAnswer::Absent => Err(Self::UNROUTED),
            RouteAnswer::Unavailable(unready) => Err(Self::of(unready)),
        }
    }

    fn of(unready: Unready) -> Self {
        let cause = match unready {
            Unready::Table(Reason::NoControl | Reason::NoTable) => &counters::UNAVAILABLE_NO_TABLE,
            Unready::Table(Reason::Busy) => &counters::UNAVAILABLE_BUSY,
            Unready::Table(Reason::Unreadable | Reason::Corrupt) => {
                &counters::UNAVAILABLE_UNREADABLE
            }
            Unready::State(_) => &counters::UNAVAILABLE_STATE,
            Unready::Record => {
                // The table answers, this record does not: another node has the same one.
                return Self {
                    cause: Some(&counters::RECORDS_MALFORMED),
                    ..Self::FAILED
                };
            }
        };
        Self {
            cause: Some(cause),
            ..Self::new(functions::UNAVAILABLE, &counters::UNAVAILABLE)
        }
    }

    /// Counts it and returns what the script gets.
    pub(crate) fn count(self) -> Code {
        self.counted.increment();
        if let Some(cause) = self.cause {
            cause.increment();
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use locus_proto::NodeState;

    use super::*;

    const CANNOT_SAY: [(Unready, &str); 6] = [
        (
            Unready::Table(Reason::NoControl),
            "unavailable_no_table_total",
        ),
        (
            Unready::Table(Reason::NoTable),
            "unavailable_no_table_total",
        ),
        (
            Unready::Table(Reason::Unreadable),
            "unavailable_unreadable_total",
        ),
        (
            Unready::Table(Reason::Corrupt),
            "unavailable_unreadable_total",
        ),
        (Unready::Table(Reason::Busy), "unavailable_busy_total"),
        (
            Unready::State(NodeState::Loading),
            "unavailable_state_total",
        ),
    ];

    fn shown(refusal: Refusal) -> (i32, Vec<&'static str>) {
        let counted = [Some(refusal.counted), refusal.cause];
        let names = counted
            .iter()
            .flatten()
            .map(|counter| counter.name().to_str().unwrap());
        (refusal.code.number(), names.collect())
    }

    fn of_lookup(answer: Answer<'_>) -> (i32, Vec<&'static str>) {
        shown(Refusal::contacts(answer).unwrap_err())
    }

    fn of_route(answer: RouteAnswer<'_>) -> (i32, Vec<&'static str>) {
        shown(Refusal::routed(answer).unwrap_err())
    }

    #[test]
    fn absent_and_cannot_say_are_told_apart() {
        let absent = vec!["lookups_absent_total"];
        assert_eq!(of_lookup(Answer::Absent), (-1, absent.clone()));
        assert_eq!(of_lookup(Answer::MethodNotSupported), (-2, absent));
        assert_eq!(
            of_route(RouteAnswer::Absent),
            (-1, vec!["routes_absent_total"])
        );
        for (unready, cause) in CANNOT_SAY {
            let expected = (-4, vec!["lookups_unavailable_total", cause]);
            assert_eq!(of_lookup(Answer::Unavailable(unready)), expected);
            assert_eq!(of_route(RouteAnswer::Unavailable(unready)), expected);
        }
    }

    #[test]
    fn a_record_that_cannot_be_decoded_is_a_failure_of_its_own() {
        let expected = (-3, vec!["lookups_failed_total", "records_malformed_total"]);
        assert_eq!(of_lookup(Answer::Unavailable(Unready::Record)), expected);
        assert_eq!(
            of_route(RouteAnswer::Unavailable(Unready::Record)),
            expected
        );
        assert_eq!(shown(Refusal::FAILED), (-3, vec!["lookups_failed_total"]));
    }
}
