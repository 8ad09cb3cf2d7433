//! HTTP/1.1 and HTTPS requests. An error status (400 and above) is a failed try unless the probe
//! expects a status, as for Kubernetes' own HTTP probes.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::outcome::{Answer, Details, Failure};
use super::{Asking, identity, socket, tls};
use crate::lab::probe::HttpAsk;
use crate::spec::probe::FailureName;

/// The most bytes of a body that are read; what comes after is not looked at.
const LARGEST_BODY: usize = 1 << 20;

pub async fn ask(asking: &Asking<'_>, to: SocketAddr, http: &HttpAsk) -> Result<Answer, Failure> {
    let request = request(http)?;
    let stream = socket::connect(asking, to, None).await?;
    let exchange = async {
        if http.tls {
            let stream = tls::agree(asking, stream, to, (&http.host, http.insecure)).await?;
            exchange(TokioIo::new(stream), request, to).await
        } else {
            exchange(TokioIo::new(stream), request, to).await
        }
    };
    let done = asking.within(exchange).await;
    done.unwrap_or_else(|| {
        Err(asking.silence(FailureName::Timeout, format!("{to} took the connection but gave no whole answer")))
    })
}

fn request(http: &HttpAsk) -> Result<Request<Full<Bytes>>, Failure> {
    let usual = if http.tls { 443 } else { 80 };
    let host = if http.port == usual { http.host.clone() } else { format!("{}:{}", http.host, http.port) };
    let body = Full::new(Bytes::from(http.body.clone().unwrap_or_default()));
    let mut request = Request::builder()
        .method(http.method.as_str())
        .uri(&http.path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("labctl/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(body)
        .map_err(Failure::unasked)?;
    for (name, value) in &http.headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Failure::unasked(format!("`{name}` is no header's name")))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| Failure::unasked(format!("the header {name} has a value that HTTP does not allow")))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// Send the request and read its answer, while the connection is driven beside it.
async fn exchange<S>(io: TokioIo<S>, request: Request<Full<Bytes>>, to: SocketAddr) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let fault = |e: hyper::Error| fault(&e, to);
    let (mut sender, connection) = http1::handshake(io).await.map_err(fault)?;
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(async {
        let response = sender.send_request(request).await?;
        read(response).await
    });
    let mut open = true;
    loop {
        tokio::select! {
            done = &mut talk => return Ok(answer(done.map_err(fault)?, to)),
            // Its errors come out of the request too, with more to say.
            _ = &mut connection, if open => open = false,
        }
    }
}

async fn read(mut response: Response<Incoming>) -> Result<(hyper::StatusCode, Vec<u8>), hyper::Error> {
    let mut body = Vec::new();
    while body.len() < LARGEST_BODY && !response.body().is_end_stream() {
        let Some(frame) = response.body_mut().frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            body.extend_from_slice(&data[..data.len().min(LARGEST_BODY - body.len())]);
        }
    }
    Ok((response.status(), body))
}

fn answer((status, body): (hyper::StatusCode, Vec<u8>), to: SocketAddr) -> Answer {
    let text = String::from_utf8_lossy(&body).into_owned();
    let mut details = Details { status: Some(status.as_u16()), ..Details::default() };
    identity::read(&text, &mut details);
    let error = status.is_client_error() || status.is_server_error();
    let refusal = error.then(|| refused(to, status));
    Answer { details, text: Some(text), refusal }
}

/// An answer with an error's status.
pub fn refused(to: SocketAddr, status: hyper::StatusCode) -> Failure {
    Failure::answer(FailureName::Any, format!("{to} answers {status}"))
}

/// The end of a connection in place of an answer.
pub fn hung_up(to: SocketAddr) -> Failure {
    Failure::new(FailureName::Reset, format!("{to} hung up before it had answered"))
}

/// What a broken exchange means: cut, or not HTTP.
fn fault(error: &hyper::Error, to: SocketAddr) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return match io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                Some(tls) => Failure::new(FailureName::Tls, format!("no TLS with {to}: {tls}")),
                None => socket::from_errno(io, &to.to_string()),
            };
        }
        cause = inner.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return hung_up(to);
    }
    Failure::new(FailureName::Protocol, format!("{to} answers what is not HTTP: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::probe::Target;

    fn ask(port: u16) -> HttpAsk {
        HttpAsk {
            tls: false,
            host: "cafe.example.com".into(),
            to: Target::Name("cafe.example.com".into()),
            to_port: port,
            port,
            path: "/tea?x=1".into(),
            method: "POST".into(),
            headers: [("X-Asker".to_owned(), "me".to_owned())].into(),
            body: Some("milk".into()),
            insecure: false,
        }
    }

    #[test]
    fn a_request_is_what_a_browser_would_send() {
        let made = request(&ask(80)).expect("a request");
        assert_eq!((made.method().as_str(), made.uri().to_string().as_str()), ("POST", "/tea?x=1"));
        assert_eq!(made.headers()[HOST], "cafe.example.com");
        assert_eq!(made.headers()["x-asker"], "me");
        assert_eq!(request(&ask(8080)).expect("a request").headers()[HOST], "cafe.example.com:8080");
    }

    #[test]
    fn a_written_host_header_wins_and_a_bad_one_is_said() {
        let mut other = ask(80);
        other.headers.insert("host".into(), "tea".into());
        assert_eq!(request(&other).expect("a request").headers()[HOST], "tea");
        other.headers.insert("a b".into(), "x".into());
        assert!(request(&other).expect_err("a blank in a name").text.contains("`a b`"));
    }
}
