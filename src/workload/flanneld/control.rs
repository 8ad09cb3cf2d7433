//! The daemon's control channel: lines of JSON in, maps of leases out. Nothing is known of packets.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use crate::plan::PeerLease;
use crate::workload::events::Teller;

use super::leases::Leases;

/// Bytes of the longest line: some 60,000 leases. A longer one ends the daemon, as nothing
/// sensible can follow it.
const MAX_LINE: usize = 4 << 20;

/// What a read of the channel brought.
#[derive(Debug)]
pub enum Heard {
    /// A whole line, which may have made no sense.
    Leases(io::Result<Leases>),
    /// Less than a line so far.
    Nothing,
    /// Whether to tell of packets from now on, which the [`Teller`] has heard.
    Order,
    /// The other end is closed.
    End,
}

/// Lines as they come. Reads happen one at a time, each when the descriptor is readable, so that
/// the file need not be made non-blocking for everyone who shares it.
pub struct Control<R> {
    source: R,
    /// What was read and not yet taken.
    buffer: Vec<u8>,
    /// How many bytes of it are known to be without an end of line.
    searched: usize,
    teller: Teller,
}

impl<R: Read + AsFd> Control<R> {
    pub fn new(source: R, teller: Teller) -> Control<R> {
        Control { source, buffer: Vec::new(), searched: 0, teller }
    }

    /// A line that has already been read.
    pub fn pending(&mut self) -> Option<Heard> {
        let rest = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
        self.searched = 0;
        if self.buffer.is_empty() {
            // The next map may be long in coming; its predecessor's room is not kept for it.
            self.buffer = Vec::new();
        }
        Some(if self.teller.obey(&line) { Heard::Order } else { Heard::Leases(parse(&line)) })
    }

    /// Read once, waiting where nothing is there yet.
    ///
    /// # Errors
    /// Those of the read, and a line that is too long.
    pub fn hear(&mut self) -> io::Result<Heard> {
        if let Some(heard) = self.pending() {
            return Ok(heard);
        }
        let mut chunk = [0; 16 << 10];
        match self.source.read(&mut chunk) {
            Ok(0) => return Ok(Heard::End),
            Ok(n) => self.buffer.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
        match self.pending() {
            Some(heard) => Ok(heard),
            None if self.buffer.len() > MAX_LINE => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a list of leases is longer than 4 MiB"))
            }
            None => Ok(Heard::Nothing),
        }
    }
}

impl<R: AsFd> AsFd for Control<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

fn parse(line: &[u8]) -> io::Result<Leases> {
    let list: Vec<PeerLease> = serde_json::from_slice(line)?;
    Leases::new(&list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::Ipv4Addr;

    fn two_maps_in_one_write(tail: &[u8]) -> Control<io::PipeReader> {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"[{\"subnet\":\"10.244.1.0/24\",\"public_ip\":\"192.168.0.1\"}]\n[]\n").unwrap();
        writer.write_all(tail).unwrap();
        Control::new(reader, Teller::default())
    }

    #[test]
    fn every_line_is_taken_then_the_end() {
        let mut control = two_maps_in_one_write(b"");
        let Heard::Leases(Ok(first)) = control.hear().unwrap() else { panic!("no first map") };
        assert_eq!(first.find(Ipv4Addr::new(10, 244, 1, 9)), Some(Ipv4Addr::new(192, 168, 0, 1)));
        let Heard::Leases(Ok(second)) = control.hear().unwrap() else { panic!("no second map") };
        assert_eq!(second.find(Ipv4Addr::new(10, 244, 1, 9)), None);
        assert!(matches!(control.hear().unwrap(), Heard::End));
    }

    #[test]
    fn half_a_line_is_nothing_yet_and_rubbish_is_refused() {
        let mut control = two_maps_in_one_write(b"{\xff\n[");
        assert!(matches!(control.hear().unwrap(), Heard::Leases(Ok(_))));
        assert!(matches!(control.hear().unwrap(), Heard::Leases(Ok(_))));
        assert!(matches!(control.hear().unwrap(), Heard::Leases(Err(_))));
        assert!(matches!(control.hear().unwrap(), Heard::End));
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let (reader, mut writer) = io::pipe().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&vec![b' '; 2 * MAX_LINE]));
        let mut control = Control::new(reader, Teller::default());
        let error = loop {
            match control.hear() {
                Ok(Heard::Nothing) => {}
                Ok(other) => panic!("{other:?}"),
                Err(e) => break e,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(control);
        assert!(writing.join().unwrap().is_err(), "the writer must see the closed pipe");
    }
}
