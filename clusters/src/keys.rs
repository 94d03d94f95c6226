//! A cluster's certificate authorities, keys, certificates and kubeconfigs, as files in one directory. They are made once
//! and kept as long as the cluster: who holds an admin's kubeconfig can use it after every restart.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::shape::Cluster;

/// The names by which pods know the API server.
const API_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// The directory of a cluster's keys.
pub(crate) struct Keys {
    directory: PathBuf,
}

impl Keys {
    /// Makes a cluster's keys, or takes those that are there.
    pub(crate) fn ensure(cluster: &Cluster, directory: PathBuf) -> Result<Self> {
        let keys = Self { directory };
        // Written last: without it what is there is only a part.
        let complete = keys.directory.join("complete");
        if !complete.is_file() {
            fs::create_dir_all(&keys.directory).with_context(|| format!("make {}", keys.directory.display()))?;
            keys.make(cluster).with_context(|| format!("keys of cluster {}", cluster.name))?;
            fs::write(&complete, "").with_context(|| format!("write {}", complete.display()))?;
        }
        Ok(keys)
    }

    /// One of its files: `ca.crt`, `admin.key`, ….
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn make(&self, cluster: &Cluster) -> Result<()> {
        let ca = self.authority("ca", &format!("mcsk-{}", cluster.name))?;
        let front = self.authority("front", &format!("mcsk-{}-front", cluster.name))?;
        let (v4, v6) = cluster.control_plane();
        let service = cluster.service_of_api();
        let addresses: [IpAddr; 4] = [v4.into(), v6.into(), Ipv4Addr::LOCALHOST.into(), service.into()];
        self.certify(&ca, "apiserver", "kube-apiserver", None, &addresses, &API_NAMES)?;
        self.certify(&ca, "kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), &[], &[])?;
        self.certify(&front, "front-client", "front-proxy-client", None, &[], &[])?;
        self.certify(&ca, "admin", "kubernetes-admin", Some("system:masters"), &[], &[])?;
        for component in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
            self.certify(&ca, component, &format!("system:{component}"), None, &[], &[])?;
        }
        for node in cluster.nodes() {
            let (v4, v6) = node.addresses();
            let user = format!("system:node:{}", node.name);
            self.certify(&ca, &node.name, &user, Some("system:nodes"), &[v4.into(), v6.into()], &[&node.name])?;
        }
        let tokens = KeyPair::generate()?;
        self.write("sa.key", &tokens.serialize_pem())?;
        self.write("sa.pub", &tokens.public_key_pem())
    }

    fn authority(&self, file: &str, name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
        let mut params = params(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        self.write(&format!("{file}.key"), &key.serialize_pem())?;
        let authority = CertifiedIssuer::self_signed(params, key)?;
        self.write(&format!("{file}.crt"), &authority.pem())?;
        Ok(authority)
    }

    fn certify(
        &self,
        issuer: &CertifiedIssuer<'static, KeyPair>,
        file: &str,
        user: &str,
        group: Option<&str>,
        addresses: &[IpAddr],
        names: &[&str],
    ) -> Result<()> {
        let mut params = params(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        let key = KeyPair::generate()?;
        let certificate: Certificate = params.signed_by(&key, issuer)?;
        self.write(&format!("{file}.key"), &key.serialize_pem())?;
        self.write(&format!("{file}.crt"), &certificate.pem())
    }

    /// The kubeconfig of one of the certificates' users, with the files' contents in it.
    pub(crate) fn kubeconfig(&self, cluster: &str, user: &str, server: &str) -> Result<String> {
        let inline = |file: String| {
            let path = self.file(&file);
            fs::read(&path).map(|contents| base64(&contents)).with_context(|| format!("read {}", path.display()))
        };
        let name = format!("{cluster}-{user}");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster, "cluster": {
                "server": server,
                "certificate-authority-data": inline("ca.crt".to_owned())?,
            }}],
            "users": [{"name": name, "user": {
                "client-certificate-data": inline(format!("{user}.crt"))?,
                "client-key-data": inline(format!("{user}.key"))?,
            }}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": name}}],
            "current-context": cluster,
        });
        Ok(format!("{config:#}\n"))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        write_secret(&self.file(file), text)
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("write {}", path.display()))
}

/// Several kubeconfigs as one with a context for each.
pub(crate) fn merge(configs: &[String]) -> Result<String> {
    let mut merged: Option<serde_json::Value> = None;
    for config in configs {
        let config: serde_json::Value = serde_json::from_str(config).context("a kubeconfig")?;
        let Some(merged) = &mut merged else {
            merged = Some(config);
            continue;
        };
        for list in ["clusters", "users", "contexts"] {
            if let (Some(all), Some(more)) = (merged[list].as_array_mut(), config[list].as_array()) {
                all.extend(more.iter().cloned());
            }
        }
    }
    Ok(format!("{:#}\n", merged.context("no kubeconfig")?))
}

fn params(user: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn keys_are_made_once_and_kubeconfigs_hold_them() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = &Shape::default().clusters().unwrap()[0];
        let keys = Keys::ensure(cluster, dir.path().join("pki")).unwrap();
        let before = fs::read(keys.file("c0n1.crt")).unwrap();
        let keys = Keys::ensure(cluster, dir.path().join("pki")).unwrap();
        assert_eq!(fs::read(keys.file("c0n1.crt")).unwrap(), before);
        let [one, two] = ["admin", "c0n0"].map(|user| keys.kubeconfig("c0", user, "https://127.0.0.1:1").unwrap());
        assert!(keys.kubeconfig("c0", "nobody", "https://127.0.0.1:1").is_err());
        let merged: serde_json::Value = serde_json::from_str(&merge(&[one, two]).unwrap()).unwrap();
        assert_eq!(merged["users"].as_array().unwrap().len(), 2);
        assert_eq!(merged["users"][1]["name"], "c0-c0n0");
        assert!(merge(&[]).is_err());
    }
}
