//! The API's JSON, both ways; it checks shapes and numbers, not records.
//!
//! Bodies refuse unknown fields: a misspelt `expire_s` must not make a contact permanent.

use locus_proto::{
    AddressOfRecord, AorRecord, Binding, Digits, Level, MasterTime, Methods, Position, Q, Route,
    Target,
};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::fault::Fault;
use crate::provision::{Outcome, ProvisionChange, ProvisionContact};

/// Body of `PUT /v1/aors/{aor}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AorBody {
    contacts: Vec<ContactBody>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContactBody {
    uri: String,
    #[serde(default, deserialize_with = "q")]
    q: Option<Q>,
    #[serde(default)]
    expires_s: Option<u32>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    received: Option<String>,
    #[serde(default)]
    instance: Option<String>,
    #[serde(default)]
    reg_id: Option<u16>,
}

/// Body of `PUT /v1/routes/{prefix}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteBody {
    targets: Vec<TargetBody>,
    #[serde(default)]
    strip: u8,
    #[serde(default)]
    prefix: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetBody {
    uri: String,
    #[serde(default = "one")]
    priority: u16,
    #[serde(default = "one")]
    weight: u16,
}

/// Body of `POST /v1/batch`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchBody {
    pub(super) changes: Vec<ChangeBody>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ChangeBody {
    PutAor {
        aor: String,
        contacts: Vec<ContactBody>,
    },
    DeleteAor {
        aor: String,
    },
    PutRoute {
        prefix: String,
        route: RouteBody,
    },
    DeleteRoute {
        prefix: String,
    },
}

/// Query of `GET /v1/level`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LevelQuery {
    pub(super) wait: Option<u64>,
    pub(super) timeout_ms: Option<u64>,
    /// Which nodes have to have it; only `all` is known.
    #[serde(default)]
    nodes: WhichNodes,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WhichNodes {
    #[default]
    All,
}

fn one() -> u16 {
    1
}

/// Reads a JSON number as a preference; its shortest decimal form is what was meant.
fn q<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Q>, D::Error> {
    let number = Option::<f64>::deserialize(from)?;
    number
        .map(|number| {
            let text = number.to_string();
            text.parse()
                .map_err(|error| de::Error::custom(format_args!("{error}, not {text}")))
        })
        .transpose()
}

impl LevelQuery {
    /// Returns the level to wait for, if any.
    pub(super) fn level(&self) -> Option<Level> {
        let WhichNodes::All = self.nodes;
        self.wait.map(Level)
    }
}

impl AorBody {
    pub(super) fn contacts(self) -> Vec<ProvisionContact> {
        contacts(self.contacts)
    }
}

fn contacts(bodies: Vec<ContactBody>) -> Vec<ProvisionContact> {
    let contact = |body: ContactBody| ProvisionContact {
        uri: body.uri,
        q: body.q.unwrap_or(Q::NONE),
        expires_s: body.expires_s,
        path: body.path.unwrap_or_default(),
        received: body.received.unwrap_or_default(),
        methods: Methods::ALL,
        instance: body.instance.unwrap_or_default(),
        reg_id: body.reg_id.unwrap_or_default(),
    };
    bodies.into_iter().map(contact).collect()
}

impl From<RouteBody> for Route {
    fn from(body: RouteBody) -> Self {
        let target = |body: TargetBody| Target {
            uri: body.uri,
            priority: body.priority,
            weight: body.weight,
        };
        Self {
            strip: body.strip,
            prefix: body.prefix,
            targets: body.targets.into_iter().map(target).collect(),
        }
    }
}

impl ChangeBody {
    pub(super) fn into_change(self) -> Result<ProvisionChange, Fault> {
        Ok(match self {
            Self::PutAor {
                aor: name,
                contacts: bodies,
            } => ProvisionChange::PutAor {
                aor: aor(&name)?,
                contacts: contacts(bodies),
            },
            Self::DeleteAor { aor: name } => ProvisionChange::DeleteAor(aor(&name)?),
            Self::PutRoute {
                prefix: digits,
                route,
            } => ProvisionChange::PutRoute {
                prefix: prefix(&digits)?,
                route: route.into(),
            },
            Self::DeleteRoute { prefix: digits } => ProvisionChange::DeleteRoute(prefix(&digits)?),
        })
    }
}

pub(super) fn aor(text: &str) -> Result<AddressOfRecord, Fault> {
    AddressOfRecord::parse(text).map_err(|error| Fault::bad("bad_aor", error.to_string()))
}

pub(super) fn prefix(text: &str) -> Result<Digits, Fault> {
    Digits::parse(text).map_err(|error| Fault::bad("bad_prefix", error.to_string()))
}

/// Answer to one change.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    pub(super) level: Level,
    /// How many records were changed.
    pub(super) changed: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<&'static str>,
}

/// Returns whether a change with this outcome took a level.
pub(super) fn took_a_level(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Created | Outcome::Replaced | Outcome::Deleted => true,
        Outcome::Unchanged | Outcome::Absent => false,
    }
}

pub(super) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "created",
        Outcome::Replaced => "replaced",
        Outcome::Unchanged => "unchanged",
        Outcome::Deleted => "deleted",
        Outcome::Absent => "absent",
    }
}

/// Answer to `GET /v1/aors/{aor}`.
#[derive(Debug, Serialize)]
pub(super) struct AorAnswer {
    aor: AddressOfRecord,
    /// Level of the record's last change.
    level: Level,
    database_level: Level,
    contacts: Vec<ContactView>,
}

/// A contact: the fields of [`ContactBody`], and who registered it.
#[derive(Debug, Serialize)]
struct ContactView {
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<f64>,
    /// Seconds left; null for a permanent one.
    expires_s: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    received: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reg_id: Option<u16>,
    /// Absent for a contact that was provisioned.
    #[serde(skip_serializing_if = "Option::is_none")]
    registration: Option<RegistrationView>,
}

#[derive(Debug, Serialize)]
struct RegistrationView {
    node: u16,
    user_agent: String,
    call_id: String,
    cseq: u32,
    socket: String,
}

impl AorAnswer {
    pub(super) fn new(
        aor: AddressOfRecord,
        database_level: Level,
        now: MasterTime,
        level: Level,
        record: AorRecord,
    ) -> Self {
        let contacts = record.bindings.into_iter();
        Self {
            aor,
            level,
            database_level,
            contacts: contacts
                .map(|binding| ContactView::new(binding, now))
                .collect(),
        }
    }
}

impl ContactView {
    fn new(binding: Binding, now: MasterTime) -> Self {
        let expires_s =
            (binding.expires != MasterTime::NEVER).then(|| binding.expires.seconds_from(now));
        let registration = (!binding.call_id.is_empty()).then_some(RegistrationView {
            node: binding.owner.node.0,
            user_agent: binding.user_agent,
            call_id: binding.call_id,
            cseq: binding.cseq,
            socket: binding.socket,
        });
        Self {
            uri: binding.uri,
            q: binding.q.thousandths().map(|q| f64::from(q) / 1000.0),
            expires_s,
            path: binding.path,
            received: binding.received,
            instance: binding.instance,
            reg_id: (binding.reg_id != 0).then_some(binding.reg_id),
            registration,
        }
    }
}

/// Answer to `GET /v1/routes/{prefix}`.
#[derive(Debug, Serialize)]
pub(super) struct RouteAnswer {
    pub(super) prefix: Digits,
    /// Level of the record's last change.
    pub(super) level: Level,
    pub(super) database_level: Level,
    pub(super) route: Route,
}

/// Answer to `GET /v1/level`.
#[derive(Debug, Serialize)]
pub(super) struct LevelAnswer {
    level: Level,
    epoch: String,
    root: String,
    records: u64,
    /// Service time in milliseconds.
    time: MasterTime,
    /// After a wait: how many nodes have the level. Zero is no node at all, not success.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
}

impl LevelAnswer {
    pub(super) fn new(
        position: Position,
        records: u64,
        time: MasterTime,
        nodes: Option<usize>,
    ) -> Self {
        Self {
            level: position.level,
            epoch: position.epoch.to_string(),
            root: position.root.to_string(),
            records,
            time,
            nodes,
        }
    }
}
