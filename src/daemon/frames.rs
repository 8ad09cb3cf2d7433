//! Recorded frames on their way to a caller who makes a capture of them, each with what happened to its packet up to
//! there. What packets mean is [`crate::trace`]'s; how a capture is written is [`crate::trace::show::pcapng`]'s.

use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::kernel::record::{Event, Seen};
use crate::lab::names::{IfName, NsName};
use crate::trace::model::{Means, Packet, Trace, What};

/// A frame as a tap recorded it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedFrame {
    pub place: NsName,
    pub dev: String,
    /// The device's index in its namespace.
    pub index: u32,
    pub ethernet: bool,
    /// Nanoseconds since the epoch.
    pub at: u64,
    /// The bytes that were kept, in base64.
    pub bytes: String,
    /// All bytes that it had.
    pub length: u32,
    /// What happened to the packet since it was seen before.
    #[serde(default)]
    pub comment: Option<String>,
}

/// When, where, by which device and whether it left.
type Moment = (u64, NsName, IfName, bool);

/// All frames of a trace, those of others among them.
pub fn of_trace(events: Vec<Event>, trace: &Trace) -> Vec<RecordedFrame> {
    let packets = trace.flows.iter().flat_map(|f| &f.packets);
    let mut comments: HashMap<Moment, String> = packets.flat_map(|packet| comments(packet, trace.began)).collect();
    let frame = |event: Event| {
        let (moment, frame) = recorded(event)?;
        Some(RecordedFrame { comment: comments.remove(&moment), ..frame })
    };
    events.into_iter().filter_map(frame).collect()
}

fn recorded(event: Event) -> Option<(Moment, RecordedFrame)> {
    let (Seen::Frame(frame), Some(place)) = (event.seen, event.place) else { return None };
    let recorded = RecordedFrame {
        place: place.clone(),
        dev: frame.dev.to_string(),
        index: frame.index,
        ethernet: frame.ethernet,
        at: event.at,
        bytes: STANDARD.encode(&frame.bytes),
        length: frame.length,
        comment: None,
    };
    Some(((event.at, place, frame.dev, frame.outgoing), recorded))
}

/// What happened to a packet up to each of its sights. Its times count from `began`.
fn comments(packet: &Packet, began: u64) -> Vec<(Moment, String)> {
    let mut all = Vec::new();
    let mut said = vec![format!("packet {}, {}", packet.number, packet.kind)];
    for step in &packet.steps {
        said.push(step.says.clone());
        let seen = step.known_by.contains(&Means::Tap);
        if let (true, Some(at), Some(dev)) = (seen, step.at, &step.dev) {
            let key = (began + at, step.place.clone(), dev.clone(), step.what == What::Out);
            all.push((key, std::mem::take(&mut said).join("; ")));
        }
    }
    all
}

/// Bytes of frames that are kept until their packets are told; older ones go.
const MOST: usize = 32 * 1024 * 1024;

/// Frames that wait for their packets to be told.
#[derive(Default)]
pub struct Waiting {
    frames: BTreeMap<Moment, RecordedFrame>,
    bytes: usize,
}

impl Waiting {
    /// Keep the frames among what was heard.
    pub fn keep(&mut self, heard: &[Event]) {
        for (moment, frame) in heard.iter().cloned().filter_map(recorded) {
            self.bytes += size(&frame);
            if let Some(same) = self.frames.insert(moment, frame) {
                self.bytes -= size(&same);
            }
        }
        while self.bytes > MOST {
            let Some((_, oldest)) = self.frames.pop_first() else { return };
            self.bytes -= size(&oldest);
        }
    }

    /// The frames of a packet that is told, in the order of time.
    pub fn of(&mut self, packet: &Packet, began: u64) -> Vec<RecordedFrame> {
        let mut taken = Vec::new();
        for (moment, says) in comments(packet, began) {
            let Some(frame) = self.frames.remove(&moment) else { continue };
            self.bytes -= size(&frame);
            taken.push(RecordedFrame { comment: Some(says), ..frame });
        }
        taken.sort_by_key(|frame| frame.at);
        taken
    }
}

fn size(frame: &RecordedFrame) -> usize {
    size_of::<RecordedFrame>() + frame.bytes.len()
}
