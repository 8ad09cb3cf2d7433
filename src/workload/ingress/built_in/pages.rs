//! What the controller says itself: a small page that tells the status, who answered and why, because a
//! bare "503" leaves it open whether the pod or the controller said so.

use hyper::StatusCode;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Response, body::Bytes};

use super::body::Answer;

/// An answer of the controller's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub status: StatusCode,
    /// A sentence's part, behind "The ingress controller answered this: ".
    pub why: String,
    pub location: Option<String>,
    /// Whether nothing can follow on this connection.
    pub close: bool,
    /// Whether the virtual host has a certificate of its own.
    pub secured: bool,
}

impl Page {
    pub fn new(status: StatusCode, why: impl Into<String>) -> Page {
        Page { status, why: why.into(), location: None, close: false, secured: false }
    }

    pub fn redirect(status: StatusCode, to: String) -> Page {
        Page { location: Some(to.clone()), ..Page::new(status, format!("the page is at {to}")) }
    }

    pub fn closing(self) -> Page {
        Page { close: true, ..self }
    }

    fn html(&self) -> String {
        // Codes without a name exist.
        let title = match self.status.canonical_reason() {
            Some(reason) => format!("{} {reason}", self.status.as_u16()),
            None => self.status.as_u16().to_string(),
        };
        format!(
            "<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n\
            <p>The ingress controller answered this: {}.</p>\n</body>\n</html>\n",
            escape(&self.why)
        )
    }

    /// As hyper sends it.
    pub fn response(&self) -> Response<Answer> {
        let mut response = Response::new(Answer::page(Bytes::from(self.html())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        if let Some(location) = self.location.as_deref().and_then(|to| HeaderValue::try_from(to).ok()) {
            headers.insert(LOCATION, location);
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_who_answered_and_why_and_runs_nothing() {
        let page = Page::new(StatusCode::SERVICE_UNAVAILABLE, "no endpoint of <script>");
        let html = page.html();
        assert!(html.contains("<h1>503 Service Unavailable</h1>"), "{html}");
        assert!(html.contains("The ingress controller answered this: no endpoint of &lt;script&gt;."), "{html}");
    }
}
