//! The lab's certificate authority, worked as an operator works it: by `locusctl ca`, one command for each
//! certificate. Knows the commands, nothing of keys and certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::lab::products;

/// The cluster's name, as in scenario `cluster`.
const CLUSTER: &str = "lab";
/// The file of an identity folder that names whom to trust.
const TRUSTED: &str = "ca.pem";
/// The file of an identity folder that names what is revoked.
const REVOKED: &str = "revoked.pem";

/// A certificate authority in the run folder, and the identity folders it has filled.
#[derive(Debug)]
pub struct Authority {
    /// Where commands run; what they name lies below it.
    home: PathBuf,
    /// The words that made each identity folder.
    issued: Mutex<Vec<(Vec<String>, PathBuf)>>,
    commands: Mutex<Vec<String>>,
}

impl Authority {
    /// Makes the authority of cluster `lab` in `home`/ca.
    ///
    /// # Panics
    /// When `locusctl` refuses.
    pub(crate) fn init(home: &Path) -> Self {
        let authority = Self {
            home: home.to_owned(),
            issued: Mutex::default(),
            commands: Mutex::default(),
        };
        authority.run(&["init", CLUSTER]);
        authority
    }

    /// Has a certificate made for a location service that is reached at `host`.
    ///
    /// # Panics
    /// When `locusctl` refuses.
    pub fn locsvc(&self, name: &str, host: &str, out: &Path) {
        self.issue(&["locsvc", name, "--host", host], out);
    }

    /// Has a certificate made for a node.
    ///
    /// # Panics
    /// When `locusctl` refuses.
    pub fn node(&self, name: &str, id: u16, out: &Path) {
        self.issue(&["node", name, "--id", &id.to_string()], out);
    }

    /// Has a certificate made for an operator with `role` (`read`, `provision`, `admin`) and returns its
    /// folder.
    ///
    /// # Panics
    /// When `locusctl` refuses.
    pub fn operator(&self, name: &str, role: &str) -> PathBuf {
        let out = self.home.join("operators").join(name);
        if !out.exists() {
            self.issue(&["operator", name, "--role", role], &out);
        }
        out
    }

    /// Revokes what was issued to `holder` (`node/n3`) and brings the list to every identity folder, as an
    /// operator's configuration management does.
    ///
    /// # Panics
    /// When `locusctl` refuses or a folder cannot be written.
    pub fn revoke(&self, holder: &str) {
        self.run(&["revoke", holder]);
        self.spread(&[REVOKED]);
    }

    /// Begins to replace the authority's own key, and brings everybody word of the next one.
    ///
    /// # Panics
    /// When `locusctl` refuses or a folder cannot be written.
    pub fn rotate(&self) {
        self.run(&["rotate"]);
        self.spread(&[TRUSTED, REVOKED]);
    }

    /// Has every certificate made anew, where it lies.
    ///
    /// # Panics
    /// When `locusctl` refuses.
    pub fn renew(&self) {
        for (words, out) in self.issued().iter() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.run(&[&words[..], &["--renew", "--out", self.below(out)]].concat());
        }
    }

    /// Ends the replacement: who is known only by the previous key is known no longer.
    ///
    /// # Panics
    /// When `locusctl` refuses, as it does when somebody has not been renewed.
    pub fn retire(&self) {
        self.run(&["retire"]);
        self.spread(&[TRUSTED, REVOKED]);
    }

    fn spread(&self, files: &[&str]) {
        for file in files {
            let content = fs::read(self.home.join("ca").join(file)).expect("the authority's file");
            for (_, folder) in self.issued().iter() {
                // Whole or not at all: a daemon may be reading it.
                let (new, place) = (folder.join("new"), folder.join(file));
                fs::write(&new, &content).expect("an identity folder can be written");
                fs::rename(&new, &place).expect("an identity folder can be written");
            }
        }
    }

    fn issued(&self) -> MutexGuard<'_, Vec<(Vec<String>, PathBuf)>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn below<'a>(&self, out: &'a Path) -> &'a str {
        let below = out.strip_prefix(&self.home).unwrap_or(out);
        below.to_str().expect("the lab's paths are text")
    }

    /// The commands so far, as they were typed in the run folder.
    pub fn commands(&self) -> Vec<String> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.clone()
    }

    fn issue(&self, words: &[&str], out: &Path) {
        self.run(&[words, &["--out", self.below(out)]].concat());
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        self.issued().push((words, out.to_owned()));
    }

    fn run(&self, words: &[&str]) {
        let words = [&["ca"][..], words, &["--folder", "ca"]].concat();
        let mut command = Command::new(products().join("locusctl"));
        command.args(&words).current_dir(&self.home);
        let output = command.output().expect("locusctl can be started");
        let line = format!("locusctl {}", words.join(" "));
        assert!(
            output.status.success(),
            "{line}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.push(line);
    }
}
