//! The contacts of one address-of-record that may be tried, best first; it does not know how they are tried.

use std::iter;

use locus_proto::{BindingRef, BindingRefs, DecodeError, Methods};

use crate::Judge;

/// Contacts that a look-up found eligible, in the order of trial: q descending, then in order of insertion.
///
/// At least one, at most [`locus_proto::BINDINGS_MAX`]; read from the record's bytes as they are asked for.
#[derive(Debug, Clone)]
pub struct Contacts<'b> {
    first: BindingRef<'b>,
    /// What follows the first.
    rest: BindingRefs<'b>,
    rule: Rule,
    proxy_only: bool,
}

/// What became of the bindings in a record.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "returned once and read on the spot; a box would be an allocation for each look-up"
)]
pub(crate) enum Sifted<'b> {
    /// Some are eligible.
    Some(Contacts<'b>),
    /// None is left that has not expired.
    None,
    /// Some are left, but none accepts the method.
    MethodNotSupported,
}

/// Who is eligible.
#[derive(Debug, Clone, Copy)]
struct Rule {
    judge: Judge,
    method: Option<u32>,
}

impl Rule {
    fn accepts(&self, binding: &BindingRef<'_>) -> bool {
        let methods = binding.methods;
        self.method
            .is_none_or(|method| methods == Methods::ALL || methods.accepts(method))
    }
}

impl<'b> Contacts<'b> {
    /// Iterates over the contacts, best first.
    pub fn iter(&self) -> impl Iterator<Item = BindingRef<'b>> {
        let rule = self.rule;
        let rest = self.rest.clone().flatten(); // every one was decoded before, by `sift`
        let eligible = move |binding: &BindingRef<'b>| {
            !rule.judge.is_expired(binding) && rule.accepts(binding)
        };
        iter::once(self.first).chain(rest.filter(eligible))
    }

    /// Returns whether one of them can be reached only through this node or its like: it has a `received`
    /// address, a Path, or a private flow. A redirect must not hand it out (rules 4.5).
    pub fn is_proxy_only(&self) -> bool {
        self.proxy_only
    }

    /// Takes the eligible bindings out of a record's value.
    ///
    /// `method` is the request's bit, `None` where methods do not count (a request within a dialog, as in
    /// registrar's `lookup()`).
    pub(crate) fn sift(
        value: &'b [u8],
        judge: Judge,
        method: Option<u32>,
    ) -> Result<Sifted<'b>, DecodeError> {
        let mut bindings = BindingRefs::new(value)?;
        let rule = Rule { judge, method };
        let (mut found, mut other_methods, mut proxy_only) = (None, false, false);
        while let Some(binding) = bindings.next() {
            let binding = binding?;
            if judge.is_expired(&binding) {
                continue;
            }
            if rule.accepts(&binding) {
                found.get_or_insert_with(|| (binding, bindings.clone()));
                proxy_only |= needs_proxy(&binding);
            } else {
                other_methods = true;
            }
        }
        Ok(match (found, other_methods) {
            (Some((first, rest)), _) => Sifted::Some(Self {
                first,
                rest,
                rule,
                proxy_only,
            }),
            (None, true) => Sifted::MethodNotSupported,
            (None, false) => Sifted::None,
        })
    }
}

fn needs_proxy(binding: &BindingRef<'_>) -> bool {
    !binding.received.is_empty() || !binding.path.is_empty() || binding.owner.connection != 0
}
