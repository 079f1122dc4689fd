//! The module's statistics: group `locus`, one row per process, read with `kamcmd stats.get_statistics locus:`.
//!
//! It knows names; others count.

use locus_ffi::Counter;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $key:literal, $text:literal;)*) => {
        $($(#[$doc])* pub(crate) static $name: Counter = Counter::new($key, $text);)*

        /// All of them, to be registered at the start.
        pub(crate) static ALL: &[&Counter] = &[$(&$name),*];
    };
}

counters! {
    /// `locus_lookup()` returned 1 or 2.
    FOUND = c"lookups_found_total", c"Look-ups that found a contact";
    /// `locus_lookup()` returned -1 or -2.
    ABSENT = c"lookups_absent_total", c"Look-ups of addresses without a usable contact";
    /// `locus_lookup()` or `locus_route()` returned -4.
    UNAVAILABLE = c"lookups_unavailable_total", c"Look-ups and routes refused because the table is not ready";
    /// Of those, the ones for which there was no table.
    UNAVAILABLE_NO_TABLE = c"unavailable_no_table_total", c"Look-ups and routes refused because there is no table yet";
    /// Of those, the ones for which the table could not be read.
    UNAVAILABLE_UNREADABLE = c"unavailable_unreadable_total", c"Look-ups and routes refused because the table cannot be read";
    /// Of those, the ones for which the table changed too often meanwhile.
    UNAVAILABLE_BUSY = c"unavailable_busy_total", c"Look-ups and routes refused because the table changed too fast";
    /// Of those, the ones that the agent's state forbade.
    UNAVAILABLE_STATE = c"unavailable_state_total", c"Look-ups and routes refused because of the node's state";
    /// `locus_lookup()` or `locus_route()` returned -3.
    FAILED = c"lookups_failed_total", c"Look-ups and routes that failed on the request or on a record";
    /// Of those, the ones that met a record which cannot be decoded.
    RECORDS_MALFORMED = c"records_malformed_total", c"Look-ups and routes that met a record which cannot be decoded";
    /// `locus_route()` returned 1.
    ROUTED = c"routes_found_total", c"Numbers that were routed";
    /// `locus_route()` returned -1.
    UNROUTED = c"routes_absent_total", c"Numbers without a route";
    /// An emergency call was routed.
    EMERGENCY = c"emergency_total", c"Emergency requests routed from the local file";
    /// A branch was refused by the core.
    BRANCHES_LOST = c"branches_lost_total", c"Contacts that Kamailio did not accept as a branch";
    /// `locus_save()` returned 1.
    SAVED = c"saves_total", c"Registrations answered with 200";
    /// Of those, the ones confirmed from the local table during an outage.
    SAVES_NOT_DURABLE = c"saves_not_durable_total", c"Registrations confirmed for a short while without the master";
    /// `locus_save()` returned -1.
    SAVES_REFUSED = c"saves_refused_total", c"Registrations refused for what they ask";
    /// `locus_save()` returned -4.
    SAVES_UNAVAILABLE = c"saves_unavailable_total", c"Registrations refused because the location service is out of reach";
    /// `locus_peer()` returned 1.
    RELAYED = c"peer_relays_total", c"Requests handed to a peer node";
}
