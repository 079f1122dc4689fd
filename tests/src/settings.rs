//! Configuration files of the daemons: a scenario's complete file with single keys replaced.
//! Knows the shape `key = value`, not what a key means.

use std::fs;
use std::path::Path;

/// The lines of one TOML file in dotted-key form.
#[derive(Debug, Clone)]
pub struct Settings {
    lines: Vec<(String, String)>,
}

impl Settings {
    /// Reads a complete configuration file of a scenario.
    ///
    /// # Panics
    /// When the file is absent or holds anything but comments and `key = value`.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (key, value) = line.split_once('=').unwrap_or_else(|| {
                    panic!(
                        "{}: the lab reads `key = value`, not {line:?}",
                        path.display()
                    )
                });
                (key.trim().to_owned(), value.trim().to_owned())
            })
            .collect();
        Self { lines }
    }

    /// Replaces or adds `key`; `value` is written as TOML.
    pub fn set(&mut self, key: &str, value: &str) {
        if let Some(line) = self.lines.iter_mut().find(|(name, _)| name == key) {
            value.clone_into(&mut line.1);
        } else {
            self.lines.push((key.to_owned(), value.to_owned()));
        }
    }

    /// Replaces or adds `key` with a quoted text.
    pub fn set_text(&mut self, key: &str, value: &str) {
        self.set(key, &format!("{value:?}"));
    }

    /// Replaces or adds `key` with a quoted path.
    pub fn set_path(&mut self, key: &str, value: &Path) {
        self.set_text(key, &value.display().to_string());
    }

    /// Writes the file a daemon reads.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) {
        let text: String = self
            .lines
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_replaced_in_place_and_a_new_one_added() {
        let folder = std::env::temp_dir().join(format!("locus-settings-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.toml");
        fs::write(
            &path,
            "# comment\ncluster = \"lab\"\nregistrar.min_expires_s = 60\n",
        )
        .unwrap();
        let mut settings = Settings::read(&path);
        settings.set("registrar.min_expires_s", "1");
        settings.set_text("record", "/x");
        settings.write(&path);
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            text,
            "cluster = \"lab\"\nregistrar.min_expires_s = 1\nrecord = \"/x\"\n"
        );
    }
}
