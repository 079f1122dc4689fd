//! The script functions: their names, and what each returns.
//!
//! | code | constant | `locus_lookup` | `locus_route` | `locus_save` | `locus_emergency` | `locus_peer` |
//! |-----:|----------|----------------|---------------|--------------|-------------------|--------------|
//! | 1 | [`FOUND`], [`SAVED`] | found | routed | saved, 200 sent | emergency, routed | `$du` is the peer |
//! | 2 | [`PROXY_ONLY`] | found, but a redirect must not hand it out | – | – | – | – |
//! | -1 | [`ABSENT`], [`REFUSED`] | no contact | no route | refused, reply sent | no emergency call | no peer, or handed on before |
//! | -2 | [`NO_METHOD`] | no contact takes the method | – | – | – | – |
//! | -3 | [`Code::INTERNAL`] | malformed URI, internal error | no number, internal error | internal error, nothing sent | internal error | internal error |
//! | -4 | [`UNAVAILABLE`] | table not ready | table not ready | agent or service out of reach, 500 sent | – | – |
//!
//! 0 is never returned: it would end the script. The same table stands in `doc/locus_admin.xml`.

use locus_ffi::{Code, CommandExport, KemiExport};

use crate::emergency::Emergency;
use crate::lookup::{Lookup, LookupUri};
use crate::peer::Peer;
use crate::route::{Route, RouteNumber};
use crate::save::Save;
use crate::state::LocusModule;

/// What was asked for is there, and the request has been changed accordingly.
pub(crate) const FOUND: Code = Code::new(1);
/// The registration was accepted and answered.
pub(crate) const SAVED: Code = FOUND;
/// Found, but at least one contact is reached only through this cluster: to be proxied, not redirected to.
pub(crate) const PROXY_ONLY: Code = Code::new(2);
/// There is nothing.
pub(crate) const ABSENT: Code = Code::new(-1);
/// The registration was refused and answered.
pub(crate) const REFUSED: Code = ABSENT;
/// There are contacts, and none takes the request's method.
pub(crate) const NO_METHOD: Code = Code::new(-2);
/// This node cannot say.
pub(crate) const UNAVAILABLE: Code = Code::new(-4);

/// The table that Kamailio reads.
pub(crate) static TABLE: [CommandExport; 8] = [
    CommandExport::function::<Lookup>(),
    CommandExport::text_function::<LookupUri>(),
    CommandExport::function::<Route>(),
    CommandExport::text_function::<RouteNumber>(),
    CommandExport::function::<Save>(),
    CommandExport::function::<Emergency>(),
    CommandExport::function::<Peer>(),
    CommandExport::END,
];

/// The same functions for KEMI scripts.
pub(crate) static KEMI: [KemiExport; 8] = [
    KemiExport::function::<LocusModule, Lookup>(c"lookup"),
    KemiExport::text_function::<LocusModule, LookupUri>(c"lookup_uri"),
    KemiExport::function::<LocusModule, Route>(c"route"),
    KemiExport::text_function::<LocusModule, RouteNumber>(c"route_number"),
    KemiExport::function::<LocusModule, Save>(c"save"),
    KemiExport::function::<LocusModule, Emergency>(c"emergency"),
    KemiExport::function::<LocusModule, Peer>(c"peer"),
    KemiExport::END,
];

#[cfg(test)]
mod tests {
    use locus_ffi::Function;

    use super::*;

    #[test]
    fn codes_are_those_of_the_table() {
        let codes = [
            FOUND,
            SAVED,
            PROXY_ONLY,
            ABSENT,
            REFUSED,
            NO_METHOD,
            Code::INTERNAL,
            UNAVAILABLE,
        ];
        assert_eq!(codes.map(Code::number), [1, 1, 2, -1, -1, -2, -3, -4]);
    }

    /// Returns the C strings that follow `before` in a source file.
    fn names<'s>(source: &'s str, before: &'s str) -> impl Iterator<Item = &'s str> {
        let ends = source.split(before).skip(1);
        ends.filter_map(|text| text.strip_prefix("c\"")?.split('"').next())
    }

    /// The tables themselves cannot be walked here: their functions want a Kamailio.
    #[test]
    fn the_documentation_names_everything_that_is_exported() {
        let manual = include_str!("../doc/locus_admin.xml");
        let example = include_str!("../doc/kamailio.cfg");
        let mut named = 0;
        let mut is_documented = |kind: &str, name: &str| {
            named += 1;
            let section = format!("<section id=\"locus.{kind}.{name}\">");
            assert!(
                manual.contains(&section),
                "{name} is missing in doc/locus_admin.xml"
            );
        };
        for name in [
            Lookup::NAME,
            Route::NAME,
            Save::NAME,
            Emergency::NAME,
            Peer::NAME,
        ] {
            let name = name.to_str().unwrap();
            is_documented("f", name);
            assert!(
                example.contains(&format!("{name}(")),
                "{name} is missing in doc/kamailio.cfg"
            );
        }
        let parameters = include_str!("params.rs");
        for before in [
            "ParameterExport::text(",
            "ParameterExport::int(",
            "ParameterExport::list::<Peers>(",
        ] {
            names(parameters, before).for_each(|name| is_documented("p", name));
        }
        names(include_str!("rpc.rs"), "const NAME: &'static CStr = ")
            .for_each(|name| is_documented("r", name));
        assert_eq!(named, 5 + 9 + 2, "all tables have been read");

        let mut functions = 0;
        for before in [
            "KemiExport::function::<LocusModule, ",
            "KemiExport::text_function::<LocusModule, ",
        ] {
            for text in include_str!("functions.rs").split(before).skip(1) {
                let Some(name) = text
                    .split_once(">(c\"")
                    .and_then(|(_, name)| name.split('"').next())
                else {
                    continue;
                };
                functions += 1;
                assert!(
                    manual.contains(&format!("KSR.locus.{name}(")),
                    "KSR.locus.{name}"
                );
            }
        }
        assert_eq!(functions, KEMI.len() - 1);
        for counter in crate::counters::ALL {
            let name = counter.name().to_str().unwrap();
            assert!(
                manual.contains(name),
                "{name} is missing in doc/locus_admin.xml"
            );
        }
    }
}
