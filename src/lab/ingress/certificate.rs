//! What a secret's certificate is worth: whether it is one, belongs to its key, for which names it is
//! and for how long. Who signed it is not asked, as a server does not.

use std::time::SystemTime;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::objects::validate::config::{TLS, TLS_CRT, TLS_KEY};

use super::SecretData;

/// A certificate that a server can show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The DNS names that it is for (subjectAltName), such as `cafe.example.com` and `*.example.com`.
    pub names: Vec<String>,
    /// The common name of its subject, which clients no longer look at.
    pub common_name: Option<String>,
    /// When it begins and ends to be valid, in seconds since 1970.
    pub valid: (i64, i64),
    /// The same days as people write them.
    pub days: (String, String),
}

/// Why a secret has no certificate that a server can show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("is of the type {0}, which holds no certificate")]
    Type(String),
    #[error("has no `{0}`")]
    Missing(&'static str),
    #[error("has no certificate in `tls.crt`: {0}")]
    NoCertificate(String),
    #[error("has no key in `tls.key`: {0}")]
    NoKey(String),
    #[error("has a key that does not belong to its certificate")]
    OtherKey,
}

/// The certificate of a secret that a server can show. Its chain and key are the fields `tls.crt` and
/// `tls.key`, both in PEM, the server's own certificate first.
///
/// # Errors
/// Why there is none.
pub fn read(secret: &SecretData) -> Result<Certificate, Unfit> {
    let field = |name: &'static str| secret.data.get(name).ok_or(Unfit::Missing(name));
    // Old examples have it as Opaque, which controllers take.
    let (chain, key) = match (field(TLS_CRT), field(TLS_KEY)) {
        (Ok(chain), Ok(key)) => (chain, key),
        _ if secret.kind != TLS && secret.kind != "Opaque" => return Err(Unfit::Type(secret.kind.clone())),
        (chain, key) => (chain?, key?),
    };
    let pair = pair(chain, key)?;
    let first = pair.cert.first().ok_or(Unfit::NoCertificate(NOT_IN_PEM.to_owned()))?;
    parse_x509_certificate(first).map(|(_, first)| describe(&first)).map_err(no_certificate)
}

const NOT_IN_PEM: &str = "it is not in PEM";

fn no_certificate(why: impl std::fmt::Display) -> Unfit {
    Unfit::NoCertificate(why.to_string())
}

/// A certificate chain and its key, both in PEM, as a server shows them.
///
/// # Errors
/// What cannot be read, or does not belong together.
pub fn pair(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, Unfit> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(no_certificate)?;
    if chain.is_empty() {
        return Err(no_certificate(NOT_IN_PEM));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => Unfit::NoKey("it is not in PEM, or has a password".to_owned()),
        other => Unfit::NoKey(other.to_string()),
    })?;
    let key = any_supported_type(&key).map_err(|e| Unfit::NoKey(e.to_string()))?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        // Some kinds of keys do not tell their public half.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(Error::InconsistentKeys(_)) => Err(Unfit::OtherKey),
        Err(other) => Err(no_certificate(other)),
    }
}

fn describe(certificate: &X509Certificate) -> Certificate {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|found| &found.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().next();
    let (begin, end) = (certificate.validity().not_before, certificate.validity().not_after);
    Certificate {
        names: names.collect(),
        common_name: common.and_then(|c| c.as_str().ok()).map(str::to_ascii_lowercase),
        valid: (begin.timestamp(), end.timestamp()),
        days: (begin.to_datetime().date().to_string(), end.to_datetime().date().to_string()),
    }
}

/// How a certificate's time stands to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    NotYet,
    Valid,
    Expired,
}

impl Certificate {
    /// Whether it is one for `host`, a name or a wildcard, as RFC 9525 has it: a wildcard stands
    /// for one label, and the common name counts for nothing.
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| fits(name, host))
    }

    /// Whether it names `host` only as its common name.
    pub fn has_it_as_common_name(&self, host: &str) -> bool {
        !self.covers(host) && self.common_name.as_deref().is_some_and(|name| fits(name, host))
    }

    pub fn age(&self, now: SystemTime) -> Age {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        match self.valid {
            (begin, _) if now < begin => Age::NotYet,
            (_, end) if now > end => Age::Expired,
            _ => Age::Valid,
        }
    }
}

/// Whether a certificate's name, in small letters, stands for `host`.
fn fits(name: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let parent = || host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, rest)| rest);
    name == host || name.strip_prefix("*.").is_some_and(|wildcard| Some(wildcard) == parent())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn made(names: &[&str], common_name: &str, end: i32) -> (String, KeyPair) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(end, 1, 1));
        let key = KeyPair::generate().expect("a key");
        (params.self_signed(&key).expect("a certificate").pem(), key)
    }

    fn secret(kind: &str, fields: &[(&str, &str)]) -> SecretData {
        let data = fields.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        SecretData { kind: kind.to_owned(), data: data.collect() }
    }

    #[test]
    fn names_are_those_of_the_subject_alternative_name() {
        let (chain, key) = made(&["cafe.example.com", "*.tea.example.com"], "old.example.com", 2049);
        let read = read(&secret(TLS, &[(TLS_CRT, &chain), (TLS_KEY, &key.serialize_pem())])).expect("fit");
        for host in ["cafe.example.com", "CAFE.example.com", "green.tea.example.com", "*.tea.example.com"] {
            assert!(read.covers(host), "{host}");
        }
        for host in ["example.com", "tea.example.com", "a.green.tea.example.com", "old.example.com", "*.example.com"] {
            assert!(!read.covers(host), "{host}");
        }
        assert!(read.has_it_as_common_name("old.example.com") && !read.has_it_as_common_name("cafe.example.com"));
        assert_eq!(read.days, ("2020-01-01".to_owned(), "2049-01-01".to_owned()));
    }

    #[test]
    fn a_certificate_has_its_time() {
        let (chain, key) = made(&["a"], "a", 2021);
        let read = read(&secret("Opaque", &[(TLS_CRT, &chain), (TLS_KEY, &key.serialize_pem())])).expect("fit");
        let at = |seconds| read.age(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        // 2017, 2020 and 2022.
        assert_eq!((at(1_500_000_000), at(1_590_000_000), at(1_650_000_000)), (Age::NotYet, Age::Valid, Age::Expired));
    }

    #[test]
    fn what_a_server_cannot_show_is_said() {
        let (chain, key) = made(&["a"], "a", 2049);
        let (_, other) = made(&["a"], "a", 2049);
        let (key, other) = (key.serialize_pem(), other.serialize_pem());
        let told = |kind: &str, fields: &[(&str, &str)]| read(&secret(kind, fields)).expect_err("unfit");
        assert_eq!(told("kubernetes.io/dockerconfigjson", &[]), Unfit::Type("kubernetes.io/dockerconfigjson".into()));
        assert_eq!(told("Opaque", &[(TLS_KEY, &key)]), Unfit::Missing(TLS_CRT));
        assert_eq!(told("Opaque", &[(TLS_CRT, &chain)]), Unfit::Missing(TLS_KEY));
        assert_eq!(told(TLS, &[(TLS_CRT, &chain), (TLS_KEY, &other)]), Unfit::OtherKey);
        let broken = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n";
        for bad in ["", "YWJj", broken, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(told(TLS, &[(TLS_CRT, bad), (TLS_KEY, &key)]), Unfit::NoCertificate(_)), "{bad}");
        }
        let chain_broken = format!("{chain}{}", broken.replace("YWJj", "!"));
        let bad = told(TLS, &[(TLS_CRT, &chain_broken), (TLS_KEY, &key)]);
        assert!(matches!(bad, Unfit::NoCertificate(_)), "the whole chain is read: {bad}");
        let broken = "-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n";
        for bad in ["", "YWJj", broken, &chain] {
            assert!(matches!(told(TLS, &[(TLS_CRT, &chain), (TLS_KEY, bad)]), Unfit::NoKey(_)), "{bad}");
        }
    }
}
