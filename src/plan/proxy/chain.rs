//! Names of chains. A service port's and an endpoint's are hashes, because iptables allows 28 bytes
//! (`portProtoHash` and its neighbours in kube-proxy).

use sha2::{Digest, Sha256};

pub const SERVICES: &str = "KUBE-SERVICES";
pub const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
pub const NODEPORTS: &str = "KUBE-NODEPORTS";
pub const POSTROUTING: &str = "KUBE-POSTROUTING";
pub const MARK_MASQ: &str = "KUBE-MARK-MASQ";
pub const FORWARD: &str = "KUBE-FORWARD";
pub const PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";
/// Empty; kube-proxy looks whether it is still there to learn that somebody flushed the tables.
pub const CANARY: &str = "KUBE-PROXY-CANARY";
/// kubelet's, kept here by kube-proxy, too.
pub const FIREWALL: &str = "KUBE-FIREWALL";

/// 16 letters of the SHA-256 of these parts, one after the other, in base 32 (RFC 4648).
pub fn hash(parts: &[&str]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part.as_bytes()));
    // 16 letters of 5 bits each are 10 bytes.
    let bits = digest.finalize().iter().take(10).fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..16).rev().map(|i| char::from(LETTERS[(bits >> (i * 5) & 31) as usize])).collect()
}

/// The chain line, which makes a chain or, with `--noflush`, empties it.
pub fn declare(out: &mut String, chain: &str) {
    out.push(':');
    out.push_str(chain);
    out.push_str(" - [0:0]\n");
}

/// The chain that a line `-A CHAIN …` adds to.
pub fn of_line(line: &str) -> &str {
    line.strip_prefix("-A ").and_then(|rest| rest.split([' ', '\n']).next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_kube_proxys() {
        assert_eq!(hash(&["ns2/svc2:p80", "tcp"]), "GNZBNJ2PO5MGZ6GT");
        assert_eq!(hash(&["ns2/svc2:p80", "tcp", "10.180.0.2:80"]), "RS4RBKLTHTF2IUXJ");
    }

    #[test]
    fn a_lines_chain_is_its_second_word() {
        assert_eq!(of_line("-A KUBE-SERVICES -j X\n"), SERVICES);
        assert_eq!(of_line("-A KUBE-SERVICES\n"), SERVICES);
        assert_eq!(of_line(":KUBE-SERVICES - [0:0]\n"), "");
    }
}
