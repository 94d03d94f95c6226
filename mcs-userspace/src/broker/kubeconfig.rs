//! How an API server is reached: a kubeconfig, or, at the broker, the credentials of a member or of one that is to be.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::config::{Cluster, KubeConfigOptions, Kubeconfig};
use serde::{Deserialize, Serialize};

/// How long a server may take to accept a connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Where an API server is and how its certificate is checked: what of a kubeconfig is no secret.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// URL.
    pub server: String,
    /// PEM certificates; the system's if empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// The name that the certificate is checked for, if not that of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// Whether the certificate is checked at all.
    #[serde(default)]
    pub insecure_skip_tls_verify: bool,
    /// HTTP proxy on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
}

/// A kubeconfig's current context, connected.
#[derive(Clone)]
pub struct Context {
    /// Speaks with the kubeconfig's credentials.
    pub client: Client,
    /// The server that it names.
    pub server: Server,
}

impl Context {
    /// Reads a kubeconfig. Files that it names are read relative to it.
    ///
    /// # Errors
    /// It cannot be read, or has no current context, or that one no server.
    pub async fn read(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("kubeconfig {}", path.display());
        let kubeconfig = Kubeconfig::read_from(path).with_context(what)?;
        let server = Server::of(&kubeconfig).with_context(what)?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(what)?;
        let client = client(config).with_context(what)?;
        Ok(Self { client, server })
    }
}

impl Server {
    /// The server of the current context.
    fn of(kubeconfig: &Kubeconfig) -> anyhow::Result<Self> {
        let current = kubeconfig.current_context.as_deref().context("current-context: not set")?;
        let named = kubeconfig.contexts.iter().find(|context| context.name == current);
        let context = named.and_then(|named| named.context.as_ref());
        let context = context.with_context(|| format!("context {current}: does not exist"))?;
        let named = kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster);
        let cluster = named.and_then(|named| named.cluster.as_ref());
        let cluster = cluster.with_context(|| format!("cluster {}: does not exist", context.cluster))?;
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(Self {
            server: said(&cluster.server).with_context(|| format!("cluster {}: server: not set", context.cluster))?,
            ca: certificate_authority(cluster)?,
            tls_server_name: said(&cluster.tls_server_name),
            insecure_skip_tls_verify: cluster.insecure_skip_tls_verify.unwrap_or_default(),
            proxy_url: said(&cluster.proxy_url),
        })
    }
}

/// A client of a verb: somebody waits for each of its answers.
///
/// # Errors
/// TLS or the proxy cannot be set up as the configuration says.
pub fn client(mut config: kube::Config) -> anyhow::Result<Client> {
    config.connect_timeout = Some(CONNECTED_WITHIN);
    config.read_timeout = Some(ANSWERED_WITHIN);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}

/// The PEM text itself: its file is on the machine of whoever joins, not on the member's.
fn certificate_authority(cluster: &Cluster) -> anyhow::Result<String> {
    if let Some(data) = cluster.certificate_authority_data.as_deref().filter(|data| !data.is_empty()) {
        let bytes = STANDARD.decode(data.trim()).context("certificate-authority-data")?;
        return String::from_utf8(bytes).map_err(|_binary| anyhow!("certificate-authority-data: is no PEM text"));
    }
    match cluster.certificate_authority.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("certificate-authority: {path}")),
        None => Ok(String::new()),
    }
}

/// An error of a client in one line: what the API server said, or why it did not.
#[must_use]
pub fn why(error: kube::Error) -> anyhow::Error {
    if let kube::Error::Api(status) = &error
        && !status.message.is_empty()
    {
        return anyhow!("{}", status.message);
    }
    anyhow::Error::new(error)
}

/// Whether an error is the API server's word with this HTTP code.
#[must_use]
pub fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Server> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), "a certificate\n").unwrap();
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, text).unwrap();
        Server::of(&Kubeconfig::read_from(&path).unwrap())
    }

    const TEXT: &str = "
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: broker, user: admin}}, {name: bad, context: {cluster: none}}]
clusters:
- name: other
  cluster: {server: https://192.0.2.1}
- name: broker
  cluster: {server: https://192.0.2.2:6443, certificate-authority: ca.pem, tls-server-name: kubernetes, proxy-url: http://p:1}
users: [{name: admin, user: {token: t}}]
";

    #[test]
    fn the_current_contexts_server_is_taken_with_its_files() {
        let server = read(TEXT).unwrap();
        let expected = Server {
            server: "https://192.0.2.2:6443".to_owned(),
            ca: "a certificate\n".to_owned(),
            tls_server_name: Some("kubernetes".to_owned()),
            insecure_skip_tls_verify: false,
            proxy_url: Some("http://p:1".to_owned()),
        };
        assert_eq!(server, expected);
        let inline = TEXT.replace("certificate-authority: ca.pem", "certificate-authority-data: UEVNCg==");
        assert_eq!(read(&inline).unwrap().ca, "PEM\n");
        let insecure = TEXT.replace("certificate-authority: ca.pem", "insecure-skip-tls-verify: true");
        let insecure = read(&insecure).unwrap();
        assert!(insecure.insecure_skip_tls_verify && insecure.ca.is_empty());
    }

    #[test]
    fn what_is_missing_is_told_by_its_name() {
        let why = |text: &str| format!("{:#}", read(text).unwrap_err());
        assert_eq!(why(&TEXT.replace("current-context: here", "")), "current-context: not set");
        assert_eq!(why(&TEXT.replace("t: here\n", "t: there\n")), "context there: does not exist");
        assert_eq!(why(&TEXT.replace("t: here\n", "t: bad\n")), "cluster none: does not exist");
    }
}
