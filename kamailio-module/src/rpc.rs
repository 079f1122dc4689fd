//! `locus.status` and `locus.show`: what this node knows, for operators.
//!
//! It shows and changes nothing. Runs in an RPC process, which maps the table for itself.

use std::ffi::CStr;

use locus_ffi::{RpcCommand, RpcExport, RpcFault, RpcRequest, RpcStruct};
use locus_plugin::{Answer, Query};
use locus_proto::{AddressOfRecord, BindingRef, MasterTime};

use crate::state;

/// The table that Kamailio reads.
pub(crate) static TABLE: [RpcExport; 3] = [
    RpcExport::command::<Status>(),
    RpcExport::command::<Show>(),
    RpcExport::END,
];

/// `locus.status`.
#[derive(Debug)]
struct Status;

impl RpcCommand for Status {
    const NAME: &'static CStr = c"locus.status";
    const DOC: &'static CStr = c"Shows state, level, lag and memory of this node's table";

    fn run(request: &RpcRequest<'_>) -> Result<(), RpcFault> {
        let locus = state::locus().ok_or_else(not_started)?;
        let (readiness, pulse, pages) = state::with_worker(|worker| {
            let table = &mut worker.table;
            (table.readiness(), table.pulse(), table.pages())
        })
        .ok_or_else(not_started)?;
        let answer = request.add_struct()?;
        answer.text(c"state", readiness.state.as_str())?;
        if let Some(position) = readiness.position {
            answer.number(c"level", position.level.0)?;
            answer.text(c"epoch", position.epoch.to_string())?;
            answer.text(c"root", position.root.to_string())?;
        }
        answer.number(c"records", readiness.records)?;
        if let Some(pages) = pages {
            answer.number(c"table_bytes", pages.table_bytes)?;
            if let Some(huge_bytes) = pages.huge_bytes {
                answer.number(c"huge_bytes", huge_bytes)?;
            }
        }
        if let Some(pulse) = pulse {
            answer.number(c"node", u64::from(pulse.node.0))?;
            answer.number(c"master_level", readiness.master_level)?;
            if pulse.complete_until != MasterTime::NEVER {
                answer.number(c"lag_ms", readiness.lag_ms)?;
            }
        }
        answer.text(c"boot", locus.boot.to_string())?;
        answer.text(
            c"table_folder",
            locus.settings.table_folder.as_os_str().as_encoded_bytes(),
        )?;
        answer.text(
            c"agent_socket",
            locus.settings.agent_socket.as_os_str().as_encoded_bytes(),
        )?;
        Ok(())
    }
}

/// `locus.show`.
#[derive(Debug)]
struct Show;

impl RpcCommand for Show {
    const NAME: &'static CStr = c"locus.show";
    const DOC: &'static CStr =
        c"Shows the bindings of an address-of-record that this node would answer with";

    fn run(request: &RpcRequest<'_>) -> Result<(), RpcFault> {
        let usage = || RpcFault::new(400, "usage: locus.show user@host");
        let aor = request
            .argument()
            .and_then(|text| std::str::from_utf8(text).ok())
            .ok_or_else(usage)?;
        let aor =
            AddressOfRecord::parse(aor).map_err(|error| RpcFault::new(400, error.to_string()))?;
        let shown = state::with_worker(|worker| {
            let now = worker
                .table
                .judge()
                .map_or(MasterTime::NEVER, |judge| judge.now());
            let query = Query {
                aor: aor.as_str().as_bytes(),
                method: None,
            };
            match worker.table.lookup(query) {
                Answer::Found(contacts) => {
                    let answer = request.add_struct()?;
                    answer.text(c"aor", aor.as_str())?;
                    let list = answer.list(c"contacts")?;
                    for binding in contacts.iter() {
                        show(&list.add_struct()?, &binding, now)?;
                    }
                    Ok(())
                }
                Answer::Absent | Answer::MethodNotSupported => {
                    Err(RpcFault::new(404, "no binding"))
                }
                Answer::Unavailable(unready) => Err(RpcFault::new(500, unready.to_string())),
            }
        });
        shown.unwrap_or_else(|| Err(not_started()))
    }
}

fn show(shown: &RpcStruct<'_>, binding: &BindingRef<'_>, now: MasterTime) -> Result<(), RpcFault> {
    shown.text(c"uri", binding.uri)?;
    shown.text(c"q", binding.q.to_string())?;
    let permanent = binding.expires == MasterTime::NEVER;
    let expires = binding.expires.seconds_from(now).to_string();
    shown.text(c"expires", if permanent { "permanent" } else { &expires })?;
    for (name, value) in [
        (c"path", binding.path),
        (c"received", binding.received),
        (c"socket", binding.socket),
        (c"instance", binding.instance),
        (c"user_agent", binding.user_agent),
        (c"call_id", binding.call_id),
    ] {
        if !value.is_empty() {
            shown.text(name, value)?;
        }
    }
    shown.number(c"cseq", u64::from(binding.cseq))?;
    shown.number(c"reg_id", u64::from(binding.reg_id))?;
    shown.text(c"methods", format!("{:x}", binding.methods.0))?;
    shown.number(c"flags", u64::from(binding.flags))?;
    shown.number(c"node", u64::from(binding.owner.node.0))?;
    shown.number(c"connection", u64::from(binding.owner.connection))?;
    Ok(())
}

fn not_started() -> RpcFault {
    RpcFault::new(500, "the module has not started")
}
