//! `locusctl ca` as an operator or a script runs it: a cluster's certificates from the first to a rotated CA.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use locus_identity::IdentityFolder;
use serde_json::Value;

/// A folder that goes with its test.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let name = format!("locusctl-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn ca(&self) -> PathBuf {
        self.0.join("ca")
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_locusctl"))
            .arg("ca")
            .args(line.split(' '))
            .env("LOCUS_CA", self.ca())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn says(&self, line: &str, parts: &[&str]) {
        let output = self.run(line);
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{line}: {errors}"
        );
        for part in parts {
            assert!(text.contains(part), "{line}: {part:?} in {text}");
        }
    }

    #[track_caller]
    fn refuses(&self, line: &str, part: &str) {
        let output = self.run(line);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {errors}");
        assert!(output.stdout.is_empty(), "{line}");
        assert!(
            errors.starts_with("locusctl: ") && errors.contains(part),
            "{line}: {errors}"
        );
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        let output = self.run(&format!("{line} --json"));
        assert!(output.status.success(), "{line}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn identity(folder: &Path) -> String {
    IdentityFolder::open(folder).unwrap().identity().to_string()
}

#[test]
fn a_cluster_gets_its_certificates() {
    let temp = Temp::new("issue");
    temp.refuses("list", "locusctl ca init CLUSTER");
    temp.says(
        "init lab",
        &["CA of cluster lab made in", "keep it on one machine"],
    );
    temp.refuses("init lab", "never over another one");
    temp.says("list", &["cluster lab", "nothing has been issued"]);
    temp.says(
        "locsvc m1",
        &["No --host was given", "/etc/locus/identity on m1"],
    );
    temp.says(
        "locsvc m2 --host 10.0.0.2 --host m2.net",
        &["locsvc/m2: certificate"],
    );
    temp.refuses(
        "locsvc m3 --host http://x",
        "neither an IP address nor a DNS name",
    );
    temp.says("node n1 --id 7", &["node/n1/7: certificate", "mode 600"]);
    temp.refuses("node n2 --id 7", "number 7 belongs to node n1");
    temp.refuses("node n1 --id 7", "--renew");
    temp.says(
        "operator al --role provision",
        &["locusctl --identity FOLDER"],
    );
    let out = temp.0.join("s1");
    temp.says(
        &format!("switch s1 --out {} --days 9", out.display()),
        &["switch/s1: certificate"],
    );
    temp.says(
        "list",
        &["operator/al/provision", "10.0.0.2 m2.net", "8 d 23 h"],
    );
    for (folder, expected) in [
        (temp.ca().join("issued/locsvc-m1"), "locus:lab/locsvc/m1"),
        (temp.ca().join("issued/node-n1"), "locus:lab/node/n1/7"),
        (
            temp.ca().join("issued/operator-al"),
            "locus:lab/operator/al/provision",
        ),
        (out, "locus:lab/switch/s1"),
    ] {
        assert_eq!(identity(&folder), expected);
    }
}

#[test]
fn certificates_are_renewed_revoked_and_the_ca_rotated() {
    let temp = Temp::new("rotate");
    temp.says("init lab --days 100", &[]);
    let first = temp.json("node n1 --id 1");
    assert_eq!(
        (&first["holder"], &first["state"]),
        (&"node/n1/1".into(), &"valid".into())
    );
    let serial = first["serial"].as_str().unwrap();
    let folder = temp.ca();
    let command = format!("locusctl ca --folder {} revoke {serial}", folder.display());
    temp.says(
        "node n1 --id 1 --renew",
        &["The earlier certificate", &command],
    );
    temp.says(
        &format!("revoke {serial}"),
        &[&format!("revoked {serial} (node/n1/1)"), "revoked.pem"],
    );
    temp.refuses(&format!("revoke {serial}"), "nothing to revoke");
    temp.refuses("revoke n2", "no certificate is n2");
    temp.refuses("retire", "there is only one CA");
    temp.says(
        "rotate",
        &["CA 2 signs from now on; CA 1 is still trusted", "ca.pem"],
    );
    temp.refuses("retire", "node/n1/1 would be cut off");
    temp.says("node n1 --id 1 --renew", &[]);
    temp.says("retire", &["CA 1 is retired"]);
    let list = temp.json("list");
    let states = |of: &str| {
        let list = list[of].as_array().unwrap();
        list.iter()
            .map(|one| one["state"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(states("authorities"), ["retired", "current"]);
    assert_eq!(states("certificates"), ["revoked", "retired", "valid"]);
    assert!(list["certificates"][0]["revoked"].is_string());
    assert_eq!(
        identity(&folder.join("issued/node-n1")),
        "locus:lab/node/n1/1"
    );
}

#[test]
fn a_refusal_is_json_too() {
    let temp = Temp::new("json");
    let output = temp.run("list --json");
    assert_eq!(output.status.code(), Some(1));
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["code"], "no_ca");
}
