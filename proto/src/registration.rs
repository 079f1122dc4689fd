//! A registration on its way from a node to the master, and the answer; it merges nothing.

use serde::{Deserialize, Serialize};

use crate::{
    AOR_BYTES_MAX, AddressOfRecord, BINDINGS_MAX, Binding, BindingRef, DecodeError, Decoder,
    Encoder, FIELD_BYTES_MAX, Level, MasterTime, Methods, Owner, Q, URI_BYTES_MAX,
};

/// Most contacts in one REGISTER.
pub const CONTACTS_MAX: usize = BINDINGS_MAX;

/// One REGISTER as a node read and authenticated it (RFC 3261 §10.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The To address.
    pub aor: AddressOfRecord,
    /// Call-ID; never empty.
    pub call_id: String,
    /// CSeq.
    pub cseq: u32,
    /// Path, comma-separated as in the header, or empty.
    pub path: String,
    /// Source address as a SIP URI where the contact is behind NAT, or empty.
    pub received: String,
    /// Local socket, `proto:address:port`, or empty.
    pub socket: String,
    /// The node, its life, and the private flow if there is one.
    pub owner: Owner,
    /// User-Agent, or empty.
    pub user_agent: String,
    /// Branch flags.
    pub flags: u32,
    /// What is asked.
    pub asked: Asked,
}

/// What a REGISTER asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// No Contact: only to be told the bindings.
    Fetch,
    /// `Contact: *` with expiry zero: remove all.
    RemoveAll,
    /// Add, refresh or remove these, at most [`CONTACTS_MAX`], as a whole or not at all.
    Update(Vec<ContactChange>),
}

/// One Contact of a REGISTER.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactChange {
    /// URI, at most [`URI_BYTES_MAX`] bytes.
    pub uri: String,
    /// Preference.
    pub q: Q,
    /// Expiry asked for, in seconds: of the contact, else of the Expires header; `None` leaves it to
    /// the registrar, zero removes.
    pub expires_s: Option<u32>,
    /// `+sip.instance` without its quotes, or empty.
    pub instance: String,
    /// `reg-id`, or zero.
    pub reg_id: u16,
    /// Accepted methods.
    pub methods: Methods,
}

/// The master's, or during an outage the agent's, answer to a [`Registration`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistrationReply {
    /// All bindings of the address-of-record now.
    Accepted {
        /// Level of the last change of that record; the node has it when this is answered.
        level: Level,
        /// Service time of the answer: expiries count from it.
        now: MasterTime,
        /// Whether the master has it on disk. `false`: an unchanged binding was confirmed for a short
        /// while without the master (rules 2.4).
        durable: bool,
        /// The bindings, best first.
        bindings: Vec<Binding>,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a registration was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Lower CSeq than the binding's, with the same Call-ID (RFC 3261 §10.3 step 7).
    #[error("older CSeq than the binding's for the same Call-ID")]
    OldCseq,
    /// A contact, q, expiry or address that is malformed or above its limit.
    #[error("malformed or oversized registration")]
    Malformed,
    /// The expiry asked for is below the minimum, given here in seconds (423, RFC 3261 §10.2.8).
    #[error("expiry below the minimum of {0} s")]
    TooBrief(u32),
    /// More bindings than [`BINDINGS_MAX`].
    #[error("more than {BINDINGS_MAX} bindings of one address-of-record")]
    TooMany,
    /// The master is out of reach, or has no room on disk or in its table; try again.
    #[error("the location service cannot be reached or has no room")]
    Unavailable,
}

impl Registration {
    /// Appends the registration.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        for text in [self.aor.as_str(), &self.call_id, &self.path, &self.received] {
            out.short_bytes(text.as_bytes());
        }
        out.short_bytes(self.socket.as_bytes())
            .short_bytes(self.user_agent.as_bytes());
        out.u32(self.cseq).u32(self.flags);
        out.u16(self.owner.node.0)
            .u64(self.owner.boot.0)
            .u32(self.owner.connection);
        match &self.asked {
            Asked::Fetch => {
                out.u8(1);
            }
            Asked::RemoveAll => {
                out.u8(2);
            }
            Asked::Update(contacts) => {
                out.u8(3)
                    .u16(u16::try_from(contacts.len()).unwrap_or(u16::MAX));
                for contact in contacts {
                    contact.encode(out);
                }
            }
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Any field above its limit, an address-of-record that is not canonical, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let aor = from.short_text("address-of-record", AOR_BYTES_MAX)?;
        let aor = AddressOfRecord::parse(aor).map_err(|_| DecodeError::Malformed {
            what: "address-of-record",
        })?;
        let call_id = from.short_text("call-id", FIELD_BYTES_MAX)?.to_owned();
        let path = from.short_text("path", URI_BYTES_MAX)?.to_owned();
        let received = from.short_text("received", FIELD_BYTES_MAX)?.to_owned();
        let socket = from.short_text("socket", FIELD_BYTES_MAX)?.to_owned();
        let user_agent = from.short_text("user agent", FIELD_BYTES_MAX)?.to_owned();
        let (cseq, flags) = (from.u32("cseq")?, from.u32("flags")?);
        let owner = Owner {
            node: crate::NodeId(from.u16("node")?),
            boot: crate::BootId(from.u64("boot")?),
            connection: from.u32("connection")?,
        };
        let asked = match from.u8("request")? {
            1 => Asked::Fetch,
            2 => Asked::RemoveAll,
            3 => {
                let len = usize::from(from.u16("contact count")?);
                if len > CONTACTS_MAX {
                    return Err(DecodeError::TooLong {
                        what: "contacts",
                        len,
                        max: CONTACTS_MAX,
                    });
                }
                let contacts = (0..len).map(|_| ContactChange::decode(from));
                Asked::Update(contacts.collect::<Result<_, _>>()?)
            }
            other => {
                return Err(DecodeError::Unknown {
                    what: "request",
                    value: other.into(),
                });
            }
        };
        Ok(Self {
            aor,
            call_id,
            cseq,
            path,
            received,
            socket,
            owner,
            user_agent,
            flags,
            asked,
        })
    }
}

impl ContactChange {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.short_bytes(self.uri.as_bytes())
            .short_bytes(self.instance.as_bytes());
        out.i16(self.q.raw()).u16(self.reg_id).u32(self.methods.0);
        out.u8(self.expires_s.is_some().into())
            .u32(self.expires_s.unwrap_or(0));
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let uri = from.short_text("uri", URI_BYTES_MAX)?.to_owned();
        let instance = from.short_text("instance", FIELD_BYTES_MAX)?.to_owned();
        let q = Q::from_raw(from.i16("q")?).ok_or(DecodeError::Malformed { what: "q" })?;
        let reg_id = from.u16("reg-id")?;
        let methods = Methods(from.u32("methods")?);
        let given = from.u8("expires given")?;
        let expires = from.u32("expires")?;
        let expires_s = match given {
            0 => None,
            1 => Some(expires),
            other => {
                return Err(DecodeError::Unknown {
                    what: "expires given",
                    value: other.into(),
                });
            }
        };
        Ok(Self {
            uri,
            q,
            expires_s,
            instance,
            reg_id,
            methods,
        })
    }
}

impl RegistrationReply {
    /// Appends the reply.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        match self {
            Self::Accepted {
                level,
                now,
                durable,
                bindings,
            } => {
                out.u8(1).u64(level.0).u64(now.0).u8((*durable).into());
                out.u16(u16::try_from(bindings.len()).unwrap_or(u16::MAX));
                for binding in bindings {
                    binding.view().encode(out);
                }
            }
            Self::Refused(refusal) => {
                let (code, value) = match refusal {
                    Refusal::OldCseq => (1, 0),
                    Refusal::Malformed => (2, 0),
                    Refusal::TooBrief(min) => (3, *min),
                    Refusal::TooMany => (4, 0),
                    Refusal::Unavailable => (5, 0),
                };
                out.u8(2).u8(code).u32(value);
            }
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Unknown codes, counts and lengths above their limits, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match from.u8("reply")? {
            1 => {
                let level = Level(from.u64("level")?);
                let now = MasterTime(from.u64("now")?);
                let durable = match from.u8("durable")? {
                    0 => false,
                    1 => true,
                    v => {
                        return Err(DecodeError::Unknown {
                            what: "durable",
                            value: v.into(),
                        });
                    }
                };
                let len = usize::from(from.u16("binding count")?);
                if len > BINDINGS_MAX {
                    return Err(DecodeError::TooLong {
                        what: "bindings",
                        len,
                        max: BINDINGS_MAX,
                    });
                }
                let bindings = (0..len).map(|_| BindingRef::decode(from).map(|b| b.to_owned()));
                let bindings = bindings.collect::<Result<_, _>>()?;
                Ok(Self::Accepted {
                    level,
                    now,
                    durable,
                    bindings,
                })
            }
            2 => {
                let code = from.u8("refusal")?;
                let value = from.u32("refusal value")?;
                Ok(Self::Refused(match code {
                    1 => Refusal::OldCseq,
                    2 => Refusal::Malformed,
                    3 => Refusal::TooBrief(value),
                    4 => Refusal::TooMany,
                    5 => Refusal::Unavailable,
                    other => {
                        return Err(DecodeError::Unknown {
                            what: "refusal",
                            value: other.into(),
                        });
                    }
                }))
            }
            other => Err(DecodeError::Unknown {
                what: "reply",
                value: other.into(),
            }),
        }
    }
}
