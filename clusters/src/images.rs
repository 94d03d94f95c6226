//! The images that the clusters run, put together from programs of this machine: no registry is asked.
//!
//! | image | for |
//! | --- | --- |
//! | `registry.k8s.io/pause:3.10` | every pod |
//! | `registry.k8s.io/coredns/coredns:v1.15.0` | names |
//! | `registry.k8s.io/e2e-test-images/agnhost:2.63.0` | Kubernetes' own test server: `netexec`, `serve-hostname`, … |
//! | `localhost/tools:dev` | test pods: sh, curl, dig, nslookup, nc, socat, iperf3, ip, ss, tcpdump |

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::archive::{self, Layer};
use crate::directories::Directories;
use crate::network::capture;

/// Every pod's first container.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";
/// What answers for names.
pub const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.15.0";
/// Kubernetes' test server.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// What test pods ask with.
pub const TOOLS: &str = "localhost/tools:dev";

const BUSYBOX: &str = "/bin/busybox";
/// Paths in the tools image and programs of this machine. Debian's busybox shell calls its own nc and nslookup whatever the
/// PATH says, so the shell is dash.
const PROGRAMS: [(&str, &str); 10] = [
    ("bin/sh", "/bin/dash"),
    ("usr/bin/curl", "/usr/bin/curl"),
    ("usr/bin/dig", "/usr/bin/dig"),
    ("usr/bin/nslookup", "/usr/bin/nslookup"),
    ("usr/bin/nc", "/usr/bin/nc.openbsd"),
    ("usr/bin/socat", "/usr/bin/socat"),
    ("usr/bin/iperf3", "/usr/bin/iperf3"),
    ("usr/bin/tcpdump", "/usr/bin/tcpdump"),
    ("usr/sbin/ip", "/usr/sbin/ip"),
    ("usr/sbin/ss", "/usr/bin/ss"),
];

/// One image: the file it is written to, its name, what is read for it, and how it is made.
struct Recipe {
    file: &'static str,
    name: &'static str,
    inputs: Vec<PathBuf>,
    config: Value,
    make: fn(&Directories, &mut Layer) -> Result<()>,
}

/// Writes those images that are missing or older than what is in them; says which.
///
/// # Errors
/// If a program is missing, or a file cannot be read or written.
pub fn ensure(directories: &Directories) -> Result<Vec<&'static str>> {
    let images = directories.images();
    fs::create_dir_all(&images).with_context(|| format!("make {}", images.display()))?;
    let mut made = Vec::new();
    for recipe in recipes(directories)? {
        let (archive, stamp) =
            (images.join(format!("{}.tar", recipe.file)), images.join(format!("{}.of", recipe.file)));
        let state = state(&recipe)?;
        if archive.is_file() && fs::read_to_string(&stamp).is_ok_and(|stamped| stamped == state) {
            continue;
        }
        let mut layer = Layer::default();
        (recipe.make)(directories, &mut layer)
            .and_then(|()| archive::write(&[recipe.name], &recipe.config, layer, &archive))
            .with_context(|| format!("image {}", recipe.name))?;
        fs::write(&stamp, state).with_context(|| format!("write {}", stamp.display()))?;
        made.push(recipe.name);
    }
    Ok(made)
}

fn recipes(directories: &Directories) -> Result<Vec<Recipe>> {
    let path = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    let (pause, coredns, agnhost) =
        (directories.program("pause")?, directories.program("coredns")?, directories.program("agnhost")?);
    let tools = PROGRAMS.iter().map(|(_, program)| PathBuf::from(program)).chain([BUSYBOX.into()]).collect();
    Ok(vec![
        Recipe {
            file: "pause",
            name: PAUSE,
            inputs: vec![pause],
            config: json!({"Entrypoint": ["/pause"], "User": "65535:65535"}),
            make: |directories, layer| layer.program("pause", &directories.program("pause")?),
        },
        Recipe {
            file: "coredns",
            name: COREDNS,
            inputs: vec![coredns],
            config: json!({"Entrypoint": ["/coredns"]}),
            make: |directories, layer| layer.program("coredns", &directories.program("coredns")?),
        },
        Recipe {
            file: "agnhost",
            name: AGNHOST,
            inputs: vec![agnhost, BUSYBOX.into()],
            config: json!({"Entrypoint": ["/agnhost"], "Cmd": ["pause"], "Env": path}),
            make: |directories, layer| {
                layer.program("agnhost", &directories.program("agnhost")?)?;
                busybox(layer)
            },
        },
        Recipe {
            file: "tools",
            name: TOOLS,
            inputs: tools,
            config: json!({"Cmd": ["sh"], "Env": path}),
            make: |_, layer| {
                for (path, program) in PROGRAMS {
                    linked(layer, path, Path::new(program))?;
                }
                busybox(layer)
            },
        },
    ])
}

/// What stands for the inputs: any change of a program changes it.
fn state(recipe: &Recipe) -> Result<String> {
    let mut state = format!("{} {}\n", recipe.name, recipe.config);
    for input in &recipe.inputs {
        let metadata = fs::metadata(input).with_context(|| format!("image {}: {}", recipe.name, input.display()))?;
        let _infallible = writeln!(
            state,
            "{} {} bytes of {}.{}",
            input.display(),
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
    }
    Ok(state)
}

/// busybox under all its names that are not taken, and what programs expect of a file system.
fn busybox(layer: &mut Layer) -> Result<()> {
    for directory in ["bin", "sbin", "usr/bin", "usr/sbin", "etc", "root", "var", "proc", "sys", "dev"] {
        layer.directory(directory, 0o755)?;
    }
    layer.directory("tmp", 0o1777)?;
    let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    layer.file("etc/passwd", 0o644, users.as_bytes())?;
    layer.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    layer.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n")?;
    layer.program("bin/busybox", Path::new(BUSYBOX))?;
    let taken: Vec<String> =
        layer.contents().iter().filter_map(|(path, _)| Some(path.rsplit_once('/')?.1.to_owned())).collect();
    for name in capture(Command::new(BUSYBOX).arg("--list"))?.lines() {
        if !taken.iter().any(|taken| taken == name) {
            layer.link(&format!("bin/{name}"), "busybox")?;
        }
    }
    Ok(())
}

/// A program with the shared libraries that it needs, at their own paths.
fn linked(layer: &mut Layer, path: &str, program: &Path) -> Result<()> {
    ensure!(program.is_file(), "{}: not there", program.display());
    layer.program(path, program)?;
    for library in libraries(&capture(Command::new("ldd").arg(program))?) {
        layer.program(library, &fs::canonicalize(library).with_context(|| format!("find {library}"))?)?;
    }
    Ok(())
}

/// The paths in what `ldd` says: `libc.so.6 => /lib/x/libc.so.6 (0x…)`, `/lib64/ld.so (0x…)`.
fn libraries(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibgone.so => not found\n";
        let found: Vec<&str> = libraries(said).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
