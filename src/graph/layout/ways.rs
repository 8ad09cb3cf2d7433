//! How the lines of a picture run: straight down where nothing is between, otherwise beside the boxes, in
//! the gutters of columns and along the rows of pods.

use std::collections::BTreeMap;

use super::super::model::{LinkKind, Tunnel};
use super::{GAP, HEAD, Place, Rect, Stack, TRACK, Text, Way, links_of};

/// Above a device that a line comes down to.
const ABOVE: i32 = 9;

/// Add a line for each link, and the words beside them.
pub(super) fn add(place: &mut Place) {
    let rects: BTreeMap<String, Rect> = place.layout.boxes.iter().map(|b| (b.id.clone(), b.rect)).collect();
    let stacks: BTreeMap<&str, &Stack> = place.stacks.iter().map(|s| (s.machine.as_str(), s)).collect();
    let draw = Draw { rects: &rects, stacks: &stacks, first_track: place.lane_top + HEAD };
    let mut ways = Vec::new();
    let mut track = 0;
    for link in &place.graph.links {
        let (Some(from), Some(to)) = (rects.get(&link.from), rects.get(&link.to)) else { continue };
        let points = match link.kind {
            LinkKind::Plug => plug(*from, *to, link.from.starts_with("router#")),
            LinkKind::Cable => draw.cable(*from, *to, &link.to),
            LinkKind::Carrier => carrier(*from, *to),
            LinkKind::Tunnel => {
                track += 1;
                draw.tunnel(&link.from, &link.to, track - 1)
            }
        };
        ways.push(Way { kind: link.kind, ends: Some((link.from.clone(), link.to.clone())), points });
    }
    let mut captions = Vec::new();
    if let Some(tunnel) = &place.graph.tunnel {
        if tunnel.is_mesh {
            ways.extend(draw.mesh(tunnel));
        }
        let ends = links_of(place.graph, LinkKind::Tunnel).flat_map(|l| [&l.from, &l.to]).chain(&tunnel.ends);
        let left = ends.filter_map(|id| draw.rise(id, draw.first_track).last().map(|(x, _)| *x)).min();
        captions.extend(left.map(|x| Text {
            x: x + 6,
            y: draw.first_track - 4,
            class: "small caption",
            is_centred: false,
            text: if tunnel.is_mesh {
                format!("{}: every host with each other", tunnel.says)
            } else {
                tunnel.says.clone()
            },
        }));
    }
    place.layout.ways = ways;
    place.layout.captions = captions;
}

/// From a bridge down to a port. The line to a lower one runs beside those above it: the router's ports
/// stand below each other, a host's in rows.
fn plug(bridge: Rect, port: Rect, is_routers: bool) -> Vec<(i32, i32)> {
    let (middle, top) = (port.middle(), port.y);
    if top - bridge.bottom() <= 2 * GAP {
        return vec![(middle, bridge.bottom()), (middle, top)];
    }
    if is_routers {
        let beside = port.right() + GAP;
        return vec![(beside, bridge.bottom()), (beside, port.centre()), (port.right(), port.centre())];
    }
    let trunk = bridge.x + 5;
    vec![(trunk, bridge.bottom()), (trunk, top - ABOVE), (middle, top - ABOVE), (middle, top)]
}

/// Between two devices of one row.
fn carrier(a: Rect, b: Rect) -> Vec<(i32, i32)> {
    let (left, right) = if a.x < b.x { (a, b) } else { (b, a) };
    vec![(left.right(), left.centre()), (right.x, right.centre())]
}

struct Draw<'p> {
    rects: &'p BTreeMap<String, Rect>,
    stacks: &'p BTreeMap<&'p str, &'p Stack>,
    first_track: i32,
}

impl Draw<'_> {
    /// The place of the machine that a device is of.
    fn stack(&self, device: &str) -> Option<&Stack> {
        let (machine, _) = device.split_once('#')?;
        self.stacks.get(machine).copied()
    }

    /// From a bridge's port down to the device at the other end, which is a machine's or a pod's.
    fn cable(&self, port: Rect, end: Rect, device: &str) -> Vec<(i32, i32)> {
        match self.stack(device) {
            Some(stack) if stack.above > 0 => {
                let (beside, turn) = (stack.left - TRACK * stack.above, stack.top - ABOVE);
                let down = [(port.x, port.centre()), (beside, port.centre()), (beside, turn)];
                down.into_iter().chain([(end.middle(), turn), (end.middle(), end.y)]).collect()
            }
            _ => vec![(port.middle(), port.bottom()), (end.middle(), end.y)],
        }
    }

    /// From a device up to the height of a track.
    fn rise(&self, device: &str, track: i32) -> Vec<(i32, i32)> {
        let Some(rect) = self.rects.get(device) else { return Vec::new() };
        let middle = rect.middle();
        match self.stack(device) {
            Some(stack) if stack.above > 0 => {
                let (beside, turn) = (stack.right + TRACK * stack.above, stack.top - 2 * ABOVE);
                vec![(middle, rect.y), (middle, turn), (beside, turn), (beside, track)]
            }
            _ => vec![(middle, rect.y), (middle, track)],
        }
    }

    /// Up from one end, along a track of its own, and down to the other.
    fn tunnel(&self, from: &str, to: &str, track: i32) -> Vec<(i32, i32)> {
        let track = self.first_track + TRACK * track;
        let mut points = self.rise(from, track);
        points.extend(self.rise(to, track).into_iter().rev());
        points
    }

    /// Up from each end to one line that all share.
    fn mesh(&self, tunnel: &Tunnel) -> Vec<Way> {
        let rises: Vec<Vec<(i32, i32)>> = tunnel.ends.iter().map(|end| self.rise(end, self.first_track)).collect();
        let ends = || rises.iter().filter_map(|points| points.last().copied());
        let line: Vec<(i32, i32)> = ends().min().into_iter().chain(ends().max()).collect();
        let way = |points| Way { kind: LinkKind::Tunnel, ends: None, points };
        rises.iter().cloned().chain([line]).map(way).collect()
    }
}
