//! The CA: what it issues, refuses, revokes and remembers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::thread;
use std::time::UNIX_EPOCH;

use locus_identity::{
    AuthorityState, CA_DAYS, CaError, CertificateAuthority, CertificateState, DAYS_MAX,
    IdentityFolder, Order,
};

use crate::common::{Cluster, Temp};

fn order(holder: &str) -> Order {
    Order::new(holder.parse().unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
    let mut names: Vec<String> = entries.map(|entry| name(entry).unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_ca_has_a_folder_of_its_own() {
    let temp = Temp::new();
    let (folder, lab) = (temp.join("a/b/ca"), "lab".parse().unwrap());
    let ca = CertificateAuthority::init(&folder, &lab, CA_DAYS).unwrap();
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("ca-1.key")), 0o600);
    assert_eq!(mode(&folder.join("ca.json")), 0o600);
    let all = [
        "ca-1.key",
        "ca-1.pem",
        "ca.json",
        "ca.pem",
        "lock",
        "revoked.pem",
    ];
    assert_eq!(names(&folder), all);
    assert_eq!(
        names(&temp.join("a/b")),
        ["ca"],
        "nothing is left beside it"
    );
    assert_eq!(ca.cluster().as_str(), "lab");
    // Never over another, nor among other files.
    let error = CertificateAuthority::init(&folder, &lab, CA_DAYS).unwrap_err();
    assert!(matches!(error, CaError::NotEmpty(_)), "{error:?}");
    fs::create_dir(temp.join("full")).unwrap();
    fs::write(temp.join("full/x"), "").unwrap();
    let error = CertificateAuthority::init(&temp.join("full"), &lab, CA_DAYS).unwrap_err();
    assert!(matches!(error, CaError::NotEmpty(_)), "{error:?}");
    assert_eq!(names(&temp.join("full")), ["x"]);
    // In an empty one, which a package may have made with other permissions.
    fs::create_dir(temp.join("empty")).unwrap();
    CertificateAuthority::init(&temp.join("empty"), &lab, CA_DAYS).unwrap();
    assert_eq!(mode(&temp.join("empty")), 0o700);
    assert_eq!(names(&temp.join("empty")), all);
    let error = CertificateAuthority::open(&temp.join("nothing")).unwrap_err();
    assert!(
        error.to_string().contains("locusctl ca init CLUSTER"),
        "{error}"
    );
}

#[test]
fn a_cluster_needs_a_name_that_dns_takes() {
    let temp = Temp::new();
    for name in ["-", ".", "a..b", ".a", "a.", "-a", "a.-b"] {
        let name = name.parse().unwrap();
        let error = CertificateAuthority::init(&temp.join("ca"), &name, CA_DAYS).unwrap_err();
        assert!(matches!(error, CaError::Cluster(_)), "{name}: {error:?}");
    }
    for days in [0, DAYS_MAX + 1] {
        let lab = "lab".parse().unwrap();
        let error = CertificateAuthority::init(&temp.join("ca"), &lab, days).unwrap_err();
        assert!(matches!(error, CaError::CaDays), "{error:?}");
    }
    assert_eq!(names(temp.path()), Vec::<String>::new());
}

#[test]
fn an_identity_is_a_folder_ready_to_be_copied() {
    let lab = Cluster::new();
    let issued = lab.ca.issue(&order("node/n1/1")).unwrap();
    assert_eq!(issued.folder, lab.ca.folder().join("issued/node-n1"));
    let all = ["ca.pem", "identity.key", "identity.pem", "revoked.pem"];
    assert_eq!(names(&issued.folder), all);
    assert_eq!(names(&lab.ca.folder().join("issued")), ["node-n1"]);
    assert_eq!(mode(&issued.folder), 0o700);
    assert_eq!(mode(&issued.folder.join("identity.key")), 0o600);
    assert_eq!(mode(&issued.folder.join("identity.pem")), 0o644);
    assert!(issued.earlier.is_empty());
    assert!(IdentityFolder::open(&issued.folder).is_ok());
    // Into a folder that is there, without touching its permissions or what else lies in it.
    let out = lab.temp.join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("README"), "").unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o750)).unwrap();
    lab.ca.issue(&order("switch/s1").out(out.clone())).unwrap();
    assert_eq!(mode(&out), 0o750);
    let mut with_readme = vec!["README"];
    with_readme.extend(all);
    assert_eq!(names(&out), with_readme);
}

/// A daemon that could read the old files can read the new ones.
#[test]
fn renewal_in_place_keeps_owner_and_mode() {
    let lab = Cluster::new();
    let out = lab.temp.join("identity");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o750)).unwrap();
    let to = |holder: &str| order(holder).out(out.clone()).renew();
    lab.ca.issue(&to("node/n1/1")).unwrap();
    assert_eq!(mode(&out), 0o750, "the folder itself is left alone");
    let key = out.join("identity.key");
    let chmod = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    for (before, after) in [
        (0o640, 0o640),
        (0o600, 0o600),
        (0o400, 0o600),
        (0o664, 0o640),
    ] {
        chmod(before);
        lab.ca.issue(&to("node/n1/1")).unwrap();
        assert_eq!(mode(&key), after, "{before:o}");
        assert!(IdentityFolder::open(&out).is_ok());
    }
    // Only root can give files away.
    if chown(&key, Some(1), Some(2)).is_ok() {
        lab.ca.issue(&to("node/n1/1")).unwrap();
        let metadata = fs::metadata(&key).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1, 2));
        fs::remove_file(&key).unwrap();
        chown(&out, Some(3), Some(4)).unwrap();
        lab.ca.issue(&to("node/n1/1")).unwrap();
        let metadata = fs::metadata(&key).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (3, 4));
    }
}

#[test]
fn nothing_is_overwritten_unless_it_is_renewed() {
    let lab = Cluster::new();
    let first = lab.ca.issue(&order("node/n1/1")).unwrap();
    let before = fs::read(first.folder.join("identity.pem")).unwrap();
    let error = lab.ca.issue(&order("node/n1/1")).unwrap_err();
    assert!(matches!(error, CaError::Exists(_)), "{error:?}");
    assert!(error.to_string().contains("--renew"), "{error}");
    assert_eq!(fs::read(first.folder.join("identity.pem")).unwrap(), before);
    assert_eq!(
        lab.ca.list().unwrap().certificates.len(),
        1,
        "not even remembered"
    );
    let second = lab.ca.issue(&order("node/n1/1").renew()).unwrap();
    assert_eq!(second.folder, first.folder);
    assert_ne!(second.certificate.serial, first.certificate.serial);
    assert_eq!(second.earlier, [first.certificate]);
    assert!(IdentityFolder::open(&second.folder).is_ok());
    assert_eq!(
        names(&second.folder).len(),
        4,
        "nothing is left of the exchange"
    );
}

#[test]
fn a_nodes_number_is_its_own() {
    let lab = Cluster::new();
    lab.ca.issue(&order("node/n1/1")).unwrap();
    let error = lab.ca.issue(&order("node/n2/1")).unwrap_err().to_string();
    assert!(error.starts_with("number 1 belongs to node n1"), "{error}");
    let error = lab
        .ca
        .issue(&order("node/n1/2").renew())
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("node n1 has number 1"), "{error}");
    lab.ca.issue(&order("operator/n1/read")).unwrap();
    lab.ca.revoke("node/n1").unwrap();
    lab.ca.issue(&order("node/n2/1")).unwrap();
    lab.ca.issue(&order("node/n1/2").renew()).unwrap();
}

#[test]
fn hosts_are_addresses_or_names_of_a_locsvc() {
    let lab = Cluster::new();
    for host in [
        "",
        "http://m1",
        "m1:8800",
        "10.0.0.300",
        "10.1",
        "a b",
        "-x",
        "*.net",
    ] {
        let error = lab.ca.issue(&order("locsvc/m1").host(host)).unwrap_err();
        assert!(matches!(error, CaError::Host(_)), "{host}: {error:?}");
    }
    let error = lab.ca.issue(&order("node/n1/1").host("n1")).unwrap_err();
    assert!(matches!(error, CaError::HostNotNeeded(_)), "{error:?}");
    let fine = order("locsvc/m1")
        .host("10.0.0.1")
        .host("FD00::0:1")
        .host("M1.example.net");
    let issued = lab.ca.issue(&fine).unwrap();
    assert_eq!(
        issued.certificate.hosts,
        ["10.0.0.1", "fd00::1", "m1.example.net"]
    );
}

#[test]
fn no_certificate_outlives_its_ca() {
    let temp = Temp::new();
    let name = "lab".parse().unwrap();
    let ca = CertificateAuthority::init(&temp.join("ca"), &name, 30).unwrap();
    let ends = ca.list().unwrap().authorities[0].not_after;
    let issued = ca.issue(&order("node/n1/1")).unwrap();
    assert!(
        issued.certificate.not_after <= ends,
        "the usual year is cut"
    );
    for days in [0, 31] {
        let error = ca.issue(&order("node/n2/2").lasting(days)).unwrap_err();
        assert!(
            matches!(error, CaError::Days { most: 29 | 30 }),
            "{days}: {error:?}"
        );
    }
    let issued = ca.issue(&order("node/n2/2").lasting(7)).unwrap();
    assert!(issued.certificate.not_after < ends);
}

#[test]
fn revoking_says_whom_it_meant() {
    let lab = Cluster::new();
    let first = lab.ca.issue(&order("node/n1/1")).unwrap().certificate;
    let second = lab
        .ca
        .issue(&order("node/n1/1").renew())
        .unwrap()
        .certificate;
    lab.ca.issue(&order("operator/n1/read")).unwrap();
    let error = lab.ca.revoke("n1").unwrap_err().to_string();
    assert_eq!(error, "n1 can be node/n1/1 or operator/n1/read: say which");
    let error = lab.ca.revoke("n3").unwrap_err();
    assert!(matches!(error, CaError::NotFound(_)), "{error:?}");
    // By serial the one, by name the rest.
    let before = fs::read(lab.ca.folder().join("revoked.pem")).unwrap();
    let revoked = lab.ca.revoke(&first.serial.to_string()).unwrap();
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0].serial, first.serial);
    assert_eq!(revoked[0].state, CertificateState::Revoked);
    let list = fs::read(lab.ca.folder().join("revoked.pem")).unwrap();
    assert_ne!(list, before);
    for folder in ["node-n1", "operator-n1"] {
        let copy = lab
            .ca
            .folder()
            .join("issued")
            .join(folder)
            .join("revoked.pem");
        assert_eq!(fs::read(copy).unwrap(), list, "{folder}");
    }
    let revoked = lab.ca.revoke("node/n1").unwrap();
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0].serial, second.serial);
    let error = lab.ca.revoke("node/n1/1").unwrap_err();
    assert!(matches!(error, CaError::NothingValid(_)), "{error:?}");
    let error = lab.ca.revoke(&first.serial.to_string()).unwrap_err();
    assert!(matches!(error, CaError::NothingValid(_)), "{error:?}");
    // Now the name is clear.
    assert_eq!(lab.ca.revoke("n1").unwrap()[0].holder.kind(), "operator");
}

/// A holder whose certificate has ended may still be inside; only the list puts them out.
#[test]
fn one_that_has_ended_lately_can_be_revoked() {
    let lab = Cluster::new();
    let ledger = lab.ca.folder().join("ca.json");
    let end = |holder: &str, days: u64| {
        let issued = lab.ca.issue(&order(holder).lasting(1)).unwrap();
        let ends = issued.certificate.not_after.duration_since(UNIX_EPOCH);
        let ends = ends.unwrap().as_secs();
        let text = fs::read_to_string(&ledger).unwrap();
        let earlier = (ends - (days + 1) * 24 * 3600 - 1).to_string();
        fs::write(&ledger, text.replace(&ends.to_string(), &earlier)).unwrap();
        assert_eq!(
            lab.ca.list().unwrap().certificates.last().unwrap().state,
            CertificateState::Expired
        );
    };
    end("node/n1/1", 1);
    let before = fs::read(lab.ca.folder().join("revoked.pem")).unwrap();
    assert_eq!(lab.ca.revoke("node/n1").unwrap().len(), 1);
    let after = fs::read(lab.ca.folder().join("revoked.pem")).unwrap();
    assert!(after.len() > before.len() + 20, "the list names it");
    end("node/n2/2", 31);
    let error = lab.ca.revoke("node/n2").unwrap_err();
    assert!(matches!(error, CaError::NothingValid(_)), "{error:?}");
}

/// A command that was cut off behind the ledger is done to its end when it is given again.
#[test]
fn what_was_cut_off_is_made_good_by_the_same_command() {
    let lab = Cluster::new();
    let file = |name: &str| lab.ca.folder().join(name);
    let read = |name: &str| fs::read_to_string(file(name)).unwrap();
    let (none, first) = (read("revoked.pem"), read("ca.pem"));
    lab.ca.issue(&order("node/n1/1")).unwrap();
    lab.ca.revoke("node/n1").unwrap();
    fs::write(file("revoked.pem"), &none).unwrap();
    lab.ca.revoke("node/n1").unwrap_err();
    assert!(read("revoked.pem").len() > none.len() + 20);
    lab.ca.rotate(CA_DAYS).unwrap();
    let both = read("ca.pem");
    fs::write(file("ca.pem"), first).unwrap();
    lab.ca.rotate(CA_DAYS).unwrap_err();
    assert_eq!(read("ca.pem"), both);
    let key = read("ca-1.key");
    lab.ca.retire(true).unwrap();
    let last = read("ca.pem");
    fs::write(file("ca.pem"), both).unwrap();
    fs::write(file("ca-1.key"), key).unwrap();
    lab.ca.retire(true).unwrap_err();
    assert_eq!(read("ca.pem"), last);
    assert!(!file("ca-1.key").exists());
}

#[test]
fn a_rotation_has_a_beginning_and_an_end() {
    let lab = Cluster::new();
    let folder = lab.ca.folder();
    let states = || {
        let authorities = lab.ca.list().unwrap().authorities;
        authorities
            .into_iter()
            .map(|one| one.state)
            .collect::<Vec<_>>()
    };
    let cas = || {
        let text = fs::read_to_string(folder.join("ca.pem")).unwrap();
        text.matches("BEGIN CERTIFICATE").count()
    };
    let node = lab.ca.issue(&order("node/n1/1")).unwrap();
    let error = lab.ca.retire(false).unwrap_err();
    assert!(matches!(error, CaError::OnlyOne), "{error:?}");
    let rotated = lab.ca.rotate(CA_DAYS).unwrap();
    assert_eq!((rotated.previous, rotated.current), (1, 2));
    assert_eq!(
        states(),
        [AuthorityState::Previous, AuthorityState::Current]
    );
    assert_eq!(cas(), 2);
    let error = lab.ca.rotate(CA_DAYS).unwrap_err();
    assert!(matches!(error, CaError::Rotating(1)), "{error:?}");
    let error = lab.ca.retire(false).unwrap_err();
    assert!(
        matches!(&error, CaError::StillNeeded(holders) if holders.len() == 1),
        "{error:?}"
    );
    let renewed = lab.ca.issue(&order("node/n1/1").renew()).unwrap();
    assert_eq!(
        (node.certificate.authority, renewed.certificate.authority),
        (1, 2)
    );
    // What the previous one has signed can still be revoked.
    lab.ca.revoke(&node.certificate.serial.to_string()).unwrap();
    let lists = fs::read_to_string(folder.join("revoked.pem")).unwrap();
    assert_eq!(lists.matches("BEGIN X509 CRL").count(), 2);
    lab.ca.retire(false).unwrap();
    assert_eq!(states(), [AuthorityState::Retired, AuthorityState::Current]);
    assert_eq!(cas(), 1);
    assert!(!folder.join("ca-1.key").exists());
    assert!(folder.join("ca-2.key").exists());
    assert_eq!(lab.ca.rotate(CA_DAYS).unwrap().current, 3);
    // As an operator finds it later.
    let again = CertificateAuthority::open(folder).unwrap();
    let (found, known) = (again.list().unwrap(), lab.ca.list().unwrap());
    assert_eq!(found.certificates, known.certificates);
    assert_eq!(found.authorities, known.authorities);
}

#[test]
fn several_at_once_take_turns() {
    let lab = Cluster::new();
    thread::scope(|threads| {
        for number in 1..=8 {
            let folder = lab.ca.folder();
            threads.spawn(move || {
                let ca = CertificateAuthority::open(folder).unwrap();
                ca.issue(&order(&format!("node/n{number}/{number}")))
                    .unwrap();
                ca.revoke(&format!("n{number}")).unwrap();
            });
        }
    });
    let certificates = lab.ca.list().unwrap().certificates;
    assert_eq!(certificates.len(), 8);
    let revoked = |one: &locus_identity::CaCertificate| one.state == CertificateState::Revoked;
    assert!(certificates.iter().all(revoked));
}

#[test]
fn damage_is_named() {
    let lab = Cluster::new();
    let folder = lab.ca.folder();
    let key = folder.join("ca-1.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = lab.ca.issue(&order("node/n1/1")).unwrap_err();
    assert!(
        matches!(error, CaError::KeyMode { mode: 0o640, .. }),
        "{error:?}"
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "no key").unwrap();
    let error = lab.ca.issue(&order("node/n1/1")).unwrap_err();
    assert!(matches!(error, CaError::Authority { .. }), "{error:?}");
    assert!(error.to_string().contains("ca-1.key is damaged"), "{error}");
    assert!(!folder.join("issued").exists());
    for text in ["", "{}", "{\"format\":2}"] {
        fs::write(folder.join("ca.json"), text).unwrap();
        let error = CertificateAuthority::open(folder).unwrap_err();
        assert!(matches!(error, CaError::Ledger { .. }), "{error:?}");
    }
}

/// What cannot be written is not issued: the ledger does not name a certificate that nobody has.
#[test]
fn an_identity_that_cannot_be_written_is_not_issued() {
    let lab = Cluster::new();
    let file = lab.temp.join("file");
    fs::write(&file, "").unwrap();
    let error = lab
        .ca
        .issue(&order("node/n1/1").out(file.join("x")))
        .unwrap_err();
    assert!(matches!(error, CaError::Io { .. }), "{error:?}");
    assert!(lab.ca.list().unwrap().certificates.is_empty());
}
