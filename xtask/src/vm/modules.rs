//! Kernel modules in the order in which they can be loaded.
//!
//! Debian's packages carry no `modules.dep` (depmod writes it at installation), so the dependencies come from the
//! modules themselves: each names them in its `.modinfo` section, as `depends=a,b`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::child;

/// A module, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// The object file.
    pub(crate) object: Vec<u8>,
}

/// `wanted` and what they depend on, dependencies first. What is built into the kernel is left out.
pub(crate) fn load_order(directory: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(&directory.join("kernel"), &mut files)?;
    let list = directory.join("modules.builtin");
    let builtin: BTreeSet<String> = fs::read_to_string(&list)
        .with_context(|| format!("read {}", list.display()))?
        .lines()
        .filter_map(|line| module_name(Path::new(line)))
        .collect();
    sort(wanted, |name| match files.get(name) {
        Some(file) => object(file).map(Some),
        None if builtin.contains(name) => Ok(None),
        None => bail!("module {name}: neither a file nor built in"),
    })
}

/// Depth first: a module comes after all that it depends on. `find` gives None for what needs no loading.
fn sort(wanted: &[&str], find: impl Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<Vec<Module>> {
    fn visit(
        name: &str,
        find: &impl Fn(&str) -> Result<Option<Vec<u8>>>,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<Module>,
    ) -> Result<()> {
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        if let Some(object) = find(name)? {
            for dependency in depends(&object) {
                visit(&dependency, find, seen, order)?;
            }
            order.push(Module { name: name.to_owned(), object });
        }
        Ok(())
    }
    let mut seen = BTreeSet::new();
    let mut order = Vec::new();
    for name in wanted {
        visit(name, &find, &mut seen, &mut order)?;
    }
    Ok(order)
}

/// The names in `depends=` of a module's `.modinfo`, whose entries are strings that end with a zero byte.
fn depends(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = object.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = object[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// `veth` of `kernel/drivers/net/veth.ko.xz`.
fn module_name(file: &Path) -> Option<String> {
    let (name, compression) = file.file_name()?.to_str()?.split_once(".ko")?;
    matches!(compression, "" | ".xz").then(|| name.replace('-', "_"))
}

fn index(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
        if path.is_dir() {
            index(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

fn object(file: &Path) -> Result<Vec<u8>> {
    let read = |file: &Path| fs::read(file).with_context(|| format!("read {}", file.display()));
    if file.extension().is_none_or(|extension| extension != "xz") {
        return read(file);
    }
    let output = child::command("xz").args(["--decompress", "--stdout"]).arg(file).output().context("start xz")?;
    if !output.status.success() {
        bail!("xz {}: {}", file.display(), output.status);
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(depends: &str) -> Vec<u8> {
        format!("\u{7f}ELF…\0license=GPL\0depends={depends}\0name=x\0").into_bytes()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let find = |name: &str| {
            Ok(match name {
                "cls_bpf" => Some(fake("base,other-one")),
                "sch_ingress" => Some(fake("base")),
                "base" => Some(fake("builtin")),
                "other_one" => Some(fake("")),
                "builtin" => None,
                name => bail!("{name}: asked for"),
            })
        };
        let order = sort(&["cls_bpf", "sch_ingress", "base"], find).unwrap();
        let names: Vec<_> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["base", "other_one", "cls_bpf", "sch_ingress"]);
        assert!(sort(&["no"], find).is_err());
    }

    #[test]
    fn a_module_without_dependencies() {
        assert!(depends(&fake("")).is_empty());
        assert!(depends(b"no modinfo").is_empty());
        assert!(depends(b"\0depends=").is_empty());
    }

    #[test]
    fn names_of_files() {
        let name = |file: &str| module_name(Path::new(file));
        assert_eq!(name("a/b/nf-tables.ko.xz").as_deref(), Some("nf_tables"));
        assert_eq!(name("kernel/veth.ko").as_deref(), Some("veth"));
        assert_eq!(name("modules.order"), None);
        assert_eq!(name("x.ko.zst"), None);
    }
}
