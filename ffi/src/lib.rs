//! Kamailio's C interface as safe Rust: export tables, guarded entries, messages, RPC, variables, log.
//!
//! It knows Kamailio and nothing else: no location, no level, no record; it would serve any Rust module. A module
//! states its functions as types ([`Function`], [`RpcCommand`], [`Variable`], [`Module`]), puts them into the
//! `const` tables of this crate and exports those with `#[unsafe(no_mangle)]`; that attribute is all the unsafe
//! code it needs. The host's quirks that soundness leans on stand in `SAFETY.md`.

#![expect(
    unsafe_code,
    reason = "this crate is the boundary to C; each block states why it is sound"
)]
// Runs inside a process that carries calls.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod bindings;
mod counter;
mod export;
mod guard;
mod hook;
mod host;
mod log;
mod message;
mod parameter;
mod prefetch;
mod process;
mod register;
mod rpc;
mod shared;
mod smaps;
mod target;
mod text;
mod variable;

pub use counter::Counter;
pub use export::{
    CText, Code, CommandExport, Function, KemiExport, Module, ModuleExports, ParameterExport,
    RpcExport, TEXT_MAX, Tables, TextFunction, VariableExport, register_kemi,
};
pub use guard::guard;
pub use hook::{RequestHook, Timer, after_script, before_script, every};
pub use log::{LogLevel, log};
pub use message::{Message, MessageError, Uri};
pub use parameter::{IntParameter, ListParameter, ListSource, TextParameter};
pub use prefetch::prefetch;
pub use process::{Rank, clock_monotonic_ms, process_number, random};
pub use register::{BRANCH_PATH_BYTES_MAX, CONTACTS_MAX, Register, RegisterContact, RegisterFault};
pub use rpc::{RpcCommand, RpcError, RpcFault, RpcList, RpcRequest, RpcStruct};
pub use shared::{FileIdentity, OpenSharedError, SharedRegion};
pub use target::Target;
pub use variable::{Value, Variable};

/// Number of the module interface that the tables of this crate follow.
pub const MODULE_INTERFACE_VERSION: u32 = bindings::MODULE_INTERFACE_VER;
