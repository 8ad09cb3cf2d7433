//! TLS for HTTPS probes. A certificate is checked unless the probe is `insecure`. Whoever asks trusts the lab's own
//! authority and nobody else, as programs on the lab's machines do beside those that the machine trusts.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, InvalidMessage, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Asking;
use super::outcome::Failure;
use super::socket::from_errno;
use crate::spec::probe::FailureName;

/// Agree on TLS over `stream`, which leads to `to`, for the server called `host`.
pub(super) async fn agree(
    asking: &Asking<'_>,
    stream: TcpStream,
    to: SocketAddr,
    (host, insecure): (&str, bool),
) -> Result<TlsStream<TcpStream>, Failure> {
    let tls = |why: &dyn std::fmt::Display| no_tls(to, why);
    let trusted = (!insecure).then(|| Arc::clone(&asking.field.authority));
    let config = config(trusted).map_err(|e| Failure::unasked(format!("TLS: {e}")))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(|e| tls(&e))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let done = asking.within(handshake).await;
    let done = done.ok_or_else(|| {
        asking.silence(FailureName::Timeout, format!("{to} took the connection but did not finish a TLS handshake"))
    })?;
    done.map_err(|e| match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(why) => tls(why),
        None if e.kind() == std::io::ErrorKind::UnexpectedEof => tls(&"it hung up during the handshake"),
        None => from_errno(&e, &to.to_string()),
    })
}

fn no_tls(to: SocketAddr, why: impl std::fmt::Display) -> Failure {
    Failure::new(FailureName::Tls, format!("no TLS with {to}: {why}"))
}

/// What comes of asking a server by TLS that answers in plain HTTP.
pub fn with_plain_http(to: SocketAddr) -> Failure {
    no_tls(to, rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType))
}

/// The settings of a client that trusts these authorities, or where none are given everybody.
pub fn config(trusted: Option<Arc<RootCertStore>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(match trusted {
        Some(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
        None => {
            let any = Arc::new(AnyCertificate(provider));
            builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth()
        }
    })
}

/// Takes every certificate, as `curl -k`, but still checks that the server has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
