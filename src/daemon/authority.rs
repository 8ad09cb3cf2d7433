//! The lab's certificate authority: it signs the certificates of secrets that a lab asks for and
//! nobody brought. Its key is made when the first is wanted and lives as long as the lab's daemon, in memory alone.
//! Which secrets those are is decided in [`crate::lab::ingress`].

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::objects::ObjectKey;
use crate::plan::ingress::Certificate;

/// One lab's authority.
#[derive(Default)]
pub struct Authority {
    issuer: OnceCell<CertifiedIssuer<'static, KeyPair>>,
    /// What was signed, with the names that it was signed for.
    issued: RefCell<BTreeMap<ObjectKey, (Vec<String>, Certificate)>>,
    /// What is shown for names without a certificate.
    fake: OnceCell<Certificate>,
}

impl Authority {
    /// The authority's own certificate in PEM.
    ///
    /// # Errors
    /// No randomness to make a key of.
    pub fn pem(&self) -> Result<String, Error> {
        Ok(self.issuer()?.pem())
    }

    /// The certificate of `secret` for `names`; the same as before where the names are.
    ///
    /// # Errors
    /// No randomness, or a name that no certificate can have.
    pub fn certificate(&self, secret: &ObjectKey, names: &[String]) -> Result<Certificate, Error> {
        let known = self.issued.borrow().get(secret).filter(|(of, _)| of == names).map(|(_, known)| known.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let issuer = self.issuer()?;
        let key = KeyPair::generate()?;
        let mut params = server(names.to_vec(), &secret.to_string())?;
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&key, issuer)?;
        let certificate = Certificate { chain: signed.pem() + &issuer.pem(), key: key.serialize_pem() };
        self.issued.borrow_mut().insert(secret.clone(), (names.to_vec(), certificate.clone()));
        Ok(certificate)
    }

    /// Somebody has deleted `secret`: where it is still wanted, another one is signed.
    pub fn forget(&self, secret: &ObjectKey) {
        self.issued.borrow_mut().remove(secret);
    }

    /// The certificate for names without one, signed by nobody; its name is ingress-nginx', so that
    /// who finds it in a browser finds the explanation.
    ///
    /// # Errors
    /// No randomness to make a key of.
    pub fn fake(&self) -> Result<Certificate, Error> {
        if let Some(fake) = self.fake.get() {
            return Ok(fake.clone());
        }
        let key = KeyPair::generate()?;
        let params = server(vec!["ingress.local".to_owned()], "Kubernetes Ingress Controller Fake Certificate")?;
        let fake = Certificate { chain: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
        Ok(self.fake.get_or_init(|| fake).clone())
    }

    fn issuer(&self) -> Result<&CertifiedIssuer<'static, KeyPair>, Error> {
        if let Some(issuer) = self.issuer.get() {
            return Ok(issuer);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = named("labctl lab authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 12, 31));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(self.issuer.get_or_init(|| issuer))
    }
}

/// A server's certificate for `names`.
fn server(names: Vec<String>, subject: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named(subject);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 12, 31));
    Ok(params)
}

fn named(subject: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // X.520 allows a common name 64 letters, and some readers insist.
    name.push(DnType::CommonName, subject.chars().take(64).collect::<String>());
    name
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn openssl_believes_the_authority_and_nobody_believes_the_fake() {
        let authority = Authority::default();
        let ca = file(&authority.pem().unwrap());
        let signed =
            authority.certificate(&ObjectKey::new("default", "cafe"), &names(&["*.cafe.example.com"])).unwrap();
        let verify = |chain: &str| {
            let leaf = file(chain);
            let mut openssl = Command::new("openssl");
            openssl.args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "a.cafe.example.com"]);
            openssl.arg("-CAfile").arg(ca.path()).arg(leaf.path()).output().unwrap()
        };
        let good = verify(&signed.chain);
        assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
        assert!(!verify(&authority.fake().unwrap().chain).status.success());
    }

    #[test]
    fn a_certificate_stays_as_long_as_its_names_do() {
        let authority = Authority::default();
        let secret = ObjectKey::new("default", "cafe");
        let first = authority.certificate(&secret, &names(&["a.example.com"])).unwrap();
        assert_eq!(authority.certificate(&secret, &names(&["a.example.com"])).unwrap(), first);
        assert_ne!(authority.certificate(&secret, &names(&["b.example.com"])).unwrap(), first);
    }
}
