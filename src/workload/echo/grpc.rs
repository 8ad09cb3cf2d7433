//! gRPC on the echo server: the health checking protocol, by which readiness probes of the kind `grpc`
//! ask. Every service is healthy here; other methods are not there.

use std::convert::Infallible;

use http_body_util::combinators::WithTrailers;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};

use super::http::Reply;

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// A HealthCheckResponse with SERVING, not compressed, of two bytes.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
/// gRPC's code UNIMPLEMENTED.
const UNIMPLEMENTED: HeaderValue = HeaderValue::from_static("12");
const OK: HeaderValue = HeaderValue::from_static("0");
const GRPC: &str = "application/grpc";

/// A whole body with its trailers.
type Whole = WithTrailers<Full<Bytes>, std::future::Ready<Option<Result<HeaderMap, Infallible>>>>;
/// An answer to gRPC, or one of the echo server's others.
pub type Answered = Response<Either<Whole, Reply>>;

/// The answer to a request of gRPC; nothing where it is none.
pub fn answer(request: &Request<Incoming>) -> Option<Answered> {
    let content = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    if !content.starts_with(GRPC) {
        return None;
    }
    let (body, status) = match request.uri().path() {
        CHECK => (SERVING, OK),
        _ => (&[][..], UNIMPLEMENTED),
    };
    let trailers = HeaderMap::from_iter([(hyper::header::HeaderName::from_static("grpc-status"), status)]);
    let body = Full::new(Bytes::from_static(body)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Either::Left(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    Some(response)
}
