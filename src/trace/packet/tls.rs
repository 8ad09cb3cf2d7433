//! The name that a TLS client asks for, which goes in clear text before all else (RFC 8446, 4.1.2, and
//! RFC 6066, 3).

/// Of a record that holds a message of the handshake, of a ClientHello, of the extension with the server's name,
/// and of a name in it that is a host's.
const HANDSHAKE: usize = 22;
const CLIENT_HELLO: usize = 1;
const SERVER_NAME: usize = 0;
const HOST_NAME: usize = 0;

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes, at most three.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn is(&mut self, wanted: usize) -> Option<()> {
        (self.number(1)? == wanted).then_some(())
    }
}

/// The host's name in the beginning of what a client sends; nothing where that is not TLS, or was cut before it.
pub fn name(bytes: &[u8]) -> Option<String> {
    let mut rest = Rest(bytes);
    rest.is(HANDSHAKE)?;
    // Version and length of the record.
    rest.take(4)?;
    rest.is(CLIENT_HELLO)?;
    // Length and version of the message, and what is random.
    rest.take(3 + 2 + 32)?;
    // The session, the cipher suites and the compressions.
    for length in [1, 2, 1] {
        let count = rest.number(length)?;
        rest.take(count)?;
    }
    rest.take(2)?;
    loop {
        let (kind, length) = (rest.number(2)?, rest.number(2)?);
        let mut extension = Rest(rest.take(length)?);
        if kind == SERVER_NAME {
            extension.take(2)?;
            extension.is(HOST_NAME)?;
            let length = extension.number(2)?;
            let name = std::str::from_utf8(extension.take(length)?).ok()?;
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            return name.bytes().all(fits).then(|| name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client says that has an extension before that with the name.
    fn hello(name: &[u8]) -> Vec<u8> {
        let length = |n: usize| u16::try_from(n).expect("a length").to_be_bytes();
        let name = [&[0][..], &length(name.len()), name].concat();
        let list = [&length(name.len())[..], &name].concat();
        let extensions = [&[0, 23, 0, 2, 1, 2, 0, 0][..], &length(list.len()), &list].concat();
        let body =
            [&[3, 3][..], &[7; 32], &[0], &[0, 2, 19, 1], &[1, 0], &length(extensions.len()), &extensions].concat();
        let message = [&[1, 0][..], &length(body.len()), &body].concat();
        [&[22, 3, 1][..], &length(message.len()), &message].concat()
    }

    #[test]
    fn the_name_that_a_client_asks_for_is_read() {
        assert_eq!(name(&hello(b"cafe.example.com")).as_deref(), Some("cafe.example.com"));
    }

    #[test]
    fn what_is_no_name_or_cut_before_its_end_is_none() {
        assert_eq!(name(&hello(b"a\x1b[31m")), None);
        let whole = hello(b"cafe.example.com");
        assert!((0..whole.len()).all(|length| name(&whole[..length]).is_none()));
        assert_eq!(name(b"GET / HTTP/1.1\r\n"), None);
    }
}
