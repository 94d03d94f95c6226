//! The key with which an API server signs the tokens of its service accounts. Every server has its own: a token of one
//! cluster must be worth nothing in another, in tests too.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use pem::Pem;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

/// What stands before the point of a P-256 key in a SubjectPublicKeyInfo: RFC 5480, in DER.
const P256_PUBLIC: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The files of a key pair.
pub(crate) struct Key {
    pub(crate) private: PathBuf,
    pub(crate) public: PathBuf,
}

impl Key {
    /// Makes a key pair, in two files of a directory.
    pub(crate) fn generate(dir: &Path) -> Result<Self> {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).and_then(|private| {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref(), &random);
            Ok((private, pair.map_err(|_refused| ring::error::Unspecified)?))
        });
        let (private, pair) = made.map_err(|error| anyhow!("make a key: {error}"))?;
        let public = [&P256_PUBLIC, pair.public_key().as_ref()].concat();
        let key = Self { private: dir.join("sa.key"), public: dir.join("sa.pub") };
        let files = [(&key.private, "PRIVATE KEY", private.as_ref().to_vec()), (&key.public, "PUBLIC KEY", public)];
        for (path, tag, contents) in files {
            let text = pem::encode(&Pem::new(tag, contents));
            fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(key)
    }
}
