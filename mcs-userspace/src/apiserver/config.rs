//! How the cluster's own API server is reached, as flags and the Pod say.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::server::client;

/// The flags of whoever talks to the API server of the cluster that it runs in.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Kubeconfig of this cluster; by default the ServiceAccount of the Pod that this runs in.
    #[arg(long, env = "MCS_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server, in place of the one that the kubeconfig or the Pod's environment has: for clusters in which
    /// no kube-proxy serves the address of the Service `kubernetes`.
    #[arg(long, env = "MCS_API_SERVER", value_name = "URL", value_parser = url)]
    pub api_server: Option<http::Uri>,
}

impl Access {
    /// A client, for watches and writes. Nothing is asked of the API server yet.
    ///
    /// # Errors
    /// The configuration cannot be read or used.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let parsed = Kubeconfig::read_from(path).with_context(|| format!("{}: read", path.display()))?;
                kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
                    .await
                    .with_context(|| format!("{}: use", path.display()))?
            }
            // Without the Service's environment (enableServiceLinks cannot take it away, a bare container runtime does)
            // the name would do, and the URL replaces it anyway.
            None if self.api_server.is_some() && !in_pod() => kube::Config::incluster_dns().context(NO_POD)?,
            None => kube::Config::incluster().context(NO_POD)?,
        };
        if let Some(url) = &self.api_server {
            config.cluster_url = url.clone();
        }
        client(config).context("use the kubeconfig, or the Pod's ServiceAccount")
    }
}

const NO_POD: &str = "no --kubeconfig is given, and this is no Pod with a ServiceAccount";

/// Whether this process runs in a Pod, by the environment that every container of one has.
pub(crate) fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn url(text: &str) -> Result<http::Uri, String> {
    let url: http::Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (url.scheme_str(), url.authority()) {
        (Some("https" | "http"), Some(_)) => Ok(url),
        _ => Err("must be a URL like https://192.0.2.1:6443".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_servers_address_is_a_url() {
        assert!(url("https://192.0.2.1:6443").is_ok());
        assert!(url("https://[2001:db8::1]:6443").is_ok());
        for bad in ["192.0.2.1", "192.0.2.1:6443", "ftp://x", "", "https://"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
