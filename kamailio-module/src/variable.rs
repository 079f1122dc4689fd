//! `$locus(level)`, `$locus(lag)` and `$locus(state)`: how current this node is.
//!
//! It reads what the agent publishes; it judges nothing.

use std::ffi::CStr;

use locus_ffi::{Value, Variable};
use locus_plugin::{Pulse, Readiness};
use locus_proto::MasterTime;

use crate::state;

/// The class `$locus(...)`.
#[derive(Debug)]
pub(crate) struct LocusVariable;

const LEVEL: u16 = 1;
const LAG: u16 = 2;
const STATE: u16 = 3;

impl Variable for LocusVariable {
    const NAME: &'static CStr = c"locus";

    fn choose(inner: &[u8]) -> Option<u16> {
        match inner {
            b"level" => Some(LEVEL),
            b"lag" => Some(LAG),
            b"state" => Some(STATE),
            _ => None,
        }
    }

    fn value(choice: u16) -> Value {
        state::with_worker(|worker| value(choice, &worker.table.readiness(), worker.table.pulse()))
            .unwrap_or(Value::Null)
    }
}

fn value(choice: u16, readiness: &Readiness, pulse: Option<Pulse>) -> Value {
    match choice {
        LEVEL => readiness
            .position
            .map_or(Value::Null, |position| Value::Number(position.level.0)),
        LAG => match pulse {
            Some(pulse) if pulse.complete_until != MasterTime::NEVER => {
                Value::Number(readiness.lag_ms)
            }
            _ => Value::Null,
        },
        STATE => Value::Text(readiness.state.as_str()),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use locus_proto::{Level, NodeId, NodeState, Position};

    use super::*;

    #[test]
    fn each_name_has_its_value_and_others_have_none() {
        let position = Position {
            level: Level(7),
            ..Position::default()
        };
        let readiness = Readiness {
            state: NodeState::Stale,
            position: Some(position),
            records: 1,
            master_level: 9,
            lag_ms: 12,
        };
        let pulse = Pulse {
            state: NodeState::Coherent,
            master_offset_ms: 0,
            complete_until: MasterTime(1),
            master_level: Level(9),
            updated_monotonic_ms: 0,
            max_grace_ms: 0,
            node: NodeId(1),
            epoch_counter: 1,
        };
        let shown = |inner: &[u8]| {
            LocusVariable::choose(inner).map(|choice| value(choice, &readiness, Some(pulse)))
        };
        assert_eq!(shown(b"level"), Some(Value::Number(7)));
        assert_eq!(shown(b"lag"), Some(Value::Number(12)));
        assert_eq!(shown(b"state"), Some(Value::Text("stale")));
        assert_eq!(shown(b"lvl"), None);
        let nothing = Readiness {
            position: None,
            ..readiness
        };
        assert_eq!(
            (value(LEVEL, &nothing, None), value(LAG, &nothing, None)),
            (Value::Null, Value::Null)
        );
    }
}
