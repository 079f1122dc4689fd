//! The set of emergency numbers and URNs and where their calls go; it needs no table and opens no file.

use std::collections::BTreeMap;

/// Largest emergency file in bytes.
pub const EMERGENCY_BYTES_MAX: usize = 64 * 1024;
/// Most entries of an emergency file; a country has a dozen numbers.
pub const EMERGENCY_ENTRIES_MAX: usize = 256;

/// Emergency numbers and service URNs with their targets, from a local file.
///
/// One entry a line: what is called, white space, a SIP URI; `#` begins a comment.
/// ```text
/// 112              sip:112@psap.example.net
/// 911              sip:911@psap.example.net
/// urn:service:sos  sip:sos@psap.example.net
/// ```
/// A URN stands for its sub-services too (RFC 5031 §3), the longest entry first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EmergencySet {
    entries: BTreeMap<String, String>,
}

/// Returned for an emergency file that cannot be used; says which line and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseEmergencyError {
    /// Not two words.
    #[error("line {line}: write a number or URN, white space, and a SIP URI")]
    Shape {
        /// Line, from 1.
        line: usize,
    },
    /// What is called is neither a number nor a URN.
    #[error("line {line}: '{called}' is neither a number nor a urn:")]
    Called {
        /// Line, from 1.
        line: usize,
        /// What stands there.
        called: String,
    },
    /// The target is no SIP URI.
    #[error("line {line}: '{target}' is no sip: or sips: URI")]
    Target {
        /// Line, from 1.
        line: usize,
        /// What stands there.
        target: String,
    },
    /// The same number or URN twice.
    #[error("line {line}: '{called}' stands there twice")]
    Twice {
        /// Line, from 1.
        line: usize,
        /// What stands there.
        called: String,
    },
    /// A file above the limit.
    #[error("the file has {0} bytes, at most {EMERGENCY_BYTES_MAX} are read")]
    TooLong(usize),
    /// Too many entries.
    #[error("more than {EMERGENCY_ENTRIES_MAX} entries")]
    TooMany,
}

impl EmergencySet {
    /// Returns the set that `text` describes.
    ///
    /// # Errors
    /// [`ParseEmergencyError`]; nothing of a file with an error is used.
    pub fn parse(text: &str) -> Result<Self, ParseEmergencyError> {
        if text.len() > EMERGENCY_BYTES_MAX {
            return Err(ParseEmergencyError::TooLong(text.len()));
        }
        let mut set = Self::default();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.split('#').next().unwrap_or_default();
            let mut words = content.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (None, ..) => {}
                (Some(called), Some(target), None) => set.insert(line, called, target)?,
                (Some(_), ..) => return Err(ParseEmergencyError::Shape { line }),
            }
        }
        Ok(set)
    }

    fn insert(
        &mut self,
        line: usize,
        called: &str,
        target: &str,
    ) -> Result<(), ParseEmergencyError> {
        let called = called.to_ascii_lowercase();
        let is_number = called
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'*'));
        if !is_number && !called.starts_with("urn:") {
            return Err(ParseEmergencyError::Called { line, called });
        }
        let host = target
            .strip_prefix("sip:")
            .or_else(|| target.strip_prefix("sips:"));
        if host.is_none_or(str::is_empty) {
            let target = target.to_owned();
            return Err(ParseEmergencyError::Target { line, target });
        }
        if self.entries.len() == EMERGENCY_ENTRIES_MAX {
            return Err(ParseEmergencyError::TooMany);
        }
        if self.entries.contains_key(&called) {
            return Err(ParseEmergencyError::Twice { line, called });
        }
        self.entries.insert(called, target.to_owned());
        Ok(())
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns where a call to `number` goes, the user part of its URI, if that is an emergency.
    pub fn number(&self, number: &str) -> Option<&str> {
        self.entries.get(number).map(String::as_str)
    }

    /// Returns where a call to `urn` goes, if that is an emergency: its own entry, else that of the
    /// service that it is a part of. Letter case does not count (RFC 5031 §3).
    pub fn urn(&self, urn: &str) -> Option<&str> {
        let is_part = |service: &str| {
            let head = urn.get(..service.len())?;
            let rest = urn.get(service.len()..)?;
            (head.eq_ignore_ascii_case(service) && (rest.is_empty() || rest.starts_with('.')))
                .then_some(service.len())
        };
        let parts = self.entries.iter().filter_map(|(called, target)| {
            called
                .starts_with("urn:")
                .then(|| is_part(called))
                .flatten()
                .map(|len| (len, target))
        });
        parts
            .max_by_key(|(len, _)| *len)
            .map(|(_, target)| target.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# who answers\n112 sip:112@psap.example.net\n\n  911\tsips:psap # America\n\
                        urn:service:sos sip:sos@psap\nURN:service:sos.fire sip:fire@psap\n";

    #[test]
    fn finds_numbers_and_services() {
        let set = EmergencySet::parse(FILE).unwrap();
        assert_eq!(set.len(), 4);
        assert_eq!(set.number("112"), Some("sip:112@psap.example.net"));
        assert_eq!(set.number("911"), Some("sips:psap"));
        for other in ["1", "1123", "urn", "", "alice"] {
            assert_eq!(set.number(other), None, "{other}");
        }
        for (urn, expected) in [
            ("urn:service:sos", Some("sip:sos@psap")),
            ("URN:Service:SOS", Some("sip:sos@psap")),
            ("urn:service:sos.ambulance", Some("sip:sos@psap")),
            ("urn:service:sos.fire", Some("sip:fire@psap")),
            ("urn:service:sos.fire.forest", Some("sip:fire@psap")),
            ("urn:service:sosx", None),
            ("urn:service", None),
            ("112", None),
            ("urn:sérvice:sos", None),
        ] {
            assert_eq!(set.urn(urn), expected, "{urn}");
        }
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        for (file, line) in [
            ("112\n", 1),
            ("112 sip:a b\n", 1),
            ("# fine\nalice sip:a\n", 2),
            ("112 http://a\n", 1),
            ("112 sip:\n", 1),
            ("112 sip:a\n112 sip:b\n", 2),
        ] {
            let error = EmergencySet::parse(file).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
        }
        let long = "1".repeat(EMERGENCY_BYTES_MAX + 1);
        let too_long = ParseEmergencyError::TooLong(EMERGENCY_BYTES_MAX + 1);
        assert_eq!(EmergencySet::parse(&long), Err(too_long));
        let many: String = (0..=EMERGENCY_ENTRIES_MAX)
            .map(|n| format!("{n} sip:a\n"))
            .collect();
        assert_eq!(
            EmergencySet::parse(&many),
            Err(ParseEmergencyError::TooMany)
        );
    }
}
