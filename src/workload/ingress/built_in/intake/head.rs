//! The head of an HTTP/1 request, judged before hyper reads it: where the message ends must have one
//! meaning only.
//!
//! RFC 9112 lets a server be lenient in ways that are harmless for it alone and dangerous for one that
//! passes requests on: another reader behind it may see another end, and take the rest for a request
//! of its own. hyper accepts a bare LF, a `Content-Length` beside a `Transfer-Encoding` and the same
//! length twice. Here all that is refused, as nginx refuses most of it.

/// Bytes of a head, the request line included: what nginx' `large_client_header_buffers 4 8k` has room for.
pub const MAX_HEAD: usize = 32 << 10;
/// Bytes of a request line.
const MAX_LINE: usize = 8 << 10;
/// Header lines; hyper's own limit, whose answer would say nothing.
const MAX_HEADERS: usize = 100;

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// 400, 408, 414, 431 or 501.
    pub status: u16,
    pub why: &'static str,
}

/// What follows the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many bytes.
    Bytes(u64),
    Chunked,
}

const fn bad(why: &'static str) -> Fault {
    Fault { status: 400, why }
}

/// Where the head at the start of `bytes` ends, the empty line included; nothing while it goes on.
/// What is before `scanned` was seen before.
///
/// # Errors
/// A line that does not end with CR LF, and a head that is too long.
pub fn end(bytes: &[u8], scanned: usize) -> Result<Option<usize>, Fault> {
    // A CR LF that was cut in two, and the line's end before it.
    let from = scanned.saturating_sub(3);
    let mut at = from;
    while let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == b'\n')) {
        at += next + 1;
        if !bytes[..at].ends_with(b"\r\n") {
            return Err(bad("a line of the request's head ends without a carriage return"));
        }
        if bytes[..at].ends_with(b"\r\n\r\n") {
            return Ok(Some(at));
        }
    }
    match bytes.len() {
        0..MAX_HEAD => Ok(None),
        _ => Err(too_long(bytes)),
    }
}

fn too_long(bytes: &[u8]) -> Fault {
    let line = bytes.iter().take(MAX_LINE).any(|&b| b == b'\n');
    match line {
        true => Fault { status: 431, why: "the request's headers are longer than 32 KiB" },
        false => Fault { status: 414, why: "the request's first line is longer than 8 KiB" },
    }
}

/// What follows `head`, which ends with an empty line.
///
/// # Errors
/// What is said above, and more headers or a longer request line than there is room for.
pub fn judge(head: &[u8]) -> Result<Length, Fault> {
    if head.len() > MAX_HEAD {
        return Err(too_long(head));
    }
    let mut lines = head.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    if first.len() > MAX_LINE {
        return Err(Fault { status: 414, why: "the request's first line is longer than 8 KiB" });
    }
    whole(first)?;
    let mut framing = Framing::default();
    for (count, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
        if count >= MAX_HEADERS {
            return Err(Fault { status: 431, why: "the request has more than 100 headers" });
        }
        framing.header(line)?;
    }
    framing.length(first.ends_with(b" HTTP/1.1"))
}

fn whole(line: &[u8]) -> Result<(), Fault> {
    match line.iter().any(|b| matches!(b, b'\r' | 0)) {
        true => Err(bad("a line of the request's head has a carriage return or a zero byte in it")),
        false => Ok(()),
    }
}

/// The headers that say how long the body is.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    fn header(&mut self, line: &[u8]) -> Result<(), Fault> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(bad("a header is folded over two lines"));
        }
        whole(line)?;
        let colon = line.iter().position(|&b| b == b':').ok_or(bad("a header has no colon"))?;
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default().trim_ascii());
        if name.is_empty() || !name.iter().all(|&b| token(b)) {
            return Err(bad("a header's name is empty or has a letter that no name has, such as a space"));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            return self.content_length(value);
        }
        match name.eq_ignore_ascii_case(b"transfer-encoding") {
            true => self.transfer_encoding(value),
            false => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        let length = length.ok_or(bad("Content-Length is no number of bytes"))?;
        match self.length.replace(length) {
            Some(_) => Err(bad("the request has more than one Content-Length")),
            None => Ok(()),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.chunked {
            return Err(bad("the request has more than one Transfer-Encoding"));
        }
        self.chunked = true;
        match value.eq_ignore_ascii_case(b"chunked") {
            true => Ok(()),
            false => Err(Fault { status: 501, why: "the only Transfer-Encoding that is understood is chunked" }),
        }
    }

    fn length(self, newest: bool) -> Result<Length, Fault> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(bad("the request has both a Content-Length and a Transfer-Encoding")),
            (true, None) if !newest => Err(bad("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Length::Chunked),
            (false, length) => Ok(Length::Bytes(length.unwrap_or(0))),
        }
    }
}

/// RFC 9110, 5.6.2.
fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> u16 {
        match end(head.as_bytes(), 0) {
            Err(fault) => fault.status,
            Ok(Some(end)) => judge(&head.as_bytes()[..end]).map_or_else(|fault| fault.status, |_| 200),
            Ok(None) => panic!("{head:?} has no end"),
        }
    }

    #[test]
    fn a_head_says_how_long_the_body_is() {
        assert_eq!(judge(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Length::Bytes(0)));
        assert_eq!(judge(b"PUT / HTTP/1.1\r\nContent-Length: 12\r\n\r\n"), Ok(Length::Bytes(12)));
        assert_eq!(judge(b"PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"), Ok(Length::Chunked));
    }

    #[test]
    fn whatever_has_two_meanings_is_refused() {
        for (headers, code) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: 1, 1\r\n", 400),
            ("Content-Length: +1\r\n", 400),
            ("Content-Length: 0x1\r\n", 400),
            ("Content-Length: \r\n", 400),
            ("Content-Length: 9999999999999999999\r\n", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Transfer-Encoding: xchunked\r\n", 501),
            ("Content-Length : 1\r\n", 400),
            ("A: b\r\n c\r\n", 400),
            (" A: b\r\n", 400),
            ("A\r\n", 400),
            (": b\r\n", 400),
            ("A: b\rc\r\n", 400),
            ("A: b\0c\r\n", 400),
            ("A: b\nC: d\r\n", 400),
            ("A: b\r\nC: d\r\n", 200),
        ] {
            assert_eq!(status(&format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")), code, "{headers:?}");
        }
        assert_eq!(status("GET / HTTP/1.1\nHost: a\n\n"), 400);
        assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    #[test]
    fn a_head_has_bounds() {
        let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert_eq!((status(&many(100)), status(&many(101))), (200, 431));
        assert_eq!(status(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000))), 414);
        assert_eq!(status(&format!("GET /{}", "a".repeat(MAX_HEAD))), 414);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD))), 431);
    }

    #[test]
    fn the_end_is_found_whatever_the_pieces() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for cut in 0..head.len() {
            let first = end(&head[..cut], 0);
            let found = if cut >= head.len() - 4 { first } else { end(head, cut) };
            assert_eq!(found, Ok(Some(head.len() - 4)), "cut at {cut}");
        }
    }
}
