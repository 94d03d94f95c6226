//! Where etcd and Kubernetes' programs lie: in `KUBEBUILDER_ASSETS`, as the ecosystem has it, else where `cargo xtask setup`
//! puts them, `mcs/bin` of the user's cache.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

/// The program that keeps the API server's objects.
pub const ETCD: &str = "etcd";
/// The API server.
pub const API_SERVER: &str = "kube-apiserver";
/// Kubernetes' own controllers.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// The directories that may hold a program, the first first.
fn directories() -> impl Iterator<Item = PathBuf> {
    let named = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")));
    named("KUBEBUILDER_ASSETS").into_iter().chain(cache.map(|cache| cache.join("mcs/bin")))
}

/// The file of a program.
pub fn find(program: &str) -> Result<PathBuf> {
    match directories().map(|dir| dir.join(program)).find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("{program}: neither in KUBEBUILDER_ASSETS nor in the cache: run `cargo xtask setup`"),
    }
}

/// Why no API server can be started here, or `None` if one can.
#[must_use]
pub fn missing() -> Option<String> {
    [ETCD, API_SERVER, CONTROLLER_MANAGER].into_iter().find_map(|program| find(program).err()).map(|e| e.to_string())
}

/// Returns from the calling test if there are no programs for an API server: with a visible `SKIP:` line by hand, with a
/// panic under `CI=true`.
#[macro_export]
macro_rules! require_api_server {
    () => {
        if let Some(why) = $crate::apiserver::missing() {
            let thread = ::std::thread::current();
            $crate::privilege::skip(thread.name().unwrap_or("test"), &why);
            return;
        }
    };
}
