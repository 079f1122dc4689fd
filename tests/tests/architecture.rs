//! Keeps ARCHITECTURE.md true: who may depend on whom, where `unsafe` may live, how long a file may
//! be, and under which licences we ship. Reads sources and `cargo metadata`; runs nothing.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what cannot be read fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

/// Each crate of ours and those of ours it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("locus-proto", &[]),
    ("locus-ffi", &[]),
    ("locus-table", &["locus-proto"]),
    ("locus-plugin", &["locus-proto", "locus-table"]),
    ("locus-distribution", &["locus-proto"]),
    ("locus-identity", &["locus-proto"]),
    (
        "locus-agent",
        &[
            "locus-proto",
            "locus-table",
            "locus-distribution",
            "locus-identity",
        ],
    ),
    (
        "locus-kamailio",
        &["locus-ffi", "locus-plugin", "locus-proto"],
    ),
    (
        "locsvc",
        &[
            "locus-proto",
            "locus-table",
            "locus-distribution",
            "locus-identity",
        ],
    ),
    ("locusctl", &["locus-proto", "locus-identity"]),
    // The lab and the benches may use all.
    ("locus-lab", EVERYTHING),
    ("locus-bench", EVERYTHING),
    (
        "locus-proofs",
        &["locus-proto", "locus-table", "locus-agent", "locus-lab"],
    ),
];
const EVERYTHING: &[&str] = &[
    "locus-proto",
    "locus-ffi",
    "locus-table",
    "locus-plugin",
    "locus-distribution",
    "locus-identity",
    "locus-agent",
    "locus-kamailio",
    "locsvc",
    "locusctl",
    "locus-lab",
];

/// Crates whose root says `#![forbid(unsafe_code)]`, by folder.
const FORBID_UNSAFE: &[&str] = &[
    "proto",
    "plugin",
    "plugin/table",
    "distribution",
    "identity",
    "locsvc",
    "ctl",
    "tests",
    "tests/bench",
    "tests/proofs",
];
/// Where the word `unsafe` may stand.
const UNSAFE_PLACES: &[&str] = &[
    "ffi/src",
    "kamailio-module/src/lib.rs",
    "agent/src/edge/map.rs",
    "switchd/src/edge/",
];

const FILE_LINES_MAX: usize = 800;

/// Licences whose code may be part of a GPL-2.0-or-later work. Apache-2.0 alone obliges whoever
/// conveys the whole to choose version 3 of the GPL, which "or later" allows.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "GPL-2.0-or-later",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What must not be linked into a process that carries calls: cryptography, TLS, sockets, runtimes.
/// A trailing `*` stands for any ending.
const NOT_IN_THE_MODULE: &[&str] = &[
    "aes*",
    "async-*",
    "aws-lc*",
    "axum*",
    "boring*",
    "chacha20*",
    "crossbeam*",
    "curve25519*",
    "ed25519*",
    "h2",
    "hyper*",
    "md-5",
    "mio",
    "native-tls",
    "openssl*",
    "polling",
    "quinn*",
    "rayon*",
    "rcgen",
    "reqwest",
    "ring",
    "rsa",
    "rustls*",
    "sha1*",
    "sha2",
    "smol*",
    "socket2",
    "tokio*",
    "ureq*",
];

static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
});

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn packages() -> BTreeMap<&'static str, &'static Value> {
    let packages = METADATA["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package))
        .collect()
}

/// Package id → ids of its normal (not build, not dev) dependencies.
fn normal_dependencies() -> BTreeMap<&'static str, Vec<&'static str>> {
    let nodes = METADATA["resolve"]["nodes"].as_array().unwrap();
    let normal = |dependency: &&Value| {
        dependency["dep_kinds"]
            .as_array()
            .unwrap()
            .iter()
            .any(|kind| kind["kind"].is_null())
    };
    nodes
        .iter()
        .map(|node| {
            let dependencies = node["deps"].as_array().unwrap().iter().filter(normal);
            let ids = dependencies.map(|dependency| dependency["pkg"].as_str().unwrap());
            (node["id"].as_str().unwrap(), ids.collect())
        })
        .collect()
}

fn id_of(name: &str) -> &'static str {
    let packages = packages();
    let found = packages
        .iter()
        .find(|(_, package)| package["name"] == name && package["source"].is_null());
    found
        .unwrap_or_else(|| panic!("no crate {name} in the workspace"))
        .0
}

#[test]
fn arrows_point_one_way() {
    let (packages, dependencies) = (packages(), normal_dependencies());
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let members: BTreeSet<&str> = METADATA["workspace_members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| packages[id.as_str().unwrap()]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        members, ours,
        "every crate of the workspace has its line in ARROWS"
    );
    for (name, allowed) in ARROWS {
        for id in &dependencies[id_of(name)] {
            let dependency = packages[id]["name"].as_str().unwrap();
            let fine = !ours.contains(dependency) || allowed.contains(&dependency);
            assert!(fine, "{name} must not know {dependency}");
        }
    }
}

#[test]
fn the_module_links_no_crypto_tls_or_socket_crate() {
    let (packages, dependencies) = (packages(), normal_dependencies());
    let mut open = vec![id_of("locus-kamailio")];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(&dependencies[id]);
        }
    }
    for id in seen {
        let name = packages[id]["name"].as_str().unwrap();
        let refused = NOT_IN_THE_MODULE.iter().any(|pattern| {
            pattern
                .strip_suffix('*')
                .map_or(*pattern == name, |start| name.starts_with(start))
        });
        assert!(
            !refused,
            "locus.so would link {name}: `cargo tree -i {name} -p locus-kamailio`"
        );
    }
}

#[test]
fn licences_fit_gpl_2_or_later() {
    for package in packages().values() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none stated");
        assert!(licence_fits(licence), "{name}: licence {licence:?}");
        let source = package["source"].as_str().unwrap_or("registry+ours");
        assert!(
            source.starts_with("registry+"),
            "{name} comes from {source}, not from a registry"
        );
    }
}

/// Whether one of the alternatives of an SPDX expression, with all its parts, is in [`LICENCES`].
fn licence_fits(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    let fits = |part: &str| LICENCES.contains(&part.trim());
    // Without parentheses AND binds closer than OR; with them, demanding one fitting alternative of
    // every AND part is the same for all expressions of one level.
    if expression.contains('(') {
        plain
            .split(" AND ")
            .all(|part| part.split(" OR ").any(fits))
    } else {
        plain
            .split(" OR ")
            .any(|part| part.split(" AND ").all(fits))
    }
}

#[test]
fn licence_expressions_are_understood() {
    for fine in [
        "MIT",
        "MIT OR Apache-2.0",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
    ] {
        assert!(licence_fits(fine), "{fine}");
    }
    for refused in [
        "GPL-3.0-only",
        "MIT AND OpenSSL",
        "none stated",
        "(MIT OR ISC) AND SSPL-1.0",
    ] {
        assert!(!licence_fits(refused), "{refused}");
    }
}

fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![root().to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(files.len() > ARROWS.len(), "the walk finds the sources");
    files.sort();
    files
}

#[test]
fn files_stay_readable() {
    for file in rust_files() {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let lines = text.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines",
            file.display()
        );
        assert!(
            text.starts_with("//!"),
            "{} does not begin with a //! sentence",
            file.display()
        );
    }
}

#[test]
fn unsafe_lives_at_the_boundary() {
    for folder in FORBID_UNSAFE {
        let roots = ["src/lib.rs", "src/main.rs"].map(|file| root().join(folder).join(file));
        let crate_root = roots.iter().find(|path| path.exists()).unwrap();
        let text = fs::read_to_string(crate_root).unwrap();
        let says = text.contains("#![forbid(unsafe_code)]");
        assert!(
            says,
            "{} does not say #![forbid(unsafe_code)]",
            crate_root.display()
        );
    }
    for file in rust_files() {
        let allowed = UNSAFE_PLACES.iter().any(|place| file.starts_with(place));
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let found = text.lines().position(has_unsafe).map(|line| line + 1);
        let fine = allowed || found.is_none();
        assert!(
            fine,
            "{}:{} says `unsafe`",
            file.display(),
            found.unwrap_or_default()
        );
    }
}

/// Whether a line of code (not a comment, not a text) holds the word `unsafe`.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let outside_texts: String = code.split('"').step_by(2).collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    outside_texts
        .split(|c| !is_word(c))
        .any(|word| word == "unsafe")
}

#[test]
fn the_unsafe_scan_sees_code_and_nothing_else() {
    for code in [
        "unsafe { x }",
        "#[unsafe(no_mangle)]",
        "    pub unsafe fn f() {",
    ] {
        assert!(has_unsafe(code), "{code}");
    }
    for other in ["// unsafe", "#![forbid(unsafe_code)]", "/// an unsafe call"] {
        assert!(!has_unsafe(other), "{other}");
    }
    let text = "let a = 'unsafe';".replace('\'', "\u{22}");
    assert!(!has_unsafe(&text), "{text}");
}

/// The log reader is distribution's only source of changes: what is committed while distribution is
/// stopped reaches the nodes when it starts. So provisioning cannot even name distribution.
#[test]
fn provisioning_does_not_distribute() {
    let provision = Path::new("locsvc/src/provision");
    let files: Vec<PathBuf> = rust_files()
        .into_iter()
        .filter(|file| file.starts_with(provision))
        .collect();
    assert!(
        !files.is_empty(),
        "{} holds the provisioning code",
        provision.display()
    );
    for file in files {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        for name in ["locus_distribution", "distribute::", "edge::unicast"] {
            assert!(!text.contains(name), "{} names {name}", file.display());
        }
    }
}
