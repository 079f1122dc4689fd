//! The names that certificates carry: `locus:CLUSTER/KIND/NAME`; it knows no certificate.

use std::fmt;
use std::str::FromStr;

use locus_proto::{NodeId, NodeName, ParseNodeNameError};

/// Scheme of the one URI by which a certificate says who its holder is.
pub(crate) const SCHEME: &str = "locus:";

/// Who someone is: a cluster, and what they are in it.
///
/// Written as the URI that stands in a certificate's subject alternative names:
///
/// ```text
/// locus:CLUSTER/locsvc/NAME
/// locus:CLUSTER/node/NAME/ID          ID 1 to 65535
/// locus:CLUSTER/switch/NAME
/// locus:CLUSTER/operator/NAME/ROLE    ROLE read, provision or admin
/// ```
///
/// There is exactly one way to write each identity; any other text is refused. Names follow [`NodeName`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster; identities of another one mean nothing here.
    pub cluster: NodeName,
    /// What they are in it.
    pub holder: Holder,
}

/// What the holder of a certificate is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A location service: the master or its standby.
    Locsvc {
        /// Its name.
        name: NodeName,
    },
    /// A node.
    Node {
        /// Its name.
        name: NodeName,
        /// Its number, never 0.
        id: NodeId,
    },
    /// A switch.
    Switch {
        /// Its name.
        name: NodeName,
    },
    /// A person or a program that uses the HTTP API.
    Operator {
        /// Their name.
        name: NodeName,
        /// What they may do.
        role: Role,
    },
}

impl Holder {
    /// Returns the word for what they are: `locsvc`, `node`, `switch` or `operator`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Locsvc { .. } => "locsvc",
            Self::Node { .. } => "node",
            Self::Switch { .. } => "switch",
            Self::Operator { .. } => "operator",
        }
    }

    /// Returns their name.
    pub fn name(&self) -> &NodeName {
        match self {
            Self::Locsvc { name }
            | Self::Node { name, .. }
            | Self::Switch { name }
            | Self::Operator { name, .. } => name,
        }
    }

    /// Returns whether both are one holder, though an operator's role or a node's number may differ.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.name() == other.name()
    }
}

impl fmt::Display for Holder {
    /// Writes `node/n1/7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind(), self.name())?;
        match self {
            Self::Locsvc { .. } | Self::Switch { .. } => Ok(()),
            Self::Node { id, .. } => write!(f, "/{id}"),
            Self::Operator { role, .. } => write!(f, "/{role}"),
        }
    }
}

/// What an operator may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May look.
    Read,
    /// May change records.
    Provision,
    /// May do everything.
    Admin,
}

impl Role {
    /// All of them, least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Provision, Self::Admin];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Provision => "provision",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returned for text that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdentityError {
    /// It is not built like one.
    #[error(
        "an identity is locus:CLUSTER/locsvc/NAME, locus:CLUSTER/node/NAME/ID, \
         locus:CLUSTER/switch/NAME or locus:CLUSTER/operator/NAME/ROLE"
    )]
    Shape,
    /// The cluster or the name is not one.
    #[error(transparent)]
    Name(#[from] ParseNodeNameError),
    /// The number of a node is not one.
    #[error("the number of a node is 1 to 65535, without zeros before it")]
    NodeId,
    /// There is no such role.
    #[error("a role is read, provision or admin")]
    Role,
}

impl FromStr for Role {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or(ParseIdentityError::Role)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.cluster, self.holder)
    }
}

impl FromStr for Identity {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(SCHEME).ok_or(ParseIdentityError::Shape)?;
        let (cluster, holder) = rest.split_once('/').ok_or(ParseIdentityError::Shape)?;
        Ok(Self {
            cluster: cluster.parse()?,
            holder: holder.parse()?,
        })
    }
}

impl FromStr for Holder {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        match parts[..] {
            ["locsvc", name] => Ok(Self::Locsvc {
                name: name.parse()?,
            }),
            ["switch", name] => Ok(Self::Switch {
                name: name.parse()?,
            }),
            ["node", name, id] => Ok(Self::Node {
                name: name.parse()?,
                id: parse_node_id(id)?,
            }),
            ["operator", name, role] => Ok(Self::Operator {
                name: name.parse()?,
                role: role.parse()?,
            }),
            _ => Err(ParseIdentityError::Shape),
        }
    }
}

fn parse_node_id(text: &str) -> Result<NodeId, ParseIdentityError> {
    // `u16` alone would also take "+7" and "007".
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let id = text.parse().ok().filter(|_| plain);
    id.map(NodeId).ok_or(ParseIdentityError::NodeId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_written_in_one_way() {
        for text in [
            "locus:lab/locsvc/m1",
            "locus:lab/node/n1/1",
            "locus:a.b-c/node/n-1.x/65535",
            "locus:lab/switch/s1",
            "locus:lab/operator/alice/read",
            "locus:lab/operator/alice/provision",
            "locus:lab/operator/alice/admin",
        ] {
            let identity: Identity = text.parse().unwrap();
            assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn any_other_text_is_refused() {
        use ParseIdentityError::{Name, NodeId, Role, Shape};
        let name = Name(ParseNodeNameError);
        let long = format!("locus:lab/switch/{}", "a".repeat(33));
        for (text, error) in [
            ("", Shape),
            ("locus:", Shape),
            ("locus:lab", Shape),
            ("locus:lab/", Shape),
            ("LOCUS:lab/switch/s1", Shape),
            (" locus:lab/switch/s1", Shape),
            ("locus:lab/router/r1", Shape),
            ("locus:lab/Node/n1/1", Shape),
            ("locus:lab/node/n1", Shape),
            ("locus:lab/node/n1/1/", Shape),
            ("locus:lab/switch/s1/", Shape),
            ("locus:lab/locsvc/m1/1", Shape),
            ("locus://lab/node/n1/1", name.clone()),
            ("locus:/switch/s1", name.clone()),
            ("locus:lab/switch/", name.clone()),
            ("locus:Lab/switch/s1", name.clone()),
            ("locus:lab/switch/s 1", name.clone()),
            ("locus:lab/switch/s%31", name.clone()),
            ("locus:lab/switch/s1\n", name.clone()),
            (&long, name),
            ("locus:lab/node/n1/0", NodeId),
            ("locus:lab/node/n1/01", NodeId),
            ("locus:lab/node/n1/+1", NodeId),
            ("locus:lab/node/n1/65536", NodeId),
            ("locus:lab/node/n1/", NodeId),
            ("locus:lab/operator/alice/root", Role),
            ("locus:lab/operator/alice/Read", Role),
        ] {
            assert_eq!(text.parse::<Identity>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn each_role_holds_those_before_it() {
        assert!(Role::Read < Role::Provision && Role::Provision < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
    }
}
