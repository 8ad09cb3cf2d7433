//! Domain names in wire form (RFC 1035, 3.1): labels with a length byte each, the root's empty
//! label at the end. Nothing is known of messages or of what a name stands for.

/// Bytes of the longest name, with its length bytes.
pub const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

/// A name in lower case, with the place of each label: what look-ups go by. Names are compared
/// without regard to the case of ASCII letters alone (RFC 4343).
#[derive(Clone)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    /// Where each label's length byte stands.
    starts: [u8; MAX_NAME / 2 + 1],
    labels: u8,
    len: u8,
}

impl Name {
    /// The name at the start of `wire`. `None` where it is cut off, too long, or goes on with a
    /// compression pointer: a question has nothing before it that could be pointed to.
    pub fn read(wire: &[u8]) -> Option<Name> {
        let mut name = Name { bytes: [0; MAX_NAME], starts: [0; MAX_NAME / 2 + 1], labels: 0, len: 0 };
        let mut at = 0;
        loop {
            let length = usize::from(*wire.get(at)?);
            let end = at + 1 + length;
            // With the root's byte, which is still to come, it must fit.
            if length > MAX_LABEL || end > MAX_NAME || (length > 0 && end + 1 > MAX_NAME) {
                return None;
            }
            name.bytes.get_mut(at..end)?.copy_from_slice(wire.get(at..end)?);
            if length == 0 {
                name.len = u8::try_from(end).ok()?;
                // Length bytes are below 64, so that no letter's case is hidden in them.
                name.bytes.make_ascii_lowercase();
                return Some(name);
            }
            *name.starts.get_mut(usize::from(name.labels))? = u8::try_from(at).ok()?;
            name.labels += 1;
            at = end;
        }
    }

    /// The whole name, the root's byte included.
    pub fn wire(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// How many labels it has, not counting the root.
    pub fn labels(&self) -> usize {
        usize::from(self.labels)
    }

    /// Where label `n` begins in the wire form; the root comes behind the last one.
    pub fn start(&self, n: usize) -> usize {
        if n >= self.labels() {
            return usize::from(self.len).saturating_sub(1);
        }
        self.starts.get(n).copied().map_or(0, usize::from)
    }

    /// The text of label `n`.
    pub fn label(&self, n: usize) -> &[u8] {
        self.span(n, n + 1).get(1..).unwrap_or_default()
    }

    /// The wire form of labels `from` up to but not including `to`, without a root.
    pub fn span(&self, from: usize, to: usize) -> &[u8] {
        self.bytes.get(self.start(from)..self.start(to)).unwrap_or_default()
    }

    /// The wire form from label `n` to the root.
    pub fn from(&self, n: usize) -> &[u8] {
        self.wire().get(self.start(n)..).unwrap_or_default()
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&text(self.wire()))
    }
}

/// A name as people write it, with or without the dot at the end, in wire form. `None` where it
/// has an empty label, or one or all of it is too long.
pub fn parse(text: &str) -> Option<Box<[u8]>> {
    let mut wire = labels(text.strip_suffix('.').unwrap_or(text))?;
    wire.push(0);
    (wire.len() <= MAX_NAME).then(|| wire.into_boxed_slice())
}

/// The labels of `text` in wire form, without a root, so that more can follow.
pub fn labels(text: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.split('.').filter(|_| !text.is_empty()) {
        if label.is_empty() || label.len() > MAX_LABEL {
            return None;
        }
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend_from_slice(label.as_bytes());
    }
    Some(wire)
}

/// Bytes up to the end of the name at `at`, be that the root or a pointer. `None` where it is
/// cut off. Pointers are not followed, so this always ends.
pub fn skip(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=MAX_LABEL => at += 1 + length,
            0xc0.. => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// A wire name as text, for people.
pub fn text(wire: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = wire;
    while let Some((length, more)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, behind) = more.split_at(usize::from(*length).min(more.len()));
        text.push_str(&label.escape_ascii().to_string());
        text.push('.');
        rest = behind;
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_lower_case_with_its_labels() {
        let name = Name::read(b"\x04SvC1\x06testNS\0rest").unwrap();
        assert_eq!(name.wire(), b"\x04svc1\x06testns\0");
        assert_eq!(
            (name.labels(), name.label(0), name.label(1), name.label(2)),
            (2, &b"svc1"[..], &b"testns"[..], &b""[..])
        );
        assert_eq!(name.from(1), b"\x06testns\0");
        assert_eq!(name.from(2), b"\0");
        assert_eq!(text(name.wire()), "svc1.testns.");
    }

    #[test]
    fn what_is_cut_off_too_long_or_a_pointer_is_no_name() {
        for bad in [&b""[..], b"\x04svc", b"\x04svc1", b"\xc0\x0c", b"\x01a\xc0\x0c", &[64; 70]] {
            assert!(Name::read(bad).is_none(), "{bad:?}");
        }
        // Four labels of 63 are 256 bytes, and the root; three and one of 61 are 255 with it.
        let long = |last: u8| {
            let mut wire =
                [[63; 64].to_vec(), [63; 64].to_vec(), [63; 64].to_vec(), vec![last; 1 + usize::from(last)]].concat();
            wire.push(0);
            wire
        };
        assert_eq!(long(61).len(), MAX_NAME);
        assert!(Name::read(&long(61)).is_some());
        assert!(Name::read(&long(62)).is_none());
        assert!(Name::read(&long(63)).is_none());
        assert_eq!(Name::read(&[[1, b'a'].repeat(127), vec![0]].concat()).unwrap().labels(), 127);
    }

    #[test]
    fn text_becomes_wire_with_or_without_the_last_dot() {
        assert_eq!(parse("a.bc.").as_deref(), Some(&b"\x01a\x02bc\0"[..]));
        assert_eq!(parse("a.bc"), parse("a.bc."));
        assert_eq!(parse(".").as_deref(), Some(&b"\0"[..]));
        assert_eq!(parse("a..b"), None);
        assert_eq!(parse(&"x".repeat(64)), None);
    }

    #[test]
    fn a_name_is_skipped_without_following_pointers() {
        assert_eq!(skip(b"\x01a\0", 0), Some(3));
        assert_eq!(skip(b"\x01a\xc0\x00", 0), Some(4));
        assert_eq!(skip(b"\xc0\x00", 0), Some(2));
        for bad in [&b"\xc0"[..], b"\x01", b"\x80", b""] {
            assert_eq!(skip(bad, 0), None);
        }
    }
}
