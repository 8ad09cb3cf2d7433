//! What a controller answers itself, before it asks who stands behind a backend: redirects and refusals that the
//! chosen location's options ask for, in the order of nginx' phases.

use std::net::IpAddr;

use super::choice::Choice;

/// What is known of a request when its location has been chosen.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// See [`super::normalise`].
    pub path: &'a [u8],
    /// Whether it came by https.
    pub https: bool,
    /// From where it came, as the controller sees it.
    pub client: IpAddr,
    /// Bytes of its body, at least.
    pub body: u64,
}

/// An answer of the controller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnAnswer<'a> {
    /// 302 to this path.
    AppRoot(&'a str),
    /// 413: the body is larger than so many bytes.
    TooLarge(u64),
    /// 308 to the same by https.
    ToHttps,
    /// 403: the client is in none of the ranges that may come.
    Forbidden,
}

impl OwnAnswer<'_> {
    /// The status of HTTP.
    pub fn status(&self) -> u16 {
        match self {
            OwnAnswer::AppRoot(_) => 302,
            OwnAnswer::TooLarge(_) => 413,
            OwnAnswer::ToHttps => 308,
            OwnAnswer::Forbidden => 403,
        }
    }
}

impl<'a> Choice<'a> {
    /// What the controller answers itself to the request that this choice was made for; nothing where it goes on to
    /// [`Choice::backend`].
    pub fn own_answer(&self, arrived: &Arrived) -> Option<OwnAnswer<'a>> {
        let options = self.options();
        let root = self.app_root.filter(|_| arrived.path == b"/").map(OwnAnswer::AppRoot);
        let is_large = options.body_size > 0 && arrived.body > options.body_size;
        let is_allowed = options.allow.is_empty() || options.allow.iter().any(|range| range.contains(&arrived.client));
        root.or(is_large.then_some(OwnAnswer::TooLarge(options.body_size)))
            .or((options.ssl_redirect && !arrived.https).then_some(OwnAnswer::ToHttps))
            .or((!is_allowed).then_some(OwnAnswer::Forbidden))
    }
}
