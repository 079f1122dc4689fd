//! Runs `locusctl ca`: has the CA do what is asked and says what is to be done next; it signs nothing itself.

pub(crate) mod args;

use std::path::Path;

use locus_identity::{
    CaCertificate, CaContent, CaError, CertificateAuthority, Holder, Issued, Order, Rotated,
};
use locus_proto::NodeId;
use serde_json::{Value, json};

use crate::api::Fault;
use crate::format::{certificates, date};
use crate::output::{Output, colour};
use args::{CaArgs, CaCommand, FOLDER, How};

/// Does what is asked and returns what is to be printed.
pub(crate) fn run(arguments: CaArgs, json: bool) -> Output {
    let CaArgs { folder, command } = arguments;
    match answer(&folder, command) {
        Ok((_, value)) if json => Output::from(format!("{value}\n")),
        Ok((text, _)) => Output::from(text),
        Err(error) => Output {
            text: String::new(),
            failure: Some(Fault {
                error: error.to_string(),
                code: code_of(&error).to_owned(),
            }),
        },
    }
}

/// Returns the answer for people and that for programs.
fn answer(folder: &Path, command: CaCommand) -> Result<(String, Value), CaError> {
    let issue = |holder: Holder, hosts: &[String], how: How| {
        let ca = CertificateAuthority::open(folder)?;
        let order = order(holder, hosts, how);
        ca.issue(&order)
            .map(|issued| (issued_text(&ca, &issued), issued_json(&issued)))
    };
    match command {
        CaCommand::Init { cluster, days } => {
            let ca = CertificateAuthority::init(folder, &cluster, days)?;
            let content = ca.list()?;
            Ok((init_text(&ca, &content), content_json(&content)))
        }
        CaCommand::Locsvc { name, hosts, how } => issue(Holder::Locsvc { name }, &hosts, how),
        CaCommand::Node { name, id, how } => {
            let id = NodeId(id);
            issue(Holder::Node { name, id }, &[], how)
        }
        CaCommand::Switch { name, how } => issue(Holder::Switch { name }, &[], how),
        CaCommand::Operator { name, role, how } => issue(Holder::Operator { name, role }, &[], how),
        CaCommand::Revoke { which } => {
            let ca = CertificateAuthority::open(folder)?;
            let revoked = ca.revoke(&which)?;
            let json: Vec<_> = revoked.iter().map(certificate_json).collect();
            Ok((revoked_text(&ca, &revoked), json!({ "revoked": json })))
        }
        CaCommand::Rotate { days } => {
            let ca = CertificateAuthority::open(folder)?;
            let rotated = ca.rotate(days)?;
            Ok((rotated_text(&ca, rotated), rotated_json(rotated)))
        }
        CaCommand::Retire { force } => {
            let ca = CertificateAuthority::open(folder)?;
            let rotated = ca.retire(force)?;
            Ok((retired_text(&ca, rotated), rotated_json(rotated)))
        }
        CaCommand::List => {
            let content = CertificateAuthority::open(folder)?.list()?;
            Ok((certificates(&content, colour()), content_json(&content)))
        }
    }
}

fn order(holder: Holder, hosts: &[String], how: How) -> Order {
    let How { out, days, renew } = how;
    let mut order = Order::new(holder);
    for host in hosts {
        order = order.host(host);
    }
    if let Some(days) = days {
        order = order.lasting(days);
    }
    if let Some(out) = out {
        order = order.out(out);
    }
    if renew { order.renew() } else { order }
}

fn init_text(ca: &CertificateAuthority, content: &CaContent) -> String {
    let ends = content.authorities.iter().map(|one| one.not_after).max();
    let ends = ends.map(|ends| format!(", valid until {}", date(ends)));
    format!(
        "CA of cluster {1} made in {2}{3}\n\
         Whoever can read that folder can be anybody in the cluster: keep it on one machine, and a backup of it.\n\
         Next: locusctl ca{0} locsvc NAME --host ADDRESS, ca{0} node NAME --id ID, ca{0} operator NAME --role admin\n",
        folder_option(ca),
        ca.cluster(),
        ca.folder().display(),
        ends.unwrap_or_default(),
    )
}

fn issued_text(ca: &CertificateAuthority, issued: &Issued) -> String {
    let CaCertificate {
        serial,
        holder,
        hosts,
        not_after,
        ..
    } = &issued.certificate;
    let folder = issued.folder.display();
    let ends = date(*not_after);
    let mut text = format!("{holder}: certificate {serial}, valid until {ends}, in {folder}\n");
    text.push_str(&match holder {
        Holder::Locsvc { name } | Holder::Node { name, .. } | Holder::Switch { name } => {
            format!("Copy that folder to /etc/locus/identity on {name}; the key must stay mode 600.\n")
        }
        Holder::Operator { name, .. } => format!(
            "Give that folder to {name} alone: it is what `locusctl --identity FOLDER` takes (/etc/locus/operator \
             without it).\n"
        ),
    });
    if matches!(holder, Holder::Locsvc { .. }) && hosts.is_empty() {
        text.push_str(
            "No --host was given: nodes can connect, but locusctl cannot call its API by https.\n",
        );
    }
    for earlier in &issued.earlier {
        text.push_str(&format!(
            "The earlier certificate {} ({}) stays valid until {}; when the new one is in place: \
             locusctl ca{} revoke {}\n",
            earlier.serial,
            earlier.holder,
            date(earlier.not_after),
            folder_option(ca),
            earlier.serial,
        ));
    }
    text
}

/// Returns the option that names the CA's folder, where it is not the usual one.
fn folder_option(ca: &CertificateAuthority) -> String {
    if ca.folder() == Path::new(FOLDER) {
        String::new()
    } else {
        format!(" --folder {}", ca.folder().display())
    }
}

fn revoked_text(ca: &CertificateAuthority, revoked: &[CaCertificate]) -> String {
    let mut text = String::new();
    for CaCertificate { serial, holder, .. } in revoked {
        text.push_str(&format!("revoked {serial} ({holder})\n"));
    }
    text.push_str(&format!(
        "It counts where {} has been copied to: into the identity folder of every locsvc first, then of every node. \
         Daemons read it within 10 seconds and end the connections that were opened with it.\n",
        ca.folder().join("revoked.pem").display(),
    ));
    text
}

fn rotated_text(ca: &CertificateAuthority, rotated: Rotated) -> String {
    let Rotated { previous, current } = rotated;
    let (folder, option) = (ca.folder().display(), folder_option(ca));
    format!(
        "CA {current} signs from now on; CA {previous} is still trusted.\n\
         1. Copy {folder}/ca.pem and {folder}/revoked.pem into every identity folder, before anything else\n\
            (those under {folder}/issued have them).\n\
         2. Issue everybody anew with --renew and copy; `locusctl ca{option} list` shows who is left.\n\
         3. `locusctl ca{option} retire`, and copy both files once more.\n"
    )
}

fn retired_text(ca: &CertificateAuthority, rotated: Rotated) -> String {
    let Rotated { previous, current } = rotated;
    let folder = ca.folder().display();
    format!(
        "CA {previous} is retired and its key removed; CA {current} alone is trusted.\n\
         It counts where {folder}/ca.pem has been copied to: copy it and {folder}/revoked.pem into every identity \
         folder.\n"
    )
}

fn issued_json(issued: &Issued) -> Value {
    let mut value = certificate_json(&issued.certificate);
    value["folder"] = issued.folder.display().to_string().into();
    value["earlier"] = issued.earlier.iter().map(certificate_json).collect();
    value
}

fn rotated_json(rotated: Rotated) -> Value {
    let Rotated { previous, current } = rotated;
    json!({ "previous": previous, "current": current })
}

fn content_json(content: &CaContent) -> Value {
    let authorities = content.authorities.iter().map(|authority| {
        json!({
            "number": authority.number,
            "not_after": date(authority.not_after),
            "state": authority.state.as_str(),
        })
    });
    let certificates = content.certificates.iter().map(certificate_json);
    json!({
        "cluster": content.cluster.as_str(),
        "authorities": authorities.collect::<Vec<_>>(),
        "certificates": certificates.collect::<Vec<_>>(),
    })
}

fn certificate_json(certificate: &CaCertificate) -> Value {
    json!({
        "serial": certificate.serial.to_string(),
        "holder": certificate.holder.to_string(),
        "hosts": certificate.hosts,
        "authority": certificate.authority,
        "not_after": date(certificate.not_after),
        "revoked": certificate.revoked.map(date),
        "state": certificate.state.as_str(),
    })
}

/// Returns the word by which a script knows what went wrong.
fn code_of(error: &CaError) -> &'static str {
    match error {
        CaError::NoCa(_) => "no_ca",
        CaError::NotEmpty(_) => "not_empty",
        CaError::Cluster(_) => "bad_cluster",
        CaError::Ledger { .. } | CaError::Authority { .. } => "damaged",
        CaError::KeyMode { .. } => "key_mode",
        CaError::Io { .. } | CaError::Random(_) | CaError::Make(_) => "system",
        CaError::Exists(_) => "exists",
        CaError::IdTaken { .. } => "id_taken",
        CaError::NameTaken { .. } => "name_taken",
        CaError::Host(_) | CaError::HostNotNeeded(_) => "bad_host",
        CaError::Days { .. } | CaError::CaDays => "bad_days",
        CaError::NotFound(_) => "not_found",
        CaError::NothingValid(_) => "nothing_valid",
        CaError::Ambiguous { .. } => "ambiguous",
        CaError::Rotating(_) => "rotating",
        CaError::OnlyOne => "only_one",
        CaError::StillNeeded(_) => "still_needed",
    }
}
