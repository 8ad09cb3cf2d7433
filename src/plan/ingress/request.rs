//! What a request names: its host and its path, in the form in which they are compared with rules.
//!
//! Both follow nginx, whose reading of a request is what ingress-nginx' users know. A path is
//! compared decoded, with slashes merged and `.` and `..` resolved; what is passed to a pod is the
//! path as it was sent. So `/tea%2fgreen`, `//tea/green` and `/cake/../tea/green` are all below `/tea`,
//! and nobody comes around a rule by writing a path in another way.

use std::borrow::Cow;

/// A name or path that no request may have; the answer is 400. Says what is wrong.
pub type Refusal = &'static str;

/// The host that `authority` (a Host header, or what an absolute-form request has before its path)
/// names: in lower case, without port and without the dot at the end.
///
/// # Errors
/// No name, or letters that no name has (`ngx_http_validate_host`).
pub fn host_of(authority: &str) -> Result<Cow<'_, str>, Refusal> {
    if authority.bytes().any(|b| b <= b' ' || b == b'/' || b == 0x7f) || authority.contains("..") {
        return Err("the host's name has letters that no name has");
    }
    let name = without_port(authority)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.is_empty() {
        true => Err("the host has no name"),
        false if name.bytes().any(|b| b.is_ascii_uppercase()) => Ok(Cow::Owned(name.to_ascii_lowercase())),
        false => Ok(Cow::Borrowed(name)),
    }
}

fn without_port(authority: &str) -> Result<&str, Refusal> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or("the host's address has no end")?;
        return Ok(authority.get(..=end).unwrap_or(authority));
    }
    Ok(authority.split_once(':').map_or(authority, |(name, _)| name))
}

/// The path of a request as rules see it. `raw` is what stands before the `?`.
///
/// # Errors
/// A path that does not begin with `/`, a `%` without two hexadecimal digits, `%00`, and a way above the root
/// (`ngx_http_parse_complex_uri`).
pub fn normalise(raw: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    if raw.first() != Some(&b'/') {
        return Err("the path does not begin with a slash");
    }
    let plain = |pair: &[u8]| !matches!(pair, [b'/', b'/' | b'.']);
    let written = |&byte: &u8| byte != b'%' && byte != 0;
    if raw.iter().all(written) && raw.windows(2).all(plain) {
        return Ok(Cow::Borrowed(raw));
    }
    resolve(&decode(raw)?).map(Cow::Owned)
}

fn decode(raw: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(&byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|&d| char::from(d).to_digit(16));
                let both = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                both.ok_or("the path has a % without two hexadecimal digits")?
            }
            other => other,
        };
        if byte == 0 {
            return Err("the path has a zero byte");
        }
        decoded.push(byte);
    }
    Ok(decoded)
}

/// Merge slashes, drop `.`, and let `..` take the element before it away.
fn resolve(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut kept: Vec<u8> = Vec::with_capacity(path.len());
    let mut elements = path.split(|&b| b == b'/').skip(1).peekable();
    while let Some(element) = elements.next() {
        let last = elements.peek().is_none();
        match element {
            b"." | b"" => {}
            b".." => {
                let before = kept.iter().rposition(|&b| b == b'/').ok_or("the path leads above the root")?;
                kept.truncate(before);
            }
            name => {
                kept.push(b'/');
                kept.extend_from_slice(name);
            }
        }
        if last && matches!(element, b"" | b"." | b"..") {
            kept.push(b'/');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn path(raw: &str) -> String {
        String::from_utf8(normalise(raw.as_bytes()).unwrap().into_owned()).unwrap()
    }

    #[test]
    fn a_path_is_compared_decoded_merged_and_resolved() {
        for (raw, seen) in [
            ("/", "/"),
            ("/tea", "/tea"),
            ("/tea/", "/tea/"),
            ("//tea", "/tea"),
            ("/tea//", "/tea/"),
            ("/tea%2fgreen", "/tea/green"),
            ("/%74ea", "/tea"),
            ("/cake/../tea", "/tea"),
            ("/cake/%2e%2e/tea", "/tea"),
            ("/tea/..", "/"),
            ("/tea/.", "/tea/"),
            ("/./tea", "/tea"),
            ("/tea/../", "/"),
            ("/a/b/../c", "/a/c"),
            ("/.tea/..green", "/.tea/..green"),
            ("/tea%3fgreen%23", "/tea?green#"),
            ("/tea%252f", "/tea%2f"),
        ] {
            assert_eq!(path(raw), seen, "{raw}");
        }
    }

    #[test]
    fn a_path_that_means_no_harm_is_not_copied() {
        assert!(matches!(normalise(b"/tea/green.html"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn a_path_above_the_root_or_with_broken_escapes_is_refused() {
        for raw in ["/..", "/a/../..", "/%2e%2e/a", "/%", "/%4", "/%zz", "/%00", "/\0", "*", "tea", ""] {
            assert!(normalise(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_host_is_compared_without_case_port_and_last_dot() {
        for (authority, host) in [
            ("foo.com", "foo.com"),
            ("Foo.COM", "foo.com"),
            ("foo.com:8080", "foo.com"),
            ("foo.com.", "foo.com"),
            ("foo.com.:80", "foo.com"),
            ("[::1]:80", "[::1]"),
            ("10.0.0.1:80", "10.0.0.1"),
        ] {
            assert_eq!(host_of(authority), Ok(Cow::Borrowed(host)), "{authority}");
        }
    }

    #[test]
    fn a_host_without_name_or_with_wrong_letters_is_refused() {
        for authority in ["", ":80", ".", "foo..com", "foo/com", "foo com", "[::1", "foo\u{7f}"] {
            assert!(host_of(authority).is_err(), "{authority}");
        }
    }
}
