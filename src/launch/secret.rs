//! What the processes of a run know and strangers do not: proofs of it by HMAC-SHA-256, and numbers that are used once.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use sha2::{Digest as _, Sha256};

/// Bytes of a hash's block: what a key is padded to.
const BLOCK: usize = 64;

/// The text that all processes of a run know; empty where they need none.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A secret of a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// HMAC-SHA-256 (RFC 2104) of the parts, each with its length before it.
    pub(super) fn proof(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut key = [0; BLOCK];
        if self.0.len() > BLOCK {
            key[..32].copy_from_slice(&Sha256::digest(&self.0));
        } else {
            key[..self.0.len()].copy_from_slice(&self.0);
        }
        let mut inner = Sha256::new();
        inner.update(key.map(|byte| byte ^ 0x36));
        for part in parts {
            inner.update((part.len() as u64).to_le_bytes());
            inner.update(part);
        }
        let mut outer = Sha256::new();
        outer.update(key.map(|byte| byte ^ 0x5c));
        outer.update(inner.finalize());
        outer.finalize().into()
    }
}

/// Whether two proofs are equal, in a time that does not depend on where they differ.
pub(super) fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |found, (a, b)| found | (a ^ b)) == 0
}

/// 32 bytes that nobody can guess and that do not come again: hashed from the keys that the system gives hash maps.
#[must_use]
pub fn nonce() -> [u8; 32] {
    let mut digest = Sha256::new();
    // Each thread draws its keys from the system once.
    for _ in 0..4 {
        let drawn = std::thread::spawn(|| RandomState::new().hash_one(std::process::id())).join();
        digest.update(drawn.unwrap_or_default().to_le_bytes());
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    digest.update(now.unwrap_or_default().as_nanos().to_le_bytes());
    digest.update(RandomState::new().hash_one(0_u8).to_le_bytes());
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::{Secret, equal};

    #[test]
    fn another_secret_or_another_text_gives_another_proof() {
        let proof = |secret: &str, parts: &[&[u8]]| Secret::new(secret).proof(parts);
        assert!(equal(&proof("a", &[b"x", b"y"]), &proof("a", &[b"x", b"y"])));
        assert!(!equal(&proof("a", &[b"x", b"y"]), &proof("a", &[b"xy", b""])));
        assert!(!equal(&proof("a", &[b"x"]), &proof("b", &[b"x"])));
        assert!(!equal(&proof(&"a".repeat(65), &[b"x"]), &proof(&"a".repeat(66), &[b"x"])));
    }
}
