//! The README names constants with their values; a reader must find both in the code.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A number, or a duration in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Number(f64),
    Micros(f64),
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Returns the value of a constant's expression, if it is as simple as most are.
fn evaluate(expression: &str) -> Option<Value> {
    let number = |text: &str| text.trim().replace('_', "").parse::<f64>().ok();
    let units = [
        ("from_micros", 1.0),
        ("from_millis", 1e3),
        ("from_secs", 1e6),
        ("from_mins", 60e6),
        ("from_hours", 3_600e6),
    ];
    for (name, micros) in units {
        if let Some(rest) = expression.strip_prefix(&format!("Duration::{name}(")) {
            return Some(Value::Micros(number(rest.strip_suffix(')')?)? * micros));
        }
    }
    if let Some((base, power)) = expression.split_once("<<") {
        return Some(Value::Number(number(base)? * number(power)?.exp2()));
    }
    let factors: Option<Vec<f64>> = expression.split('*').map(number).collect();
    Some(Value::Number(factors?.into_iter().product()))
}

/// Returns the values of all constants of this crate and of the one that speaks the protocol.
fn constants() -> BTreeMap<String, Vec<Option<Value>>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&here.join("src"), &mut files);
    sources(&here.join("../distribution/src"), &mut files);
    let mut constants: BTreeMap<String, Vec<Option<Value>>> = BTreeMap::new();
    for line in files.iter().flat_map(|file| {
        let text = read(file);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    }) {
        let Some((_, definition)) = line.trim_start().split_once("const ") else {
            continue;
        };
        let Some((name, rest)) = definition.split_once(':') else {
            continue;
        };
        let value = rest.split_once('=').map(|(_, value)| value.trim());
        let value = value.and_then(|value| evaluate(value.strip_suffix(';')?));
        constants.entry(name.to_owned()).or_default().push(value);
    }
    constants
}

/// Returns what stands directly behind a name: `(24 h)`, ` 4,096 `, or nothing that is a value.
fn said(behind: &str) -> Option<Value> {
    let text = behind.trim_start().trim_start_matches('(');
    let digit = |c: char| c.is_ascii_digit() || c == ',' || c == '.';
    let end = text.find(|c| !digit(c)).unwrap_or(text.len());
    let number = text[..end].replace(',', "");
    let number: f64 = number.trim_end_matches('.').parse().ok()?;
    let unit: String = text[end..]
        .trim_start()
        .chars()
        .take_while(|c| c.is_alphabetic())
        .collect();
    Some(match unit.as_str() {
        "ms" => Value::Micros(number * 1e3),
        "s" => Value::Micros(number * 1e6),
        "min" => Value::Micros(number * 60e6),
        "h" => Value::Micros(number * 3_600e6),
        "KiB" => Value::Number(number * 1024.0),
        _ => Value::Number(number),
    })
}

#[test]
fn every_constant_that_is_named_has_the_value_that_is_said() {
    let readme = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let constants = constants();
    let mut compared = 0;
    let mut pieces = readme.split('`');
    pieces.next();
    while let (Some(name), Some(behind)) = (pieces.next(), pieces.next()) {
        let shouted = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if !name.contains('_') || !name.chars().all(shouted) {
            continue;
        }
        let values = constants.get(name);
        assert!(values.is_some(), "{name} is no constant of the code");
        let (Some(values), Some(said)) = (values, said(behind)) else {
            continue;
        };
        assert!(
            values.iter().all(|value| *value == Some(said)),
            "the README says {said:?} of {name}, the code {values:?}"
        );
        compared += 1;
    }
    assert!(compared >= 40, "only {compared} values were found");
}
