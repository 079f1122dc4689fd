//! The tables a module exports, and the C functions in them: each borrows, guards, and calls a safe one.
//!
//! It knows the order in which Kamailio reads the tables (dlopen, `mod_register`, parameters, `mod_init`, fixups,
//! fork, `child_init`); it does not know what a function does.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Display;
use std::num::NonZeroI32;
use std::ptr;

use crate::bindings::{
    self, cmd_export, module_exports, param_export, pv_export_t, rpc_export, rpc_t, sip_msg_t,
    sr_kemi, str_,
};
use crate::guard::{PANICS, guard, install_hook};
use crate::log::{LogLevel, log};
use crate::message::{Message, copy};
use crate::parameter::{self, IntParameter, ListSource, TextParameter};
use crate::process::Rank;
use crate::rpc::{RpcCommand, RpcFault, RpcRequest};
use crate::text;
use crate::variable::{self, Variable};

/// Bytes of a text parameter of a script function, and of a URI that is taken out of a message.
pub const TEXT_MAX: usize = 1024;

/// What a script function returns: positive is true, negative false; never 0, which would end the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(NonZeroI32);

impl Code {
    /// What registrar returns for an error of its own, and every function here for a panic.
    pub const INTERNAL: Self = Self::new(-3);

    /// Returns that code.
    ///
    /// # Panics
    /// At compile time, for 0: it is to be used in constants.
    #[must_use]
    #[expect(clippy::panic, reason = "evaluated at compile time, in constants")]
    pub const fn new(code: i32) -> Self {
        match NonZeroI32::new(code) {
            Some(code) => Self(code),
            None => panic!("0 would end the script"),
        }
    }

    /// Returns the number that the script sees as `$rc`.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0.get()
    }
}

/// A script function without parameters.
pub trait Function {
    /// Name in the script.
    const NAME: &'static CStr;

    /// Does its work for one message.
    fn run(message: &mut Message<'_>) -> Code;
}

/// A script function with one text parameter, which may hold variables.
pub trait TextFunction {
    /// Name in the script.
    const NAME: &'static CStr;

    /// Does its work for one message; `text` is the parameter's value for it.
    fn run(message: &mut Message<'_>, text: &[u8]) -> Code;
}

/// A module's life.
pub trait Module {
    /// The module's name: that of `modparam`, of `KSR.name`, and of the group of its statistics.
    const NAME: &'static CStr;
    /// Whether [`Message::reply`] is used; then sl must be loaded before.
    const NEEDS_SL: bool;

    /// Checks the parameters and prepares what all processes share; runs once, before any fork, as root.
    ///
    /// # Errors
    /// A text for the operator; the server does not start then.
    fn init() -> Result<(), impl Display>;

    /// Prepares one process.
    ///
    /// # Errors
    /// A text for the operator; the server does not start then.
    fn init_process(rank: Rank) -> Result<(), impl Display>;
}

/// A `char *` that the loader reads, such as `module_version`.
#[derive(Debug)]
#[repr(transparent)]
pub struct CText(*const c_char);

// SAFETY: points to a static string that nobody writes.
unsafe impl Sync for CText {}

impl CText {
    /// The version this crate was built for; the core refuses any other.
    pub const VERSION: Self = Self(bindings::FULL_VERSION.as_ptr());
    /// The compile flags this crate was built for; the core refuses any other.
    pub const FLAGS: Self = Self(bindings::COMPILE_FLAGS.as_ptr());
}

/// Defines a table entry that C reads and nobody writes.
macro_rules! entry {
    ($(#[$doc:meta])* $name:ident($raw:ty), $end:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[repr(transparent)]
        pub struct $name($raw);

        // SAFETY: static data behind static pointers; Kamailio copies or reads it, and nobody writes it.
        unsafe impl Sync for $name {}

        impl $name {
            /// Ends a table.
            pub const END: Self = Self($end);
        }
    };
}

const NO_TEXT: str_ = str_ {
    s: ptr::null_mut(),
    len: 0,
};

entry!(
    /// An entry of the table of script functions.
    CommandExport(cmd_export),
    cmd_export { name: ptr::null_mut(), function: None, param_no: 0, fixup: None, free_fixup: None, flags: 0 }
);
entry!(
    /// An entry of the table of parameters.
    ParameterExport(param_export),
    param_export { name: ptr::null_mut(), type_: 0, param_pointer: ptr::null_mut() }
);
entry!(
    /// An entry of the table of RPC commands.
    RpcExport(rpc_export),
    rpc_export { name: ptr::null(), function: None, doc_str: ptr::null_mut(), flags: 0 }
);
entry!(
    /// An entry of the table of pseudo-variables.
    VariableExport(pv_export_t),
    pv_export_t {
        name: NO_TEXT,
        type_: 0,
        getf: None,
        setf: None,
        parse_name: None,
        parse_index: None,
        init_param: None,
        iparam: 0,
    }
);
entry!(
    /// An entry of the table of KEMI functions (`KSR.module.name`).
    KemiExport(sr_kemi),
    sr_kemi { mname: NO_TEXT, fname: NO_TEXT, rtype: 0, func: ptr::null_mut(), ptypes: [0; 6] }
);

impl CommandExport {
    /// Returns the entry of a function without parameters, usable in every route.
    #[must_use]
    pub const fn function<F: Function>() -> Self {
        Self(cmd_export {
            name: F::NAME.as_ptr().cast_mut(),
            function: Some(call::<F>),
            param_no: 0,
            fixup: None,
            free_fixup: None,
            flags: bindings::ANY_ROUTE,
        })
    }

    /// Returns the entry of a function with one text parameter, usable in every route.
    #[must_use]
    pub const fn text_function<F: TextFunction>() -> Self {
        Self(cmd_export {
            name: F::NAME.as_ptr().cast_mut(),
            function: Some(call_with_parameter::<F>),
            param_no: 1,
            fixup: Some(bindings::fixup_spve_null),
            free_fixup: Some(bindings::fixup_free_spve_null),
            flags: bindings::ANY_ROUTE,
        })
    }
}

impl ParameterExport {
    /// Returns the entry of a text.
    #[must_use]
    pub const fn text(name: &'static CStr, place: &'static TextParameter) -> Self {
        Self::new(name, parameter::TEXT, place.place())
    }

    /// Returns the entry of a number.
    #[must_use]
    pub const fn int(name: &'static CStr, place: &'static IntParameter) -> Self {
        Self::new(name, parameter::INT, place.place())
    }

    /// Returns the entry of a parameter that may be given several times.
    #[must_use]
    pub const fn list<L: ListSource>(name: &'static CStr) -> Self {
        Self::new(
            name,
            parameter::LIST,
            parameter::add_value::<L> as *mut c_void,
        )
    }

    const fn new(name: &'static CStr, type_: u32, param_pointer: *mut c_void) -> Self {
        Self(param_export {
            name: name.as_ptr().cast_mut(),
            type_,
            param_pointer,
        })
    }
}

/// A NULL-ended list of texts, as `rpc_export` wants its documentation.
struct Docs<C>(C);

impl<C: RpcCommand> Docs<C> {
    const LIST: &'static [*const c_char; 2] = &[C::DOC.as_ptr(), ptr::null()];
}

impl RpcExport {
    /// Returns the entry of a command.
    #[must_use]
    pub const fn command<C: RpcCommand>() -> Self {
        Self(rpc_export {
            name: C::NAME.as_ptr(),
            function: Some(answer::<C>),
            doc_str: Docs::<C>::LIST.as_ptr().cast_mut(),
            flags: 0,
        })
    }
}

impl VariableExport {
    /// Returns the entry of a class of variables, which can be read and not written.
    #[must_use]
    pub const fn class<V: Variable>() -> Self {
        Self(pv_export_t {
            name: constant(V::NAME),
            type_: bindings::_pv_type_PVT_OTHER,
            getf: Some(variable::get::<V>),
            setf: None,
            parse_name: Some(variable::parse_name::<V>),
            parse_index: None,
            init_param: None,
            iparam: 0,
        })
    }
}

impl KemiExport {
    /// Returns the entry of `KSR.module.name()`.
    #[must_use]
    pub const fn function<M: Module, F: Function>(name: &'static CStr) -> Self {
        Self::new::<M>(name, call_from_kemi::<F> as *mut c_void, 0)
    }

    /// Returns the entry of `KSR.module.name("text")`.
    #[must_use]
    pub const fn text_function<M: Module, F: TextFunction>(name: &'static CStr) -> Self {
        Self::new::<M>(
            name,
            call_with_text_from_kemi::<F> as *mut c_void,
            TYPE_TEXT,
        )
    }

    const fn new<M: Module>(name: &'static CStr, func: *mut c_void, parameter: c_int) -> Self {
        Self(sr_kemi {
            mname: constant(M::NAME),
            fname: constant(name),
            rtype: TYPE_INT,
            func,
            ptypes: [parameter, 0, 0, 0, 0, 0],
        })
    }
}

const TYPE_INT: c_int = bindings::SR_KEMIP_INT.cast_signed();
const TYPE_TEXT: c_int = bindings::SR_KEMIP_STR.cast_signed();

/// A Kamailio string that views a constant.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "names are short; `try_from` is not const"
)]
const fn constant(text: &'static CStr) -> str_ {
    str_ {
        s: text.as_ptr().cast_mut(),
        len: text.count_bytes() as c_int,
    }
}

/// All tables of a module; each ends with `END`.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Script functions.
    pub commands: &'static [CommandExport],
    /// Parameters.
    pub parameters: &'static [ParameterExport],
    /// RPC commands.
    pub rpcs: &'static [RpcExport],
    /// Pseudo-variables.
    pub variables: &'static [VariableExport],
}

/// The symbol `exports`: what Kamailio looks up in the shared object.
#[derive(Debug)]
#[repr(transparent)]
pub struct ModuleExports(module_exports);

// SAFETY: static data behind static pointers; Kamailio copies it at load time.
unsafe impl Sync for ModuleExports {}

impl ModuleExports {
    /// Returns the exports of module `M`.
    ///
    /// # Panics
    /// At compile time, when a table lacks its `END`.
    #[must_use]
    pub const fn new<M: Module>(tables: Tables) -> Self {
        assert!(
            matches!(tables.commands, [.., last] if last.0.name.is_null()),
            "no END"
        );
        assert!(
            matches!(tables.parameters, [.., last] if last.0.name.is_null()),
            "no END"
        );
        assert!(
            matches!(tables.rpcs, [.., last] if last.0.name.is_null()),
            "no END"
        );
        assert!(
            matches!(tables.variables, [.., last] if last.0.name.s.is_null()),
            "no END"
        );
        Self(module_exports {
            name: M::NAME.as_ptr().cast_mut(),
            dlflags: 0,
            cmds: tables.commands.as_ptr().cast_mut().cast(),
            params: tables.parameters.as_ptr().cast_mut().cast(),
            rpc_methods: tables.rpcs.as_ptr().cast_mut().cast(),
            pv_items: tables.variables.as_ptr().cast_mut().cast(),
            response_f: None,
            init_mod_f: Some(init::<M>),
            init_child_f: Some(init_process::<M>),
            destroy_mod_f: None,
        })
    }
}

/// Makes a module's KEMI functions known; to be called from the exported `mod_register`, whose result it returns.
pub fn register_kemi(table: &'static [KemiExport]) -> c_int {
    if !matches!(table, [.., last] if last.0.fname.s.is_null()) {
        return -1;
    }
    // SAFETY: a static table that ends with an empty entry, as just seen; the core reads it.
    unsafe { bindings::shim_register_kemi(table.as_ptr().cast_mut().cast()) }
}

unsafe extern "C" fn init<M: Module>() -> c_int {
    install_hook();
    guard(c"mod_init", -1, || {
        if !PANICS.register(M::NAME) {
            log(
                LogLevel::Error,
                format_args!("cannot register the statistics"),
            );
            return -1;
        }
        // SAFETY: no pointers; sl is looked up in the core's list of modules.
        if M::NEEDS_SL && unsafe { bindings::shim_bind_sl() } != 0 {
            log(
                LogLevel::Error,
                format_args!("module sl must be loaded before this one"),
            );
            return -1;
        }
        started(M::init())
    })
}

unsafe extern "C" fn init_process<M: Module>(rank: c_int) -> c_int {
    guard(c"child_init", -1, || {
        started(M::init_process(Rank::from_number(rank)))
    })
}

fn started(result: Result<(), impl Display>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(complaint) => {
            log(LogLevel::Error, format_args!("{complaint}"));
            -1
        }
    }
}

/// A script function as C calls it.
unsafe extern "C" fn call<F: Function>(
    message: *mut sip_msg_t,
    _first: *mut c_char,
    _second: *mut c_char,
) -> c_int {
    // SAFETY: the core lends the message for this call.
    unsafe { call_from_kemi::<F>(message) }
}

unsafe extern "C" fn call_from_kemi<F: Function>(message: *mut sip_msg_t) -> c_int {
    guard(F::NAME, Code::INTERNAL, || {
        // SAFETY: the core lends the message for this call.
        unsafe { Message::from_raw(message) }
            .map_or(Code::INTERNAL, |mut message| F::run(&mut message))
    })
    .number()
}

unsafe extern "C" fn call_with_parameter<F: TextFunction>(
    message: *mut sip_msg_t,
    parameter: *mut c_char,
    _second: *mut c_char,
) -> c_int {
    guard(F::NAME, Code::INTERNAL, || {
        let mut buffer = [0; TEXT_MAX];
        // SAFETY: the core lends the message for this call.
        let Some(mut message) = (unsafe { Message::from_raw(message) }) else {
            return Code::INTERNAL;
        };
        // SAFETY: `fixup_spve_null` made the parameter.
        let value = unsafe { message.parameter(parameter, &mut buffer) };
        value.map_or(Code::INTERNAL, |value| F::run(&mut message, value))
    })
    .number()
}

unsafe extern "C" fn call_with_text_from_kemi<F: TextFunction>(
    message: *mut sip_msg_t,
    parameter: *mut str_,
) -> c_int {
    guard(F::NAME, Code::INTERNAL, || {
        let mut buffer = [0; TEXT_MAX];
        // SAFETY: the core lends the message for this call.
        let Some(mut message) = (unsafe { Message::from_raw(message) }) else {
            return Code::INTERNAL;
        };
        // SAFETY: the interpreter lends the text for this call.
        let Some(parameter) = (unsafe { parameter.as_ref() }) else {
            return Code::INTERNAL;
        };
        // SAFETY: as above; it is copied before the message can change.
        let value = copy(unsafe { text::bytes(parameter) }, &mut buffer);
        value.map_or(Code::INTERNAL, |value| F::run(&mut message, value))
    })
    .number()
}

unsafe extern "C" fn answer<C: RpcCommand>(rpc: *mut rpc_t, context: *mut c_void) {
    // SAFETY: the core lends both for this call.
    let Some(request) = (unsafe { RpcRequest::from_raw(rpc, context) }) else {
        return;
    };
    let panicked = || Err(RpcFault::new(500, "internal error; see the log"));
    if let Err(fault) = guard(C::NAME, panicked(), || C::run(&request)) {
        request.refuse(&fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_is_zero_and_internal_is_registrars() {
        assert_eq!(Code::INTERNAL.number(), -3);
        assert_eq!(Code::new(2).number(), 2);
    }

    #[test]
    fn names_are_counted_without_their_end() {
        let name = constant(c"locus");
        assert_eq!(name.len, 5);
        // SAFETY: views a static string.
        assert_eq!(unsafe { text::bytes(&name) }, b"locus");
    }
}
