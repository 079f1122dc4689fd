//! `locus.so`: Kamailio's reader of the node's table and forwarder of registrations.
//!
//! It is thin: no thread, no network socket, a read-only mapping of what the agent writes, one datagram per
//! REGISTER to that agent. How a look-up is answered is `locus-plugin`'s; how Kamailio is spoken to is
//! `locus-ffi`'s; this crate joins the two and knows neither storage nor replication.

#![expect(
    unsafe_code,
    reason = "the attributes of the exported symbols, below; nothing else"
)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a failed test fails"
    )
)]

mod ahead;
mod convert;
mod counters;
mod emergency;
mod forward;
mod functions;
mod lookup;
mod pages;
mod params;
mod peer;
mod refusal;
mod reply;
mod route;
mod rpc;
mod save;
mod state;
mod table;
mod variable;

use std::ffi::{c_char, c_int, c_uint, c_void};

use locus_ffi::{CText, ModuleExports, Tables, VariableExport};

/// Version of Kamailio this object was built for; Kamailio refuses to load any other.
#[unsafe(no_mangle)]
pub static module_version: CText = CText::VERSION;

/// Compile flags of Kamailio this object was built for.
#[unsafe(no_mangle)]
pub static module_flags: CText = CText::FLAGS;

/// Version of the module interface.
#[unsafe(no_mangle)]
pub static module_interface_ver: c_uint = locus_ffi::MODULE_INTERFACE_VERSION;

static VARIABLES: [VariableExport; 2] = [
    VariableExport::class::<variable::LocusVariable>(),
    VariableExport::END,
];

/// Everything Kamailio gets to know of this module.
#[unsafe(no_mangle)]
pub static exports: ModuleExports = ModuleExports::new::<state::LocusModule>(Tables {
    commands: &functions::TABLE,
    parameters: &params::TABLE,
    rpcs: &rpc::TABLE,
    variables: &VARIABLES,
});

/// Called by Kamailio right after loading, before parameters are set; makes the KEMI functions known.
#[unsafe(no_mangle)]
pub extern "C" fn mod_register(
    _path: *mut c_char,
    _flags: *mut c_int,
    _reserved: *mut c_void,
    _more: *mut c_void,
) -> c_int {
    locus_ffi::guard(c"mod_register", -1, || {
        locus_ffi::register_kemi(&functions::KEMI)
    })
}
