//! Recorded frames as a capture that Wireshark opens: an interface for each device of the lab, times
//! in nanoseconds, and beside each packet what happened to it
//! (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html>).

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, PcapError};

use crate::lab::names::{IfName, NsName};

/// The most bytes of a frame that are kept; Wireshark takes longer ones for damage.
pub const MOST_BYTES: usize = 262_144;

/// The most bytes of a comment. The format has 16 bits for an option's length.
pub const MOST_COMMENT: usize = 16_384;

/// A frame that a device saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub place: NsName,
    pub dev: IfName,
    /// The device's index in its namespace.
    pub index: u32,
    /// Whether it begins with an Ethernet header; else with that of IP, as on a TUN device.
    pub ethernet: bool,
    /// Nanoseconds since 1970.
    pub at: u64,
    pub bytes: Vec<u8>,
    /// How long it was, where not all of it was recorded.
    pub length: u32,
    /// What happened there.
    pub comment: Option<String>,
}

/// Write a whole capture. `says` is the comment of the whole; the frames need no order.
///
/// # Errors
/// What `out` refuses.
pub fn write(frames: &[Frame], says: &str, out: impl Write) -> Result<(), PcapError> {
    let mut frames: Vec<&Frame> = frames.iter().collect();
    frames.sort_by_key(|f| f.at);
    let mut capture = Capture::begin(says, out)?;
    frames.into_iter().try_for_each(|frame| capture.frame(frame))?;
    capture.flush()
}

/// A capture that is written frame by frame.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    /// The number of each device that was described.
    interfaces: HashMap<(NsName, u32, IfName, bool), u32>,
}

impl<W: Write> Capture<W> {
    /// `says` is the comment of the whole.
    ///
    /// # Errors
    /// What `out` refuses, as for all that is written later.
    pub fn begin(says: &str, out: W) -> Result<Capture<W>, PcapError> {
        let options = vec![
            SectionHeaderOption::Comment(Cow::Owned(cut(says).to_owned())),
            SectionHeaderOption::UserApplication(Cow::Borrowed(concat!("labctl ", env!("CARGO_PKG_VERSION")))),
        ];
        let section = SectionHeaderBlock { options, ..SectionHeaderBlock::default() };
        let writer = PcapNgWriter::with_section_header(out, section)?;
        Ok(Capture { writer, interfaces: HashMap::new() })
    }

    pub fn frame(&mut self, frame: &Frame) -> Result<(), PcapError> {
        let next = self.interfaces.len() as u32;
        let device = (frame.place.clone(), frame.index, frame.dev.clone(), frame.ethernet);
        let interface = *self.interfaces.entry(device).or_insert(next);
        if interface == next {
            self.writer.write_pcapng_block(describe(frame))?;
        }
        self.writer.write_pcapng_block(packet(frame, interface)).map(drop)
    }

    /// Let all that was written be read by others.
    pub fn flush(&mut self) -> Result<(), PcapError> {
        self.writer.get_mut().flush().map_err(PcapError::IoError)
    }
}

fn describe(frame: &Frame) -> InterfaceDescriptionBlock<'static> {
    let name = format!("{}/{}", frame.place, frame.dev);
    let description = format!("{} in {}, index {}", frame.dev, frame.place.path(), frame.index);
    InterfaceDescriptionBlock {
        linktype: if frame.ethernet { DataLink::ETHERNET } else { DataLink::RAW },
        snaplen: MOST_BYTES as u32,
        options: vec![
            InterfaceDescriptionOption::IfName(Cow::Owned(name)),
            InterfaceDescriptionOption::IfDescription(Cow::Owned(description)),
            InterfaceDescriptionOption::IfTsResol(9),
        ],
    }
}

fn packet(frame: &Frame, interface: u32) -> EnhancedPacketBlock<'_> {
    let data = &frame.bytes[..frame.bytes.len().min(MOST_BYTES)];
    let whole = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
    let comment = frame.comment.as_deref().filter(|c| !c.is_empty());
    EnhancedPacketBlock {
        interface_id: interface,
        timestamp: Duration::from_nanos(frame.at),
        original_len: frame.length.max(whole),
        data: Cow::Borrowed(data),
        options: comment.map(|c| EnhancedPacketOption::Comment(Cow::Borrowed(cut(c)))).into_iter().collect(),
    }
}

/// As much of a comment as is kept, whole letters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MOST_COMMENT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
