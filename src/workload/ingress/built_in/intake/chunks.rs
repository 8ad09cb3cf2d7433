//! Where a chunked body ends (RFC 9112, 7.1), without decoding it: that is hyper's part, and this one
//! makes sure beforehand that there is only one way to do it.

/// Bytes that a chunk's extension, and all trailers together, may have.
const MAX_EXTRA: usize = 8 << 10;

/// How far a chunked body was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    at: At,
    /// The size of a chunk as far as it was read.
    size: u64,
    /// Bytes of this extension or these trailers.
    extra: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// So many digits of a size were read.
    Size(u8),
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// A body that is not chunked as the RFC says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Default for Chunks {
    /// Before the first byte.
    fn default() -> Self {
        Chunks { at: At::Size(0), size: 0, extra: 0 }
    }
}

impl Chunks {
    pub fn done(&self) -> bool {
        self.at == At::Done
    }

    /// Follow `bytes`. Returns how many of them belong to the body; less than all only where it ends.
    ///
    /// # Errors
    /// At the first byte that cannot be there.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            match self.at {
                At::Done => break,
                At::Data => {
                    let rest = bytes.len() - taken;
                    let step = usize::try_from(self.size).unwrap_or(rest).min(rest);
                    self.size -= step as u64;
                    taken += step;
                    if self.size == 0 {
                        self.at = At::DataCr;
                    }
                }
                _ => {
                    self.at = self.step(byte)?;
                    taken += 1;
                }
            }
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self.at, byte) {
            (At::Size(digits @ 0..15), b) if b.is_ascii_hexdigit() => {
                let digit = char::from(b).to_digit(16).unwrap_or_default();
                self.size = self.size << 4 | u64::from(digit);
                At::Size(digits + 1)
            }
            (At::Size(1..), b'\r') => At::SizeEnd,
            (At::Size(1..), b';' | b' ' | b'\t') => At::Extension,
            (At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, b) if printable(b) => self.more(At::Extension)?,
            (At::SizeEnd, b'\n') => {
                self.extra = 0;
                if self.size == 0 { At::TrailerStart } else { At::Data }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size(0),
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::TrailerStart, b) if printable(b) && !matches!(b, b' ' | b'\t') => self.more(At::Trailer)?,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::Trailer, b) if printable(b) => self.more(At::Trailer)?,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::EndLf, b'\n') => At::Done,
            _ => return Err(Malformed),
        })
    }

    fn more(&mut self, at: At) -> Result<At, Malformed> {
        self.extra += 1;
        if self.extra > MAX_EXTRA { Err(Malformed) } else { Ok(at) }
    }
}

fn printable(byte: u8) -> bool {
    byte == b'\t' || (b' '..0x7f).contains(&byte) || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(body: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut chunks = Chunks::default();
        let taken = chunks.follow(body)?;
        Ok((taken, chunks.done()))
    }

    #[test]
    fn a_body_ends_after_its_last_chunk_and_trailers() {
        for body in ["0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "00A;x=y\r\n0123456789\r\n0\r\nA: b\r\nC: d\r\n\r\n"] {
            let with_more = format!("{body}GET /");
            assert_eq!(follow(with_more.as_bytes()), Ok((body.len(), true)), "{body:?}");
            assert_eq!(follow(&body.as_bytes()[..body.len() - 1]), Ok((body.len() - 1, false)));
        }
    }

    #[test]
    fn pieces_make_no_difference() {
        let body = b"3;q\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\n";
        let mut chunks = Chunks::default();
        for byte in body {
            assert_eq!(chunks.follow(&[*byte]), Ok(1));
        }
        assert!(chunks.done());
    }

    #[test]
    fn sizes_and_ends_that_are_none_are_refused() {
        for body in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x3\r\nabc\r\n",
            " 3\r\nabc\r\n",
            "3\nabc\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n0\r\n",
            "3\rabc",
            "ffffffffffffffff\r\n",
            "0\r\n\n",
            "0\r\nA: b\n\r\n",
            "0\r\n folded\r\n\r\n",
            "3;\0\r\nabc\r\n",
        ] {
            assert_eq!(follow(body.as_bytes()), Err(Malformed), "{body:?}");
        }
        let long = format!("3;{}\r\n", "a".repeat(MAX_EXTRA + 2));
        assert_eq!(follow(long.as_bytes()), Err(Malformed));
    }
}
