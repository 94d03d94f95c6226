//! Container images as files, without a container engine: one layer, and the same bytes from the same contents.
//!
//! An archive is an OCI image layout and a docker-archive in one, so `ctr images import`, `podman load`, `docker load` and
//! `skopeo` all take it:
//!
//! ```text
//!  oci-layout, index.json ─► manifest ─► config, layer      (OCI image-spec 1.1)
//!  manifest.json ─────────────────────►  config, layer      (what `docker load` reads)
//!  blobs/sha256/<digest>                                    the three
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// Where the image runs.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// When everything in it was made: the same always.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The files of an image. Owned by root, without times.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
    names: BTreeSet<String>,
    contents: Vec<(String, u64)>,
}

impl Default for Layer {
    fn default() -> Self {
        Self { tar: tar::Builder::new(Vec::new()), names: BTreeSet::new(), contents: Vec::new() }
    }
}

impl Layer {
    /// Adds a directory, and those above it; what is there stays.
    ///
    /// # Errors
    /// If a path is too long for a tar archive.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.add(path, EntryType::Directory, mode, None, &[])
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`directory`](Self::directory).
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, EntryType::Symlink, 0o777, Some(target), &[])
    }

    /// Adds a file.
    ///
    /// # Errors
    /// As [`directory`](Self::directory).
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.add(path, EntryType::Regular, mode, None, contents)
    }

    /// Adds a program of this machine.
    ///
    /// # Errors
    /// If it cannot be read; else as [`directory`](Self::directory).
    pub fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        let contents = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.file(path, 0o755, &contents)
    }

    /// The files in it and their sizes in bytes, in the order in which they were added.
    #[must_use]
    pub fn contents(&self) -> &[(String, u64)] {
        &self.contents
    }

    fn add(&mut self, path: &str, kind: EntryType, mode: u32, target: Option<&str>, contents: &[u8]) -> Result<()> {
        let path = path.trim_matches('/');
        if self.names.contains(path) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent, 0o755)?;
        }
        self.names.insert(path.to_owned());
        let what = || format!("image: add {path}");
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(contents.len() as u64);
        // A header is not zero where it was not set: owner and time are.
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        match target {
            Some(target) => self.tar.append_link(&mut header, path, target).with_context(what)?,
            None => self.tar.append_data(&mut header, path, contents).with_context(what)?,
        }
        if kind == EntryType::Regular {
            self.contents.push((path.to_owned(), contents.len() as u64));
        }
        Ok(())
    }
}

/// An image that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The digest of its manifest, `sha256:…`: what a registry would know it by.
    pub digest: String,
    /// The size of the archive in bytes.
    pub size: u64,
}

/// Writes an image to a file, all of it or nothing. `config` is what the OCI image configuration calls so: `Entrypoint`,
/// `Cmd`, `Env`, `User`, `Labels`.
///
/// # Errors
/// If the file cannot be written.
pub fn write(names: &[&str], config: &Value, layer: Layer, to: &Path) -> Result<Written> {
    let layer = layer.tar.into_inner().context("image: end its layer")?;
    let layer_digest = digest(&layer);
    let config = json!({
        "architecture": ARCHITECTURE,
        "os": "linux",
        "created": CREATED,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
    })
    .to_string()
    .into_bytes();
    let config_digest = digest(&config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config_digest, config.len()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer.len())],
    })
    .to_string()
    .into_bytes();
    let manifest_digest = digest(&manifest);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": names.iter().map(|name| {
            let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest_digest, manifest.len());
            entry["platform"] = json!({"architecture": ARCHITECTURE, "os": "linux"});
            entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
            entry
        }).collect::<Vec<Value>>(),
    });
    let blob = |digest: &str| format!("blobs/sha256/{digest}");
    let docker = json!([{"Config": blob(&config_digest), "RepoTags": names, "Layers": [blob(&layer_digest)]}]);
    let mut archive = Layer { tar: tar::Builder::new(Vec::new()), ..Layer::default() };
    archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.file("index.json", 0o644, index.to_string().as_bytes())?;
    archive.file("manifest.json", 0o644, docker.to_string().as_bytes())?;
    for (digest, contents) in [(&manifest_digest, &manifest), (&config_digest, &config), (&layer_digest, &layer)] {
        archive.file(&blob(digest), 0o644, contents)?;
    }
    let bytes = archive.tar.into_inner().context("image: end its archive")?;
    let unfinished = to.with_extension("unfinished");
    let written = File::create(&unfinished).and_then(|file| {
        let mut file = BufWriter::new(file);
        file.write_all(&bytes)?;
        file.flush()
    });
    written.and_then(|()| fs::rename(&unfinished, to)).with_context(|| format!("write {}", to.display()))?;
    Ok(Written { digest: format!("sha256:{manifest_digest}"), size: bytes.len() as u64 })
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn image(to: &Path) -> Written {
        let mut layer = Layer::default();
        layer.file("/usr/bin/program", 0o755, b"bytes").unwrap();
        layer.link("bin/program", "/usr/bin/program").unwrap();
        assert_eq!(layer.contents(), [("usr/bin/program".to_owned(), 5)]);
        write(&["localhost/x:dev", "localhost/x:two"], &json!({"Entrypoint": ["/x"]}), layer, to).unwrap()
    }

    #[test]
    fn the_same_contents_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one.tar"), dir.path().join("two.tar"));
        let written = image(&one);
        assert_eq!(image(&two), written);
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        assert_eq!(written.size, fs::metadata(&one).unwrap().len());
    }

    #[test]
    fn every_blob_is_what_its_name_says_and_all_are_referred_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.tar");
        let written = image(&file);
        let mut archive = tar::Archive::new(File::open(&file).unwrap());
        let mut files = std::collections::BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            if let Some(named) = name.strip_prefix("blobs/sha256/").filter(|rest| !rest.is_empty()) {
                assert_eq!(digest(&contents), named);
            }
            files.insert(name, contents);
        }
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let names: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["annotations"]["io.containerd.image.name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["localhost/x:dev", "localhost/x:two"]);
        assert_eq!(index["manifests"][0]["digest"], Value::String(written.digest.clone()));
        let blob = |digest: &Value| {
            &files[&format!("blobs/sha256/{}", digest.as_str().unwrap().trim_start_matches("sha256:"))]
        };
        let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0]["digest"])).unwrap();
        let config: Value = serde_json::from_slice(blob(&manifest["config"]["digest"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(config["config"]["Entrypoint"], json!(["/x"]));
        let layer = blob(&manifest["layers"][0]["digest"]).clone();
        let mut layer = tar::Archive::new(layer.as_slice());
        let paths: Vec<String> =
            layer.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(paths, ["usr", "usr/bin", "usr/bin/program", "bin", "bin/program"]);
        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert!(files.contains_key(docker[0]["Layers"][0].as_str().unwrap()));
    }
}
