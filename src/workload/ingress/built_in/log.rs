//! The access log, in ingress-nginx' own format (`upstreaminfo` of its documentation, "Log format").
//!
//! Lines are gathered and written when there is nothing else to do: a write for each request would
//! be a good part of what a small request costs.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::header::HeaderValue;
use hyper::{Method, Uri, Version};
use tokio::sync::Notify;

/// Bytes that are gathered at most.
const GATHERED: usize = 32 << 10;

/// Where lines go.
#[derive(Default)]
pub struct Log {
    lines: RefCell<Vec<u8>>,
    more: Notify,
    /// The second that `stamp` was made in.
    second: Cell<u64>,
    stamp: RefCell<String>,
}

/// One request; the line is written when this is dropped, which is when the answer was sent or given up.
pub struct Entry {
    pub log: Rc<Log>,
    pub begun: Instant,
    pub remote: IpAddr,
    /// Method, target, version; nothing where no request could be read.
    pub line: Option<(Method, Uri, Version)>,
    pub referer: Option<HeaderValue>,
    pub agent: Option<HeaderValue>,
    /// Bytes of the request's head.
    pub length: u64,
    pub backend: String,
    pub tries: Vec<Try>,
    pub id: HeaderValue,
    pub status: u16,
    /// Bytes of the answer's body.
    pub sent: u64,
}

/// An endpoint that was asked.
pub struct Try {
    pub address: SocketAddr,
    pub begun: Instant,
    /// How long it was until its answer began; nothing while it has not.
    pub took: Option<Duration>,
    /// 502 and 504 for those that did not answer.
    pub status: u16,
}

impl Log {
    /// Write what is gathered, for ever.
    pub async fn write_on(&self) {
        loop {
            self.more.notified().await;
            self.write();
        }
    }

    fn write(&self) {
        let mut lines = self.lines.borrow_mut();
        // Standard error may be closed, and that is no reason to stop serving.
        let _ = io::stderr().write_all(&lines);
        lines.clear();
        lines.shrink_to(GATHERED);
    }

    fn add(&self, entry: &Entry) {
        self.refresh_stamp();
        let full = {
            let mut lines = self.lines.borrow_mut();
            // Writing to memory does not fail.
            let _ = entry.write(&self.stamp.borrow(), &mut lines);
            lines.len() >= GATHERED
        };
        match full {
            true => self.write(),
            false => self.more.notify_one(),
        }
    }

    fn refresh_stamp(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.second.replace(now) != now {
            *self.stamp.borrow_mut() = stamp(now);
        }
    }
}

impl Entry {
    fn write(&self, stamp: &str, out: &mut Vec<u8>) -> io::Result<()> {
        write!(out, "{} - - [{stamp}] \"", self.remote)?;
        if let Some((method, uri, version)) = &self.line {
            write!(out, "{method} ")?;
            write_escaped(uri.path_and_query().map_or(uri.path(), |both| both.as_str()).as_bytes(), out);
            write!(out, " {}", if *version == Version::HTTP_2 { "HTTP/2.0" } else { named(*version) })?;
        }
        write!(out, "\" {} {} \"", self.status, self.sent)?;
        write_escaped(self.referer.as_ref().map_or(b"-", |value| value.as_bytes()), out);
        out.extend_from_slice(b"\" \"");
        write_escaped(self.agent.as_ref().map_or(b"-", |value| value.as_bytes()), out);
        write!(out, "\" {} {:.3} [{}] [] ", self.length, self.begun.elapsed().as_secs_f64(), self.backend)?;
        self.write_tries(out)?;
        out.push(b' ');
        write_escaped(self.id.as_bytes(), out);
        out.push(b'\n');
        Ok(())
    }

    /// Address, bytes, seconds and status of each endpoint that was asked.
    fn write_tries(&self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.tries.is_empty() {
            return out.write_all(b"- - - -");
        }
        let last = self.tries.len() - 1;
        let comma = |at: usize| if at == last { " " } else { ", " };
        for (at, one) in self.tries.iter().enumerate() {
            write!(out, "{}{}", one.address, comma(at))?;
        }
        for at in 0..=last {
            write!(out, "{}{}", if at == last { self.sent } else { 0 }, comma(at))?;
        }
        for (at, one) in self.tries.iter().enumerate() {
            write!(out, "{:.3}{}", one.took.unwrap_or_else(|| one.begun.elapsed()).as_secs_f64(), comma(at))?;
        }
        for (at, one) in self.tries.iter().enumerate() {
            write!(out, "{}{}", one.status, comma(at).trim_end_matches(if at == last { " " } else { "" }))?;
        }
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let log = Rc::clone(&self.log);
        log.add(self);
    }
}

fn named(version: Version) -> &'static str {
    if version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" }
}

/// As nginx escapes: a line stays one line, and a quoted value ends where its quotes end.
fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' | b'\\' | 0..b' ' | 0x7f.. => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            plain => out.push(plain),
        }
    }
}

/// Seconds since 1970 as `23/Nov/2026:01:43:54 +0000`.
fn stamp(seconds: u64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (mut days, rest) = (seconds / 86400, seconds % 86400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while let Some(length) = lengths.get(month).filter(|&&length| days >= length) {
        days -= length;
        month += 1;
    }
    let name = MONTHS.get(month).copied().unwrap_or("Dec");
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02} +0000", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_nginx_writes_it() {
        for (seconds, text) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000"),
            (1_735_689_599, "31/Dec/2024:23:59:59 +0000"),
            (1_795_398_234, "23/Nov/2026:01:43:54 +0000"),
        ] {
            assert_eq!(stamp(seconds), text);
        }
    }

    #[test]
    fn a_line_has_the_fields_of_ingress_nginx() {
        let begun = Instant::now();
        let tried = |port, status| Try {
            address: SocketAddr::from(([10, 244, 1, 2], port)),
            begun,
            took: Some(Duration::from_millis(12)),
            status,
        };
        let entry = Entry {
            log: Rc::default(),
            begun,
            remote: [192, 168, 1, 5].into(),
            line: Some((Method::GET, "/tea?x=1".parse().unwrap(), Version::HTTP_11)),
            referer: None,
            agent: Some(HeaderValue::from_bytes(b"a\"\xffb").unwrap()),
            length: 80,
            backend: "default-tea-svc-80".to_owned(),
            tries: vec![tried(80, 502), tried(81, 200)],
            id: HeaderValue::from_static("0123"),
            status: 200,
            sent: 5,
        };
        let mut line = Vec::new();
        entry.write("STAMP", &mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        let (before, rest) = line.split_once(" 80 ").unwrap();
        let (took, behind) = rest.split_once(' ').unwrap();
        assert_eq!(before, "192.168.1.5 - - [STAMP] \"GET /tea?x=1 HTTP/1.1\" 200 5 \"-\" \"a\\x22\\xFFb\"");
        assert!(took.parse::<f64>().is_ok_and(|seconds| seconds < 60.0), "{line}");
        let expected = "[default-tea-svc-80] [] 10.244.1.2:80, 10.244.1.2:81 0, 5 0.012, 0.012 502, 200 0123\n";
        assert_eq!(behind, expected);
    }
}
