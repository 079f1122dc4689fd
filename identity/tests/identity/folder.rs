//! What an identity folder says of its files, at the start and when they change.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use locus_identity::{IdentityFolder, OpenIdentityError, Order, Reload, peer_identity};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use crate::common::{Cluster, meet, uri};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn error_of(path: &Path) -> OpenIdentityError {
    IdentityFolder::open(path).unwrap_err()
}

#[test]
fn a_good_folder_says_who_we_are_and_how_long() {
    let lab = Cluster::new();
    let node = lab.identity("node/n1/7");
    assert_eq!(node.identity().to_string(), "locus:lab/node/n1/7");
    assert_eq!(node.cluster().as_str(), "lab");
    assert_eq!(node.path(), lab.temp.join("node-n1-7"));
    assert_eq!(node.warnings(), Vec::<String>::new());
    let day = Duration::from_secs(24 * 3600);
    let left = node.expires_in().unwrap();
    assert!(left > 364 * day && left <= 365 * day, "{left:?}");
}

/// Each file missing, empty, of another kind, or of another folder: the error names it and the cure.
#[test]
fn errors_name_the_file_and_the_cure() {
    let lab = Cluster::new();
    let node = lab.identity("node/n1/1");
    let elsewhere = Cluster::new();
    let other = elsewhere.identity("node/n1/1");
    let path = node.path();
    let is = |error: OpenIdentityError, file: &str, words: &[&str]| {
        let text = error.to_string();
        for word in [path.join(file).to_str().unwrap()].iter().chain(words) {
            assert!(text.contains(word), "{word:?} in {text:?}");
        }
    };
    let command = "locusctl ca node NAME --id ID";
    for file in ["ca.pem", "identity.pem", "identity.key"] {
        let good = fs::read(path.join(file)).unwrap();
        fs::remove_file(path.join(file)).unwrap();
        is(
            error_of(path),
            file,
            &["is missing", command, path.to_str().unwrap()],
        );
        for bad in [
            "",
            "no PEM",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(path.join(file), bad).unwrap();
            chmod(&path.join(file), 0o600);
            is(error_of(path), file, &["copy it again"]);
        }
        fs::write(path.join(file), good).unwrap();
        chmod(&path.join(file), 0o600);
    }
    assert!(IdentityFolder::open(path).is_ok());

    // A certificate where the key belongs, too many CAs, no list.
    let key = fs::read(path.join("identity.key")).unwrap();
    fs::copy(path.join("identity.pem"), path.join("identity.key")).unwrap();
    is(error_of(path), "identity.key", &["no private key"]);
    fs::write(path.join("identity.key"), key).unwrap();
    let ca = fs::read_to_string(path.join("ca.pem")).unwrap();
    fs::write(path.join("ca.pem"), ca.repeat(9)).unwrap();
    is(error_of(path), "ca.pem", &["there are 9, more than 8"]);
    // The certificate of a holder trusted as a CA would make its holder one.
    let own = fs::read_to_string(path.join("identity.pem")).unwrap();
    fs::write(path.join("ca.pem"), ca.clone() + &own).unwrap();
    let words = ["certificate 2 in it is not that of a CA", "copy it again"];
    is(error_of(path), "ca.pem", &words);
    fs::write(path.join("ca.pem"), &ca).unwrap();
    for bad in ["", "no PEM", &ca] {
        fs::write(path.join("revoked.pem"), bad).unwrap();
        is(
            error_of(path),
            "revoked.pem",
            &["copy revoked.pem from the CA's folder"],
        );
    }
    fs::remove_file(path.join("revoked.pem")).unwrap();
    assert!(
        IdentityFolder::open(path).is_ok(),
        "nothing is revoked then"
    );

    // Modes.
    for mode in [0o604, 0o644, 0o602, 0o620, 0o660] {
        chmod(&path.join("identity.key"), mode);
        is(
            error_of(path),
            "identity.key",
            &[&format!("mode {mode:o}"), "chmod 600"],
        );
    }
    for mode in [0o640, 0o400, 0o600] {
        chmod(&path.join("identity.key"), mode);
        assert!(IdentityFolder::open(path).is_ok(), "{mode:o}");
    }

    // Files of two folders mixed.
    fs::copy(other.path().join("ca.pem"), path.join("ca.pem")).unwrap();
    is(
        error_of(path),
        "identity.pem",
        &["is signed by none of the CAs in", "ca.pem"],
    );
    fs::copy(other.path().join("identity.pem"), path.join("identity.pem")).unwrap();
    is(
        error_of(path),
        "identity.pem",
        &["identity.key is not the key of", "from the same folder"],
    );
}

/// What nobody would take is said of the certificate, and not of the list of what is revoked.
#[test]
fn a_certificate_for_another_purpose_is_named() {
    let lab = Cluster::new();
    let folder = lab.odd("odd", |params| {
        params.subject_alt_names = vec![uri("locus:lab/node/n1/1")];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let text = error_of(&folder).to_string();
    let file = folder.join("identity.pem");
    assert!(text.starts_with(file.to_str().unwrap()), "{text}");
    assert!(text.contains("nobody would take it"), "{text}");
}

/// A list that is none of our CA's, by a CA that bears our CA's name, would make every certificate fail.
#[test]
fn a_list_under_a_false_signature_is_refused_at_once() {
    let lab = Cluster::new();
    let node = lab.identity("node/n1/1");
    let list = node.path().join("revoked.pem");
    let text = fs::read_to_string(&list).unwrap();
    // The last but one line holds the end of the signature.
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let line = lines.len() - 2;
    let changed: String = lines[line]
        .chars()
        .map(|c| if c == 'A' { 'B' } else { 'A' })
        .collect();
    lines[line] = changed;
    fs::write(&list, lines.join("\n")).unwrap();
    let error = error_of(node.path()).to_string();
    assert!(
        error.contains("is not a list of what our CAs have revoked"),
        "{error}"
    );
    // One of a stranger concerns nobody.
    let stranger = Cluster::new();
    fs::copy(stranger.ca.folder().join("revoked.pem"), &list).unwrap();
    assert!(IdentityFolder::open(node.path()).is_ok());
}

#[test]
fn a_revoked_one_opens_with_a_warning() {
    let lab = Cluster::new();
    let node = lab.identity("node/n1/1");
    lab.ca.revoke("n1").unwrap();
    lab.distribute(&node);
    assert_eq!(node.reload().unwrap(), Reload::Changed);
    let warnings = node.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("was revoked"),
        "{warnings:?}"
    );
    assert!(IdentityFolder::open(node.path()).is_ok());
}

#[test]
fn a_renewed_certificate_counts_without_a_restart() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let serial = || {
        let (_, accepted) = meet(&node, &master);
        accepted.unwrap().peer().unwrap().serial.clone()
    };
    let before = serial();
    assert_eq!(node.reload().unwrap(), Reload::Unchanged);
    lab.identity("node/n1/1");
    assert_eq!(serial(), before, "nobody has looked yet");
    assert_eq!(node.reload().unwrap(), Reload::Changed);
    assert_eq!(node.reload().unwrap(), Reload::Unchanged);
    assert_ne!(serial(), before);
}

#[test]
fn bad_files_leave_the_old_identity_and_are_told_once() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let path = node.path().join("identity.pem");
    let good = fs::read(&path).unwrap();
    fs::write(&path, "half a cert").unwrap();
    // Perhaps it is being copied.
    assert_eq!(node.reload().unwrap(), Reload::Unchanged);
    let error = node.reload().unwrap_err();
    assert!(
        matches!(error, OpenIdentityError::NotPem { .. }),
        "{error:?}"
    );
    assert_eq!(node.reload().unwrap(), Reload::Unchanged);
    assert!(meet(&node, &master).1.is_ok(), "the old one counts");
    // Otherwise bad: told again, once.
    fs::remove_file(&path).unwrap();
    assert_eq!(node.reload().unwrap(), Reload::Unchanged);
    let error = node.reload().unwrap_err();
    assert!(
        matches!(error, OpenIdentityError::Missing { .. }),
        "{error:?}"
    );
    assert_eq!(node.reload().unwrap(), Reload::Unchanged);
    fs::write(&path, good).unwrap();
    assert_eq!(node.reload().unwrap(), Reload::Changed);
}

#[test]
fn a_key_that_is_opened_to_all_is_noticed_while_running() {
    let lab = Cluster::new();
    let node = lab.identity("node/n1/1");
    chmod(&node.path().join("identity.key"), 0o644);
    assert_eq!(node.reload().unwrap(), Reload::Unchanged);
    let error = node.reload().unwrap_err();
    assert!(
        matches!(error, OpenIdentityError::KeyMode { mode: 0o644, .. }),
        "{error:?}"
    );
}

#[test]
fn nobody_becomes_another_while_running() {
    let lab = Cluster::new();
    let node = lab.identity("node/n1/1");
    let order = Order::new("node/n2/2".parse().unwrap());
    lab.ca
        .issue(&order.out(node.path().to_owned()).renew())
        .unwrap();
    assert_eq!(node.reload().unwrap(), Reload::Unchanged);
    let error = node.reload().unwrap_err().to_string();
    assert!(
        error.contains("is now that of locus:lab/node/n2/2, and not ours, locus:lab/node/n1/1"),
        "{error}"
    );
    assert_eq!(node.identity().to_string(), "locus:lab/node/n1/1");
}

#[test]
fn a_cluster_whose_name_is_none_in_dns_is_refused() {
    let lab = Cluster::new();
    let folder = lab.odd("dots", |params| {
        params.subject_alt_names = vec![uri("locus:a..b/node/n1/1")];
    });
    let error = error_of(&folder).to_string();
    assert!(error.contains("\"a..b\" is none in DNS"), "{error}");
}

/// Lists are made when somebody is revoked, not each month: one past its date counts on, with a warning.
#[test]
fn a_list_past_its_date_cuts_nobody_off_but_those_on_it() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let gone = lab.identity("node/n2/2");
    let (_, accepted) = meet(&gone, &master);
    let serial = accepted.unwrap().peer().unwrap().serial.clone();
    let ago = |hours: u64| OffsetDateTime::now_utc() - Duration::from_secs(hours * 3600);
    let list = CertificateRevocationListParams {
        this_update: ago(48),
        next_update: ago(24),
        crl_number: SerialNumber::from(9),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial.as_bytes()),
            revocation_time: ago(48),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&lab.issuer()).unwrap().pem().unwrap();
    fs::write(master.path().join("revoked.pem"), list).unwrap();
    assert_eq!(master.reload().unwrap(), Reload::Changed);
    let warnings = master.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("is past its date"),
        "{warnings:?}"
    );
    assert!(meet(&node, &master).1.is_ok());
    let error = meet(&gone, &master).1.unwrap_err().to_string();
    assert_eq!(error, "we refuse their certificate: it was revoked");
}

/// Whatever stands in a certificate, reading it comes to an end.
#[test]
fn a_spoilt_certificate_is_read_without_harm() {
    let lab = Cluster::new();
    let node = lab.identity("node/n1/1");
    let good = CertificateDer::from_pem_file(node.path().join("identity.pem")).unwrap();
    let mut understood = 0;
    for at in 0..good.len() {
        for bit in [1, 0x80, 0xff] {
            let mut bytes = good.to_vec();
            bytes[at] ^= bit;
            if let Ok(peer) = peer_identity(&[bytes.into()]) {
                let text = peer.identity.to_string();
                assert_eq!(text.parse(), Ok(peer.identity));
                understood += 1;
            }
        }
        assert!(
            peer_identity(&[good[..at].to_vec().into()]).is_err(),
            "cut at {at}"
        );
    }
    // Most bytes are key and signature, of which nothing is read here.
    assert!(understood > good.len() / 2, "{understood}");
    let longer = [&good[..], &[0]].concat();
    assert!(peer_identity(&[longer.into()]).is_err());
    assert!(peer_identity(&[]).is_err());
}
