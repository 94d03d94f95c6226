//! What a member needs to talk to its broker, and where it lies: a Secret in the member's system namespace.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use thiserror::Error;

use crate::clusterset::local::SYSTEM_NAMESPACE;

/// Name of the Secret in [`SYSTEM_NAMESPACE`].
pub const SECRET: &str = "mcs-broker";

/// Name of the ConfigMap in [`SYSTEM_NAMESPACE`] with the keys [`CLUSTER`], [`CLUSTERSET`] and [`CIDRS`]: what `mcs join`
/// decided, for people and for `mcs controller`.
pub const CONFIG_MAP: &str = "mcs-clusterset";

/// Key of the Secret and the ConfigMap: the member's cluster id.
pub const CLUSTER: &str = "cluster";
/// Key of the Secret and the ConfigMap: the ClusterSet's id.
pub const CLUSTERSET: &str = "clusterset";
/// Key of the ConfigMap: the ClusterSet's CIDRs, comma separated.
pub const CIDRS: &str = "cidrs";

/// Annotation of the ConfigMap: the time at which `mcs approve-withdrawal` was said.
pub const APPROVE_WITHDRAWAL: &str = "mcs.internal/approve-withdrawal";

/// Name of the member's ServiceAccount in its namespace at the broker.
pub const SERVICE_ACCOUNT: &str = "member";

/// How long a token lives, seconds: 30 days. The member renews it at half its life.
pub const TOKEN_LIFE: i64 = 30 * 24 * 60 * 60;

const SERVER: &str = "server";
const CA: &str = "ca.crt";
const TOKEN: &str = "token";
const EXPIRES: &str = "expires";
const TLS_SERVER_NAME: &str = "tls-server-name";
const INSECURE: &str = "insecure-skip-tls-verify";
const PROXY_URL: &str = "proxy-url";
const NAMESPACE: &str = "namespace";

/// How a member reaches its broker, and as whom.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// URL of the broker's API server.
    pub server: String,
    /// PEM certificates that the server's is checked against; the system's if empty.
    pub ca: String,
    /// Bearer token of [`SERVICE_ACCOUNT`] in `namespace`.
    pub token: String,
    /// When the token ends, Unix seconds; 0 if nobody knows.
    pub expires: i64,
    /// The name that the server's certificate is checked for; that of the URL if none.
    pub tls_server_name: Option<String>,
    /// Whether the server's certificate is checked at all.
    pub insecure_skip_tls_verify: bool,
    /// HTTP proxy on the way.
    pub proxy_url: Option<String>,
    /// The member's namespace at the broker: [`crate::clusterset::record::member_namespace`] of `cluster`.
    pub namespace: String,
    /// The member's id.
    pub cluster: String,
    /// The ClusterSet's id.
    pub clusterset: String,
}

/// What is wrong with a Secret that should hold [`Credentials`].
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A key that must be there is not.
    #[error("Secret {SYSTEM_NAMESPACE}/{SECRET}: {0}: missing: run `mcs join` again")]
    Missing(&'static str),
    /// A key cannot be read.
    #[error("Secret {SYSTEM_NAMESPACE}/{SECRET}: {field}: {reason}")]
    Malformed {
        /// The key.
        field: &'static str,
        /// What is wrong with its value, without the value.
        reason: String,
    },
}

impl Credentials {
    /// Reads the Secret.
    ///
    /// # Errors
    /// `server`, `token`, `namespace`, `cluster` or `clusterset` is missing, or something is not text, or no number.
    pub fn from_secret(secret: &Secret) -> Result<Self, CredentialsError> {
        let data = Data(secret);
        Ok(Self {
            server: data.required(SERVER)?,
            ca: data.text(CA)?.unwrap_or_default(),
            token: data.required(TOKEN)?,
            expires: match data.text(EXPIRES)? {
                None => 0,
                Some(text) => text.parse().map_err(|_not_a_number| malformed(EXPIRES, "is not Unix seconds"))?,
            },
            tls_server_name: data.text(TLS_SERVER_NAME)?,
            insecure_skip_tls_verify: match data.text(INSECURE)?.as_deref() {
                None | Some("false") => false,
                Some("true") => true,
                Some(_) => return Err(malformed(INSECURE, "is neither true nor false")),
            },
            proxy_url: data.text(PROXY_URL)?,
            namespace: data.required(NAMESPACE)?,
            cluster: data.required(CLUSTER)?,
            clusterset: data.required(CLUSTERSET)?,
        })
    }

    /// The Secret, complete with its name; keys that say nothing are left out.
    #[must_use]
    pub fn to_secret(&self) -> Secret {
        let Self {
            server,
            ca,
            token,
            expires,
            tls_server_name,
            insecure_skip_tls_verify,
            proxy_url,
            namespace,
            cluster,
            clusterset,
        } = self;
        let mut data = BTreeMap::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
            }
        };
        put(SERVER, server);
        put(CA, ca);
        put(TOKEN, token);
        put(EXPIRES, &expires.to_string());
        put(TLS_SERVER_NAME, tls_server_name.as_deref().unwrap_or_default());
        put(INSECURE, if *insecure_skip_tls_verify { "true" } else { "" });
        put(PROXY_URL, proxy_url.as_deref().unwrap_or_default());
        put(NAMESPACE, namespace);
        put(CLUSTER, cluster);
        put(CLUSTERSET, clusterset);
        Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                namespace: Some(SYSTEM_NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..Secret::default()
        }
    }

    /// The configuration of a client that speaks as this member to the broker. Proxies of this process' environment do
    /// not count: what the broker's kubeconfig said at join does.
    ///
    /// # Errors
    /// The server, the proxy or the CA cannot be read.
    pub fn client_config(&self) -> Result<kube::Config, CredentialsError> {
        let server = self.server.parse().map_err(|error| malformed(SERVER, error))?;
        let mut config = kube::Config::new(server);
        config.default_namespace.clone_from(&self.namespace);
        config.auth_info.token = Some(self.token.clone().into());
        config.accept_invalid_certs = self.insecure_skip_tls_verify;
        config.tls_server_name.clone_from(&self.tls_server_name);
        config.proxy_url = match &self.proxy_url {
            None => None,
            Some(url) => Some(url.parse().map_err(|error| malformed(PROXY_URL, error))?),
        };
        if !self.ca.is_empty() {
            config.root_cert = Some(certificates(&self.ca)?);
        }
        Ok(config)
    }
}

/// The certificates of a PEM text, in DER.
fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, CredentialsError> {
    let blocks = pem::parse_many(pem).map_err(|error| malformed(CA, error))?;
    let certificates: Vec<_> =
        blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect();
    if certificates.is_empty() {
        return Err(malformed(CA, "no CERTIFICATE in it"));
    }
    Ok(certificates)
}

fn malformed(field: &'static str, reason: impl fmt::Display) -> CredentialsError {
    CredentialsError::Malformed { field, reason: reason.to_string() }
}

/// A Secret's keys.
struct Data<'a>(&'a Secret);

impl Data<'_> {
    fn text(&self, key: &'static str) -> Result<Option<String>, CredentialsError> {
        let bytes = self.0.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        let text =
            bytes.map(String::from_utf8).transpose().map_err(|_the_value_is_secret| malformed(key, "is not text"))?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn required(&self, key: &'static str) -> Result<String, CredentialsError> {
        self.text(key)?.ok_or(CredentialsError::Missing(key))
    }
}

/// Without the token.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("server", &self.server)
            .field("expires", &self.expires)
            .field("tls_server_name", &self.tls_server_name)
            .field("insecure_skip_tls_verify", &self.insecure_skip_tls_verify)
            .field("proxy_url", &self.proxy_url)
            .field("namespace", &self.namespace)
            .field("clusterset", &self.clusterset)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            server: "https://broker.example:6443".to_owned(),
            ca: "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n".to_owned(),
            token: "very secret".to_owned(),
            expires: 1_800_000_000,
            tls_server_name: Some("kubernetes".to_owned()),
            insecure_skip_tls_verify: true,
            proxy_url: Some("http://proxy.example:3128/".to_owned()),
            namespace: "mcs-east".to_owned(),
            cluster: "east".to_owned(),
            clusterset: "prod".to_owned(),
        }
    }

    #[test]
    fn secrets_keep_everything() {
        let full = credentials();
        assert_eq!(Credentials::from_secret(&full.to_secret()).unwrap(), full);
        let least = Credentials {
            ca: String::new(),
            expires: 0,
            tls_server_name: None,
            insecure_skip_tls_verify: false,
            proxy_url: None,
            ..credentials()
        };
        assert_eq!(Credentials::from_secret(&least.to_secret()).unwrap(), least);
    }

    #[test]
    fn bad_secrets_are_told_by_their_key_and_never_by_their_value() {
        let with = |key: &str, value: Option<&[u8]>| {
            let mut secret = credentials().to_secret();
            let data = secret.data.as_mut().unwrap();
            match value {
                Some(value) => data.insert(key.to_owned(), ByteString(value.to_vec())),
                None => data.remove(key),
            };
            Credentials::from_secret(&secret).unwrap_err().to_string()
        };
        assert_eq!(with("token", None), "Secret mcs-system/mcs-broker: token: missing: run `mcs join` again");
        assert_eq!(with("token", Some(b"\xff")), "Secret mcs-system/mcs-broker: token: is not text");
        assert_eq!(with("expires", Some(b"soon")), "Secret mcs-system/mcs-broker: expires: is not Unix seconds");
        assert!(with("insecure-skip-tls-verify", Some(b"yes")).ends_with("is neither true nor false"));
        assert!(!format!("{:?}", credentials()).contains("very secret"));
    }

    #[test]
    fn clients_use_the_settings_of_the_brokers_kubeconfig() {
        let config = credentials().client_config().unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://broker.example:6443/");
        assert_eq!(config.root_cert, Some(vec![vec![0, 1, 2]]));
        assert_eq!(config.tls_server_name.as_deref(), Some("kubernetes"));
        assert!(config.accept_invalid_certs);
        assert_eq!(config.proxy_url.unwrap().to_string(), "http://proxy.example:3128/");
        assert_eq!(config.default_namespace, "mcs-east");

        let broken = Credentials { ca: "no certificate".to_owned(), ..credentials() };
        assert!(broken.client_config().unwrap_err().to_string().contains("ca.crt"));
        let broken = Credentials { server: "https://a b".to_owned(), ..credentials() };
        assert!(broken.client_config().unwrap_err().to_string().contains("server"));
    }
}
