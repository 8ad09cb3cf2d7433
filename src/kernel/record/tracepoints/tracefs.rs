//! tracefs: what each tracepoint is numbered and how its records are laid out. It is mounted for the time
//! of the reading, at no place, so that nobody sees it and nothing of it stays.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// `FSCONFIG_CMD_CREATE` (linux/mount.h).
const CREATE: libc::c_uint = 6;
/// `FSOPEN_CLOEXEC` and `FSMOUNT_CLOEXEC`.
const CLOEXEC: libc::c_uint = 1;
/// Where most systems have it.
const USUAL: &str = "/sys/kernel/tracing";

pub(super) struct Tracefs {
    at: PathBuf,
    /// The mount, where it is ours.
    _mount: Option<OwnedFd>,
}

impl Tracefs {
    pub fn open() -> io::Result<Tracefs> {
        match mount() {
            Ok(mount) => {
                let at = format!("/proc/thread-self/fd/{}", mount.as_raw_fd()).into();
                Ok(Tracefs { at, _mount: Some(mount) })
            }
            // Kernels before 5.2 have no such mounts.
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(Tracefs { at: USUAL.into(), _mount: None }),
            Err(e) => Err(e),
        }
    }

    /// Of a tracepoint, such as `skb/kfree_skb`.
    pub fn format(&self, name: &str) -> io::Result<Format> {
        let path = self.at.join("events").join(name).join("format");
        let text = fs::read_to_string(path).map_err(|e| io::Error::new(e.kind(), format!("tracepoint {name}: {e}")))?;
        Format::parse(&text).ok_or_else(|| io::Error::other(format!("tracepoint {name}: its format is unknown")))
    }
}

/// A new mount of tracefs that is at no place.
fn mount() -> io::Result<OwnedFd> {
    let null: *const libc::c_char = std::ptr::null();
    let done = |result: libc::c_long| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) };
    // SAFETY: the name ends with a zero byte, and the call keeps nothing of it.
    let context = done(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), CLOEXEC) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let context = unsafe { OwnedFd::from_raw_fd(context) };
    // SAFETY: this command takes neither key nor value.
    done(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, null, null, 0) })?;
    // SAFETY: takes numbers alone.
    let mount = done(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(mount) })
}

/// How a tracepoint's record is laid out.
#[derive(Debug)]
pub(super) struct Format {
    pub id: u64,
    /// Offset and length of each field.
    fields: HashMap<String, (usize, usize)>,
    /// Names of numbers, from the format that it is printed by.
    names: HashMap<u64, String>,
}

impl Format {
    fn parse(text: &str) -> Option<Format> {
        let (mut id, mut fields, mut names) = (None, HashMap::new(), HashMap::new());
        for line in text.lines() {
            if let Some(number) = line.strip_prefix("ID: ") {
                id = number.trim().parse().ok();
            } else if let Some(field) = line.trim_start().strip_prefix("field:") {
                let mut parts = field.split(';').map(str::trim);
                let name = parts.next()?.rsplit([' ', '*']).next()?;
                // An array's length is told beside it.
                let name = name.split('[').next()?.to_owned();
                let mut number = |of: &str| parts.next()?.strip_prefix(of)?.parse().ok();
                fields.insert(name, (number("offset:")?, number("size:")?));
            } else if line.starts_with("print fmt:") {
                names = line.split('{').filter_map(named).collect();
            }
        }
        Some(Format { id: id?, fields, names })
    }

    /// A field as it is.
    pub fn bytes<'r>(&self, record: &'r [u8], field: &str) -> Option<&'r [u8]> {
        let (offset, size) = *self.fields.get(field)?;
        record.get(offset..offset + size)
    }

    pub fn number(&self, record: &[u8], field: &str) -> Option<u64> {
        let mut bytes = [0; 8];
        let value = self.bytes(record, field).filter(|value| value.len() <= 8)?;
        let size = value.len();
        // Records are in the machine's own order.
        let at = if cfg!(target_endian = "little") { 0 } else { 8 - size };
        bytes[at..at + size].copy_from_slice(value);
        Some(u64::from_ne_bytes(bytes))
    }

    /// A text (`__data_loc`): the field says where it is in the record.
    pub fn text(&self, record: &[u8], field: &str) -> Option<String> {
        let place = usize::try_from(self.number(record, field)?).ok()?;
        let value = record.get(place & 0xffff..)?.get(..place >> 16)?;
        Some(String::from_utf8_lossy(value.split(|b| *b == 0).next()?).into_owned())
    }

    /// The name of a reason. Kernels before 5.17 tell none.
    pub fn reason(&self, number: Option<u64>) -> String {
        match number {
            Some(number) => self.names.get(&number).cloned().unwrap_or_else(|| format!("reason {number:#x}")),
            None => "NOT_SPECIFIED".to_owned(),
        }
    }
}

/// ` 2, "NOT_SPECIFIED" }, `.
fn named(part: &str) -> Option<(u64, String)> {
    let (number, rest) = part.split_once(',')?;
    let name = rest.split('"').nth(1)?;
    Some((number.trim().parse().ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_gives_fields_texts_and_names_of_reasons() {
        let text = "name: kfree_skb\nID: 2310\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
            \tfield:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
            \tfield:__data_loc char[] name;\toffset:4;\tsize:4;\tsigned:0;\n\n\
            print fmt: \"reason: %s\", __print_symbolic(REC->reason, { 2, \"NOT_SPECIFIED\" }, { 3, \"NO_SOCKET\" })\n";
        let format = Format::parse(text).expect("a format");
        assert_eq!(format.id, 2310);
        let mut record = vec![0; 16];
        record[4..8].copy_from_slice(&(5_u32 << 16 | 16).to_ne_bytes());
        record[8..16].copy_from_slice(&0xffff_8880_0000_1234_u64.to_ne_bytes());
        record.extend(b"eth0\0");
        assert_eq!(format.number(&record, "skbaddr"), Some(0xffff_8880_0000_1234));
        assert_eq!(format.text(&record, "name").as_deref(), Some("eth0"));
        assert_eq!(format.number(&record, "other"), None);
        let reasons = [Some(3), Some(0x2_0001), None].map(|number| format.reason(number));
        assert_eq!(reasons, ["NO_SOCKET", "reason 0x20001", "NOT_SPECIFIED"]);
    }
}
