//! An operator at a terminal: types `locusctl`, sees what it prints. Knows no answer's meaning.

use std::path::{Path, PathBuf};

use crate::lab::products;
use crate::locsvc::Locsvc;
use crate::netns::Namespace;

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its exit code, `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub text: String,
    /// Standard error.
    pub errors: String,
}

impl Told {
    /// What it printed, whose command must have succeeded.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.text, self.errors);
        self.text
    }
}

/// An operator of one location service.
#[derive(Debug, Clone)]
pub struct Operator {
    namespace: Namespace,
    url: String,
    identity: Option<PathBuf>,
}

impl Operator {
    /// An operator on the host of `locsvc` itself, where the API is on loopback.
    pub fn beside(locsvc: &Locsvc) -> Self {
        Self {
            namespace: locsvc.namespace().clone(),
            url: locsvc.url(),
            identity: None,
        }
    }

    /// An operator at a host of the network, with the identity in folder `identity`.
    pub fn at(host: &Namespace, locsvc: &Locsvc, identity: &Path) -> Self {
        Self {
            namespace: host.clone(),
            url: locsvc.url(),
            identity: Some(identity.to_owned()),
        }
    }

    /// Runs `locusctl` with `words`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn types(&self, words: &[&str]) -> Told {
        let mut command = self.namespace.command(products().join("locusctl"));
        command.args(["--server", &self.url]);
        if let Some(identity) = &self.identity {
            command.arg("--identity").arg(identity);
        }
        let output = command
            .args(words)
            .output()
            .expect("locusctl can be started");
        Told {
            code: output.status.code(),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
