//! Bindings: where an address-of-record is reached, and their bytes in the table; it judges nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{BootId, DecodeError, Decoder, Encoder, MasterTime, NodeId};

/// Most bindings of one address-of-record.
///
/// Twelve, as many branches as Kamailio forks by default (`max_branches`): a thirteenth would be
/// stored but never called.
pub const BINDINGS_MAX: usize = 12;
/// Longest contact URI or Path in bytes (usrloc's columns have 512).
pub const URI_BYTES_MAX: usize = 512;
/// Longest of the other text fields in bytes (usrloc's columns have 255).
pub const FIELD_BYTES_MAX: usize = 255;

/// Preference of a contact in thousandths, 0 to 1,000, or none given (RFC 3261 §20.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Q(i16);

/// Returned for text that is not a `qvalue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("q is 0 to 1 with at most three decimals")]
pub struct ParseQError;

impl Q {
    /// No preference given; sorts below q=0, as in Kamailio's usrloc.
    pub const NONE: Self = Self(-1);

    /// Returns `thousandths` as a preference; `None` above 1,000.
    pub fn from_thousandths(thousandths: u16) -> Option<Self> {
        i16::try_from(thousandths)
            .ok()
            .filter(|q| *q <= 1000)
            .map(Self)
    }

    /// Returns the preference in thousandths, if one was given.
    pub fn thousandths(self) -> Option<u16> {
        u16::try_from(self.0).ok()
    }

    /// Returns it as Kamailio's `qvalue_t`: −1 for none, else 0 to 1,000.
    pub fn raw(self) -> i16 {
        self.0
    }

    /// Returns the preference that Kamailio calls `raw`; `None` if it is not one.
    pub fn from_raw(raw: i16) -> Option<Self> {
        (-1..=1000).contains(&raw).then_some(Self(raw))
    }
}

impl FromStr for Q {
    type Err = ParseQError;

    /// RFC 3261 §25.1: `qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = decimals.bytes().all(|b| b.is_ascii_digit());
        if !matches!(whole, "0" | "1") || decimals.len() > 3 || !digits {
            return Err(ParseQError);
        }
        let thousandths = format!("{whole}{decimals:0<3}")
            .parse()
            .map_err(|_| ParseQError)?;
        Self::from_thousandths(thousandths).ok_or(ParseQError)
    }
}

impl fmt::Display for Q {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.thousandths() {
            None => f.write_str("-"),
            Some(1000) => f.write_str("1"),
            Some(0) => f.write_str("0"),
            Some(q) => {
                let text = format!("0.{q:03}");
                f.write_str(text.trim_end_matches('0'))
            }
        }
    }
}

/// Methods that a contact accepts, one bit each as in Kamailio's `enum request_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Methods(pub u32);

impl Methods {
    /// Every method: what a contact without a `methods` parameter accepts.
    pub const ALL: Self = Self(u32::MAX);

    /// Returns whether the method whose bit is `method` is accepted.
    pub fn accepts(self, method: u32) -> bool {
        self.0 & method != 0
    }
}

/// Who accepted a binding, and over which connection of its own it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Owner {
    /// The node; zero for a binding that was provisioned.
    pub node: NodeId,
    /// The life of the node's SIP server in which it was accepted.
    pub boot: BootId,
    /// Number of a private flow (a TCP, TLS or WebSocket connection of that life); zero for a socket
    /// that any node may send from.
    pub connection: u32,
}

/// One contact bound to an address-of-record (RFC 3261 §10.3), with what routing needs of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Contact URI, at most [`URI_BYTES_MAX`] bytes, never empty.
    pub uri: String,
    /// Preference.
    pub q: Q,
    /// Service time at which it expires; [`MasterTime::NEVER`] for a permanent one.
    pub expires: MasterTime,
    /// Expiry that was granted, in seconds; bounds the grace during an outage (rules 2.2).
    pub granted_s: u32,
    /// Service time of the last change.
    pub modified: MasterTime,
    /// Path, comma-separated `<uri>`s as in the header (RFC 3327), or empty.
    pub path: String,
    /// Source address as a SIP URI, where the contact cannot be reached directly, or empty.
    pub received: String,
    /// Local socket of the registration, `proto:address:port`, or empty.
    pub socket: String,
    /// Who accepted it.
    pub owner: Owner,
    /// User-Agent of the registration.
    pub user_agent: String,
    /// Call-ID of the registration.
    pub call_id: String,
    /// CSeq of the registration.
    pub cseq: u32,
    /// `+sip.instance` without its quotes (RFC 5626), or empty.
    pub instance: String,
    /// `reg-id` (RFC 5626), or zero.
    pub reg_id: u16,
    /// Accepted methods.
    pub methods: Methods,
    /// Branch flags (usrloc's cflags).
    pub flags: u32,
}

/// One binding read in place from a table's value; see [`Binding`] for the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are Binding's")]
pub struct BindingRef<'a> {
    pub uri: &'a str,
    pub q: Q,
    pub expires: MasterTime,
    pub granted_s: u32,
    pub modified: MasterTime,
    pub path: &'a str,
    pub received: &'a str,
    pub socket: &'a str,
    pub owner: Owner,
    pub user_agent: &'a str,
    pub call_id: &'a str,
    pub cseq: u32,
    pub instance: &'a str,
    pub reg_id: u16,
    pub methods: Methods,
    pub flags: u32,
}

impl<'a> BindingRef<'a> {
    /// Reads one binding.
    ///
    /// ```text
    ///  0  expires u64        8  modified u64     16  granted_s u32   20  cseq u32
    /// 24  methods u32       28  flags u32        32  boot u64
    /// 40  connection u32    44  node u16         46  q i16           48  reg_id u16
    /// 50  lengths u16 x 7: uri, path, received, socket, user_agent, call_id, instance
    /// 64  the seven texts, one behind the other
    /// ```
    ///
    /// # Errors
    /// Truncation, a length above its limit, a text that is not UTF-8, a q that is none.
    pub fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let expires = MasterTime(from.u64("expires")?);
        let modified = MasterTime(from.u64("modified")?);
        let granted_s = from.u32("granted")?;
        let cseq = from.u32("cseq")?;
        let methods = Methods(from.u32("methods")?);
        let flags = from.u32("flags")?;
        let boot = BootId(from.u64("boot")?);
        let connection = from.u32("connection")?;
        let node = NodeId(from.u16("node")?);
        let q = Q::from_raw(from.i16("q")?).ok_or(DecodeError::Malformed { what: "q" })?;
        let reg_id = from.u16("reg-id")?;
        let mut lens = [0_usize; 7];
        for len in &mut lens {
            *len = from.u16("text length")?.into();
        }
        let mut text = |what, len: usize, max| {
            if len > max {
                return Err(DecodeError::TooLong { what, len, max });
            }
            std::str::from_utf8(from.bytes(what, len)?).map_err(|_| DecodeError::Malformed { what })
        };
        let [uri, path, received, socket, user_agent, call_id, instance] = lens;
        Ok(Self {
            uri: text("uri", uri, URI_BYTES_MAX)?,
            path: text("path", path, URI_BYTES_MAX)?,
            received: text("received", received, FIELD_BYTES_MAX)?,
            socket: text("socket", socket, FIELD_BYTES_MAX)?,
            user_agent: text("user agent", user_agent, FIELD_BYTES_MAX)?,
            call_id: text("call-id", call_id, FIELD_BYTES_MAX)?,
            instance: text("instance", instance, FIELD_BYTES_MAX)?,
            q,
            expires,
            granted_s,
            modified,
            owner: Owner {
                node,
                boot,
                connection,
            },
            cseq,
            reg_id,
            methods,
            flags,
        })
    }

    /// Appends the layout of [`Self::decode`].
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.expires.0)
            .u64(self.modified.0)
            .u32(self.granted_s)
            .u32(self.cseq);
        out.u32(self.methods.0)
            .u32(self.flags)
            .u64(self.owner.boot.0);
        out.u32(self.owner.connection)
            .u16(self.owner.node.0)
            .i16(self.q.raw())
            .u16(self.reg_id);
        let texts = [
            self.uri,
            self.path,
            self.received,
            self.socket,
            self.user_agent,
            self.call_id,
            self.instance,
        ];
        for text in texts {
            out.u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        }
        for text in texts {
            out.bytes(text.as_bytes());
        }
    }

    /// Returns whether the contact is reached no more at `now`, for a table that was last known to be
    /// complete `lag_ms` ago.
    ///
    /// Rules 2.2: "expired iff its expiry ≤ min(master now, `complete_until`) …; the grace so given is at
    /// most min(lag, the expiry granted, `max_grace`)". A node that is cut off neither forgets its users
    /// nor calls strangers for ever.
    pub fn is_expired(&self, now: MasterTime, lag_ms: u64, max_grace_ms: u64) -> bool {
        let granted_ms = u64::from(self.granted_s) * 1000;
        let grace = lag_ms.min(granted_ms).min(max_grace_ms);
        self.expires != MasterTime::NEVER && self.expires.0 <= now.0.saturating_sub(grace)
    }

    /// Returns a copy that owns its texts.
    pub fn to_owned(&self) -> Binding {
        Binding {
            uri: self.uri.to_owned(),
            q: self.q,
            expires: self.expires,
            granted_s: self.granted_s,
            modified: self.modified,
            path: self.path.to_owned(),
            received: self.received.to_owned(),
            socket: self.socket.to_owned(),
            owner: self.owner,
            user_agent: self.user_agent.to_owned(),
            call_id: self.call_id.to_owned(),
            cseq: self.cseq,
            instance: self.instance.to_owned(),
            reg_id: self.reg_id,
            methods: self.methods,
            flags: self.flags,
        }
    }
}

impl Binding {
    /// Returns a permanent binding of `uri` without preference, as provisioning makes one.
    pub fn permanent(uri: &str) -> Self {
        BindingRef {
            uri,
            q: Q::NONE,
            expires: MasterTime::NEVER,
            granted_s: 0,
            modified: MasterTime::NEVER,
            path: "",
            received: "",
            socket: "",
            owner: Owner::default(),
            user_agent: "",
            call_id: "",
            cseq: 0,
            instance: "",
            reg_id: 0,
            methods: Methods::ALL,
            flags: 0,
        }
        .to_owned()
    }

    /// Returns a view of it.
    pub fn view(&self) -> BindingRef<'_> {
        BindingRef {
            uri: &self.uri,
            q: self.q,
            expires: self.expires,
            granted_s: self.granted_s,
            modified: self.modified,
            path: &self.path,
            received: &self.received,
            socket: &self.socket,
            owner: self.owner,
            user_agent: &self.user_agent,
            call_id: &self.call_id,
            cseq: self.cseq,
            instance: &self.instance,
            reg_id: self.reg_id,
            methods: self.methods,
            flags: self.flags,
        }
    }
}

/// The bindings of one address-of-record, best first: q descending, then in order of insertion.
///
/// At most [`BINDINGS_MAX`]. Value of an `'a'` key in the table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AorRecord {
    /// The bindings.
    pub bindings: Vec<Binding>,
}

const AOR_FORMAT: u16 = 1;

impl AorRecord {
    /// Returns the value's bytes: `format u16 (1), count u16`, then the bindings.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        let count = u16::try_from(self.bindings.len()).unwrap_or(u16::MAX);
        encoder.u16(AOR_FORMAT).u16(count);
        for binding in &self.bindings {
            binding.view().encode(&mut encoder);
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// As [`BindingRef::decode`], and an unknown format, too many bindings, trailing bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut refs = BindingRefs::new(bytes)?;
        let bindings = refs
            .by_ref()
            .map(|b| b.map(|b| b.to_owned()))
            .collect::<Result<Vec<_>, _>>()?;
        refs.from.end()?;
        Ok(Self { bindings })
    }

    /// Puts `binding` behind every one whose q is not lower.
    ///
    /// The order of Kamailio's usrloc: q descending, stable by insertion within equal q.
    pub fn insert(&mut self, binding: Binding) {
        let at = self.bindings.partition_point(|b| b.q >= binding.q);
        self.bindings.insert(at, binding);
    }
}

/// Iterates over the bindings in a value without allocating; ends after the first error.
#[derive(Debug, Clone)]
pub struct BindingRefs<'a> {
    from: Decoder<'a>,
    left: u16,
}

impl<'a> BindingRefs<'a> {
    /// Returns the bindings in a value that [`AorRecord::encode`] made.
    ///
    /// # Errors
    /// An unknown format, too many bindings, truncation.
    pub fn new(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(value);
        let format = from.u16("record format")?;
        if format != AOR_FORMAT {
            return Err(DecodeError::Unknown {
                what: "record format",
                value: format.into(),
            });
        }
        let left = from.u16("binding count")?;
        if usize::from(left) > BINDINGS_MAX {
            let len = left.into();
            return Err(DecodeError::TooLong {
                what: "bindings",
                len,
                max: BINDINGS_MAX,
            });
        }
        Ok(Self { from, left })
    }
}

impl<'a> Iterator for BindingRefs<'a> {
    type Item = Result<BindingRef<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let binding = BindingRef::decode(&mut self.from);
        if binding.is_err() {
            self.left = 0;
        }
        Some(binding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_is_read_and_written_as_rfc_3261_has_it() {
        for (text, raw, shown) in [
            ("1", 1000, "1"),
            ("1.000", 1000, "1"),
            ("0.5", 500, "0.5"),
            ("0", 0, "0"),
            ("0.05", 50, "0.05"),
            ("0.", 0, "0"),
        ] {
            let q: Q = text.parse().unwrap();
            assert_eq!((q.raw(), q.to_string().as_str()), (raw, shown), "{text}");
        }
        for text in ["", "1.001", "2", "-1", "0.5555", "0,5", ".5", "0.x", "1.5"] {
            assert!(text.parse::<Q>().is_err(), "{text}");
        }
        assert!(Q::NONE < Q::from_thousandths(0).unwrap());
    }

    #[test]
    fn bindings_keep_q_order_and_insertion_order() {
        let mut record = AorRecord::default();
        for (uri, q) in [
            ("sip:a@x", "0.5"),
            ("sip:b@x", "1"),
            ("sip:c@x", "0.5"),
            ("sip:d@x", "0.7"),
        ] {
            record.insert(Binding {
                q: q.parse().unwrap(),
                ..Binding::permanent(uri)
            });
        }
        record.insert(Binding::permanent("sip:e@x"));
        let order: Vec<_> = record.bindings.iter().map(|b| b.uri.as_str()).collect();
        assert_eq!(
            order,
            ["sip:b@x", "sip:d@x", "sip:a@x", "sip:c@x", "sip:e@x"]
        );
        assert_eq!(AorRecord::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let mut record = AorRecord::default();
        record.insert(Binding {
            path: "<sip:p;lr>".into(),
            ..Binding::permanent("sip:a@x")
        });
        let bytes = record.encode();
        for len in 0..bytes.len() {
            assert!(AorRecord::decode(&bytes[..len]).is_err(), "{len}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(AorRecord::decode(&longer), Err(DecodeError::Trailing(1)));
    }
}
