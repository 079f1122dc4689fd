//! Builds the boundary against exactly the installed Kamailio: bindings, shim, version and flag strings.
//!
//! It knows where a source tree may lie and how Kamailio spells its version; it knows nothing of the crate's
//! Rust. A missing or wrong tree ends the build with one line that says what to do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

/// What went wrong and what to do about it, in one line.
type Complaint = String;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=wrapper.h");
    println!("cargo:rerun-if-changed=shim.h");
    println!("cargo:rerun-if-changed=shim.c");
    println!("cargo:rerun-if-changed=flags");
    println!("cargo:rerun-if-env-changed=KAMAILIO_SRC");
    if let Err(complaint) = build() {
        println!("cargo::error={complaint}");
        process::exit(1);
    }
}

fn build() -> Result<(), Complaint> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let tree = source_tree()?;
    let version = tree_version(&tree)?;
    let flags = flags(&version)?;
    let (full_version, compile_flags) = identity(&tree, &flags, &out)?;
    compare_with_installed(&full_version, &compile_flags)?;
    bindings(&tree, &flags, &out)?;
    shim(&tree, &flags);
    fs::write(
        out.join("identity.rs"),
        identity_source(&full_version, &compile_flags),
    )
    .map_err(|e| format!("cannot write identity.rs: {e}"))
}

fn variable(name: &str) -> Result<String, Complaint> {
    env::var(name).map_err(|_| format!("{name} is not set; build with cargo"))
}

/// Finds the `src` folder of the Kamailio tree: `KAMAILIO_SRC`, else what `make deps` unpacked.
fn source_tree() -> Result<PathBuf, Complaint> {
    let holds_core = |tree: &Path| tree.join("core/sr_module.h").is_file();
    if let Ok(named) = env::var("KAMAILIO_SRC") {
        let named = PathBuf::from(named);
        return [named.clone(), named.join("src")]
            .into_iter()
            .find(|tree| holds_core(tree))
            .ok_or_else(|| {
                format!(
                    "KAMAILIO_SRC={} holds no Kamailio tree (core/sr_module.h is missing)",
                    named.display()
                )
            });
    }
    let fetched = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../target/kamailio/src");
    println!(
        "cargo:rerun-if-changed={}",
        fetched.join("src/Makefile.defs").display()
    );
    let tree = fetched.join("src");
    if holds_core(&tree) {
        return Ok(tree);
    }
    Err("Kamailio's headers are missing: run `make deps` (ffi/fetch-headers.sh), or set KAMAILIO_SRC to the \
         source tree of the installed version"
        .to_owned())
}

/// Reads VERSION.PATCHLEVEL.SUBLEVEL from the tree's `Makefile.defs`.
fn tree_version(tree: &Path) -> Result<String, Complaint> {
    let path = tree.join("Makefile.defs");
    let text =
        fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let number = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    match (number("VERSION"), number("PATCHLEVEL"), number("SUBLEVEL")) {
        (Some(a), Some(b), Some(c)) => Ok(format!("{a}.{b}.{c}")),
        _ => Err(format!("{} states no version", path.display())),
    }
}

/// Reads the -D flags with which that version was built.
fn flags(version: &str) -> Result<Vec<String>, Complaint> {
    let path = Path::new("flags").join(format!("{version}.txt"));
    let text = fs::read_to_string(&path).map_err(|_| {
        format!(
            "Kamailio {version} is not supported: ffi/{} is missing. To add it, take the -D flags of one module's gcc line \
             (`make -n`) and check them against `kamailio -V`",
            path.display()
        )
    })?;
    Ok(text
        .lines()
        .map(str::to_owned)
        .filter(|line| !line.is_empty())
        .collect())
}

/// Lets the preprocessor say what the core compares at load time: version and compile flags.
fn identity(tree: &Path, flags: &[String], out: &Path) -> Result<(String, String), Complaint> {
    let probe = out.join("identity.c");
    fs::write(&probe, "#include \"core/ver_defs.h\"\nLOCUS_VERSION SER_FULL_VERSION\nLOCUS_FLAGS SER_COMPILE_FLAGS\nLOCUS_END\n")
        .map_err(|e| format!("cannot write {}: {e}", probe.display()))?;
    let mut compiler = cc::Build::new();
    compiler.cargo_metadata(false).include(tree).file(&probe);
    for flag in flags {
        compiler.flag(flag);
    }
    let expanded = compiler
        .try_expand()
        .map_err(|e| format!("the C preprocessor failed: {e}"))?;
    let expanded = String::from_utf8_lossy(&expanded).into_owned();
    let literals = |from: &str, to: &str| -> Option<String> {
        let (_, rest) = expanded.rsplit_once(from)?;
        let (part, _) = rest.split_once(to)?;
        // Adjacent string literals: every second piece between quotes.
        let code: Vec<&str> = part.lines().filter(|line| !line.starts_with('#')).collect();
        Some(code.join(" ").split('"').skip(1).step_by(2).collect())
    };
    match (
        literals("LOCUS_VERSION", "LOCUS_FLAGS"),
        literals("LOCUS_FLAGS", "LOCUS_END"),
    ) {
        (Some(version), Some(flags)) if !version.is_empty() && !flags.is_empty() => {
            Ok((version, flags))
        }
        _ => Err(
            "cannot expand SER_FULL_VERSION and SER_COMPILE_FLAGS from core/ver_defs.h".to_owned(),
        ),
    }
}

/// Compares what the tree says with what the installed binary says, so that a mismatch is met at build time.
fn compare_with_installed(version: &str, flags: &str) -> Result<(), Complaint> {
    for path in ["/usr/sbin/kamailio", "/usr/local/sbin/kamailio"] {
        if Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let search = format!(
        "{}:/usr/sbin:/usr/local/sbin",
        env::var("PATH").unwrap_or_default()
    );
    let Ok(answer) = Command::new("kamailio")
        .arg("-V")
        .env("PATH", search)
        .output()
    else {
        println!(
            "cargo::warning=kamailio is not installed here: version and flags were not compared"
        );
        return Ok(());
    };
    let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
    let line = |tag: &str| {
        answer
            .lines()
            .find_map(|line| line.strip_prefix(tag))
            .unwrap_or("")
            .trim()
            .to_owned()
    };
    for (what, ours, theirs) in [
        ("version", version, line("version:")),
        ("flags", flags, line("flags:")),
    ] {
        if ours.trim() != theirs {
            return Err(format!(
                "the source tree is not that of the installed Kamailio: {what} `{}` here, `{theirs}` installed; run `make deps` again",
                ours.trim()
            ));
        }
    }
    Ok(())
}

fn bindings(tree: &Path, flags: &[String], out: &Path) -> Result<(), Complaint> {
    bindgen::Builder::default()
        .header("wrapper.h")
        .clang_arg(format!("-I{}", tree.display()))
        .clang_args(["-I.", "-w"])
        .clang_args(flags)
        .allowlist_function("shim_.*|fixup_spve_null|fixup_free_spve_null")
        .allowlist_type(
            "shim_.*|module_exports|cmd_export|param_export|rpc_export|sr_kemi|_pv_export|_str",
        )
        .allowlist_var("SHIM_.*|PARAM_STR|PARAM_INT|SR_KEMIP_INT|SR_KEMIP_STR|MODULE_INTERFACE_VER")
        .allowlist_var("ANY_ROUTE|L_ERR|L_WARN|L_NOTICE|L_INFO|L_DBG")
        // Their inside is the shim's business alone.
        .opaque_type("sip_msg|_pv_spec|_pv_param|_pv_value|rpc")
        .layout_tests(true)
        .derive_default(true)
        .derive_debug(true)
        .generate()
        .map_err(|e| format!("bindgen: {e}"))?
        .write_to_file(out.join("bindings.rs"))
        .map_err(|e| format!("cannot write the bindings: {e}"))
}

fn shim(tree: &Path, flags: &[String]) {
    let mut compiler = cc::Build::new();
    compiler
        .file("shim.c")
        .include(tree)
        .include(".")
        .warnings(false)
        .flag("-Werror=implicit-function-declaration")
        .flag("-Werror=incompatible-pointer-types")
        .flag("-Werror=int-conversion")
        .flag("-fvisibility=hidden")
        .flag("-fno-strict-overflow")
        .flag("-fno-strict-aliasing")
        // Unit tests run without Kamailio: what they do not call must not want its symbols.
        .flag("-ffunction-sections");
    for flag in flags {
        compiler.flag(flag);
    }
    compiler.compile("locus_ffi_shim");
}

fn identity_source(version: &str, flags: &str) -> String {
    let mut text = String::new();
    for (name, value, doc) in [
        (
            "FULL_VERSION",
            version,
            "The version string that the core compares at load time.",
        ),
        (
            "COMPILE_FLAGS",
            flags,
            "The compile flags that the core compares at load time.",
        ),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "/// {doc}\npub const {name}: &::core::ffi::CStr = c{value:?};"
        );
    }
    text
}
