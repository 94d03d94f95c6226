//! The system's own apt sources, read so that another suite of the same archive can be asked.
//!
//! Two formats are in use: one-line (`deb [options] URI suite component…`, in `*.list`) and deb822 stanzas
//! (`*.sources`). From either we keep what says *where* and *whom to trust*; the suite is ours to choose.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

/// An archive that the system trusts: its addresses, the suites that the system takes from it, and its keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Archive {
    uris: String,
    suites: Vec<String>,
    /// `Field: value` lines that decide about trust, as they stand in a deb822 stanza.
    trust: Vec<String>,
}

impl Archive {
    /// The archive that the running system's release comes from.
    pub(crate) fn of_the_system() -> Result<Self> {
        let codename = codename(&read(Path::new("/etc/os-release"))?)
            .context("/etc/os-release: VERSION_CODENAME: none, so this is not a Debian release")?;
        Self::of_release(Path::new("/etc/apt"), &codename)
    }

    fn of_release(apt: &Path, codename: &str) -> Result<Self> {
        let mut archives = Vec::new();
        let main = apt.join("sources.list");
        if main.exists() {
            archives.extend(one_line(&read(&main)?));
        }
        let parts = apt.join("sources.list.d");
        let mut files: Vec<_> =
            fs::read_dir(&parts).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => archives.extend(one_line(&read(&file)?)),
                Some("sources") => archives.extend(deb822(&read(&file)?)),
                Some(_) | None => {}
            }
        }
        match archives.into_iter().find(|archive| archive.suites.iter().any(|suite| suite == codename)) {
            Some(archive) => Ok(archive),
            None => bail!("{}: sources: none for suite {codename}", apt.display()),
        }
    }

    /// A sources file (deb822) for another suite of this archive.
    pub(crate) fn sources_for(&self, suite: &str) -> String {
        let mut lines = vec![
            "Types: deb".to_owned(),
            format!("URIs: {}", self.uris),
            format!("Suites: {suite}"),
            "Components: main".to_owned(),
        ];
        lines.extend(self.trust.iter().cloned());
        lines.push(String::new());
        lines.join("\n")
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

/// The release's name in an os-release file.
pub(crate) fn codename(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let value = value.trim().trim_matches('"');
    (!value.is_empty()).then(|| value.to_owned())
}

/// `deb [signed-by=… trusted=yes] URI suite component…`, one a line.
fn one_line(text: &str) -> Vec<Archive> {
    let parse = |line: &str| {
        let line = line.split('#').next()?.trim();
        let rest = line.strip_prefix("deb")?;
        if !rest.starts_with([' ', '\t', '[']) {
            return None;
        }
        let (options, rest) = match rest.trim_start().strip_prefix('[') {
            Some(bracket) => bracket.split_once(']')?,
            None => ("", rest),
        };
        let trust = options
            .split_whitespace()
            .filter_map(|option| {
                let (name, value) = option.split_once('=')?;
                let field = match name.to_ascii_lowercase().as_str() {
                    "signed-by" => "Signed-By",
                    "trusted" => "Trusted",
                    _ => return None,
                };
                Some(format!("{field}: {}", value.replace(',', " ")))
            })
            .collect();
        let mut words = rest.split_whitespace();
        Some(Archive { uris: words.next()?.to_owned(), suites: vec![words.next()?.to_owned()], trust })
    };
    text.lines().filter_map(parse).collect()
}

/// Stanzas of `Field: value`, with continuation lines that begin with a blank (an inlined key has many).
fn deb822(text: &str) -> Vec<Archive> {
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    without_comments.split(|line| line.trim().is_empty()).filter_map(stanza).collect()
}

fn stanza(lines: &[&str]) -> Option<Archive> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line);
        } else {
            let (name, value) = line.split_once(':')?;
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let words = |name| field(name).map(|value| value.split_whitespace().collect::<Vec<_>>());
    if field("enabled").is_some_and(|value| value.eq_ignore_ascii_case("no")) || !words("types")?.contains(&"deb") {
        return None;
    }
    Some(Archive {
        uris: words("uris")?.join(" "),
        suites: words("suites")?.into_iter().map(str::to_owned).collect(),
        trust: [("signed-by", "Signed-By"), ("trusted", "Trusted")]
            .into_iter()
            .filter_map(|(name, shown)| Some(format!("{shown}: {}", field(name)?)))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deb822_stanza_gives_addresses_suites_and_keyring() {
        let archives = deb822(
            "# comment\nTypes: deb\n# old address\nURIs: http://mirror.example/debian\n\
             Suites: bookworm bookworm-updates\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
             Types: deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n\n\
             Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n",
        );
        assert_eq!(archives.len(), 1);
        assert_eq!(archives[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(
            archives[0].sources_for("trixie"),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        );
    }

    #[test]
    fn an_inlined_key_is_kept_with_its_continuation_lines() {
        let archives = deb822(
            "Types: deb\nURIs: http://m.example/\nSuites: x\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n",
        );
        assert!(archives[0].sources_for("y").ends_with("Signed-By: \n -----BEGIN\n .\n abc\n"),);
    }

    #[test]
    fn one_line_sources_with_and_without_options() {
        let archives = one_line(
            "# deb http://no.example x main\ndeb http://a.example/debian bookworm main contrib # note\n\
             deb-src http://a.example/debian bookworm main\n\
             deb [arch=amd64 signed-by=/k1.gpg,/k2.gpg] http://b.example trixie main\n",
        );
        assert_eq!(archives.len(), 2);
        assert_eq!(archives[0].uris, "http://a.example/debian");
        assert!(archives[0].trust.is_empty());
        assert_eq!(archives[1].suites, ["trixie"]);
        assert_eq!(archives[1].trust, ["Signed-By: /k1.gpg /k2.gpg"]);
    }

    #[test]
    fn half_written_sources_are_passed_over() {
        assert!(one_line("deb\ndeb [signed-by=/k http://a.example\ndebx y z\ndeb http://only\n").is_empty());
        assert!(deb822(" continuation first\n\nTypes: deb\nno colon\n\nTypes: deb\n").is_empty());
    }

    #[test]
    fn the_archive_of_the_release_is_taken_not_a_vendors() {
        let apt = tempfile::tempdir().unwrap();
        let parts = apt.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        fs::write(parts.join("a-vendor.list"), "deb https://vendor.example nodistro main\n").unwrap();
        fs::write(parts.join("debian.sources.off"), "Types: deb\nURIs: http://off.example\nSuites: bookworm\n")
            .unwrap();
        assert!(Archive::of_release(apt.path(), "bookworm").is_err());
        fs::write(
            parts.join("debian.sources"),
            "Types: deb\nURIs: http://m.example\nSuites: bookworm\nComponents: main\n",
        )
        .unwrap();
        assert_eq!(Archive::of_release(apt.path(), "bookworm").unwrap().uris, "http://m.example");
    }

    #[test]
    fn the_codename_of_a_release() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"noble\"\n").as_deref(), Some("noble"));
        assert_eq!(codename("ID=arch\nVERSION_CODENAME=\n"), None);
    }
}
