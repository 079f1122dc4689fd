//! Statistics in Kamailio's own counters: one row per process, no lock, summed when they are read.
//!
//! It knows names and numbers; what they mean is the module's.

use std::ffi::CStr;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::{bindings, host};

/// One statistic; a `static` of the module, registered before the fork.
#[derive(Debug)]
pub struct Counter {
    name: &'static CStr,
    doc: &'static CStr,
    handle: AtomicI32,
}

impl Counter {
    const UNREGISTERED: i32 = -1;

    /// Returns a counter that counts nothing until it is registered.
    #[must_use]
    pub const fn new(name: &'static CStr, doc: &'static CStr) -> Self {
        Self {
            name,
            doc,
            handle: AtomicI32::new(Self::UNREGISTERED),
        }
    }

    /// Makes the counter known under `group`; false when Kamailio refuses. Only while modules are initialised.
    pub fn register(&self, group: &'static CStr) -> bool {
        // SAFETY: three static, NUL-terminated strings.
        let handle = unsafe {
            bindings::shim_counter_register(group.as_ptr(), self.name.as_ptr(), self.doc.as_ptr())
        };
        self.handle.store(handle, Ordering::Relaxed);
        handle != Self::UNREGISTERED
    }

    /// Adds one to this process's row.
    pub fn increment(&self) {
        let handle = self.handle.load(Ordering::Relaxed);
        if handle != Self::UNREGISTERED {
            host::counter_add(handle, 1);
        }
    }

    /// Returns the sum over all processes; 0 while it is not registered.
    #[must_use]
    pub fn value(&self) -> u64 {
        let handle = self.handle.load(Ordering::Relaxed);
        if handle == Self::UNREGISTERED {
            return 0;
        }
        // SAFETY: the handle is one that the core gave out.
        let value = unsafe { bindings::shim_counter_value(handle) };
        u64::try_from(value).unwrap_or(0)
    }

    /// Returns the name under which an operator finds it.
    #[must_use]
    pub fn name(&self) -> &'static CStr {
        self.name
    }
}
