//! What stands in a host or client: its devices in a row on top, its name, its bridge, and below that the
//! pods in rows, each with its cable's other end above it.

use super::super::model::{Machine, MachineKind, PodBox};
use super::{DEVICE, GAP, MARGIN, Place, Placed, Rect, count, device_width, width};

/// A machine's left side, where the line from its bridge to lower rows of pods runs.
pub const TRUNK: i32 = 24;
/// Between a bridge and the ports below it, where a line runs along.
const RAIL: i32 = 18;
/// A cable to a pod.
const CABLE: i32 = 14;
/// A pod's height.
const POD: i32 = 74;
/// The lines with a machine's name and addresses.
const TITLE: i32 = 40;
const WIDEST_POD: i32 = 190;
const MOST_BESIDE: usize = 8;

/// How large a machine must be for what is in it.
pub struct Inside {
    pub width: i32,
    pub height: i32,
    /// Pods beside each other, and a pod's width.
    beside: usize,
    pod: i32,
}

impl Inside {
    pub fn of(machine: &Machine) -> Inside {
        let pods = machine.pods.len();
        let beside = (1..MOST_BESIDE).find(|n| n * n >= pods).unwrap_or(MOST_BESIDE);
        let pod = machine.pods.iter().map(pod_width).max().unwrap_or_default();
        let grid = TRUNK + count(beside) * (pod + GAP) + 2;
        let devices: i32 = machine.devices.iter().map(|d| device_width(d) + 2 * GAP).sum();
        let title = width(&machine.says(), "small").max(width(&machine.name, "name")) + 2 * TRUNK;
        let rows = count(pods.div_ceil(beside));
        let bridge = if machine.bridge.is_some() { DEVICE } else { 0 };
        Inside {
            width: if pods == 0 { title } else { grid.max(title) }.max(devices + TRUNK),
            height: MARGIN + DEVICE + TITLE + bridge + rows * (RAIL + DEVICE + CABLE + POD) + MARGIN,
            beside,
            pod,
        }
    }
}

fn pod_width(pod: &PodBox) -> i32 {
    let port = pod.port.as_ref().map(device_width).unwrap_or_default();
    let devices: i32 = pod.devices.iter().map(|d| device_width(d) + GAP).sum();
    let text = (width(&pod.name, "name") + 18).max(width(&pod.says(), "small") + 12).min(WIDEST_POD);
    port.max(devices + GAP).max(text).max(100)
}

impl Place<'_> {
    /// A machine in the lane with this index; the answer is the middle of its first device.
    pub(super) fn machine(&mut self, lane: usize, machine: &Machine, inside: &Inside, rect: Rect) -> i32 {
        let class = if machine.kind == MachineKind::Host { "host" } else { "client" };
        let says = [format!("{class} {}", machine.name), machine.says()];
        let mut placed = Placed::new(&machine.id, class, rect, &says);
        placed.write(TRUNK, MARGIN + DEVICE + 17, "name", &machine.name);
        placed.write(TRUNK, MARGIN + DEVICE + 32, "small", &machine.says());
        let own = self.push(Some(lane), placed);
        let first = self.row(own, machine, rect);
        let mut y = rect.y + MARGIN + DEVICE + TITLE;
        if let Some(bridge) = &machine.bridge {
            let bar = Rect { x: rect.x + GAP, y, w: rect.w - 2 * GAP, h: DEVICE };
            self.push(Some(own), Placed::device(bridge, bar));
            y += DEVICE;
        }
        for (row, pods) in machine.pods.chunks(inside.beside).enumerate() {
            let top = y + count(row) * (RAIL + DEVICE + CABLE + POD) + RAIL;
            for (column, pod) in pods.iter().enumerate() {
                let x = rect.x + TRUNK + count(column) * (inside.pod + GAP);
                self.pod(own, pod, Rect { x, y: top, w: inside.pod, h: 0 });
            }
        }
        first
    }

    /// A machine's own devices: the first at the left side, the last at the right one. The answer is the
    /// middle of the first.
    fn row(&mut self, own: usize, machine: &Machine, rect: Rect) -> i32 {
        let y = rect.y + MARGIN;
        let widths: Vec<i32> = machine.devices.iter().map(device_width).collect();
        let room = rect.w - TRUNK - GAP - widths.iter().sum::<i32>();
        let gap = room / (count(widths.len()) - 1).max(1);
        let mut x = rect.x + TRUNK;
        for (device, w) in machine.devices.iter().zip(&widths) {
            self.push(Some(own), Placed::device(device, Rect { x, y, w: *w, h: DEVICE }));
            x += w + gap;
        }
        rect.x + TRUNK + widths.first().copied().unwrap_or_default() / 2
    }

    /// A pod below its cable's other end, from `cell`'s corner on.
    fn pod(&mut self, own: usize, pod: &PodBox, cell: Rect) {
        if let Some(port) = &pod.port {
            let w = device_width(port);
            let rect = Rect { x: cell.middle() - w / 2, w, h: DEVICE, ..cell };
            self.push(Some(own), Placed::device(port, rect));
        }
        let rect = Rect { y: cell.y + DEVICE + CABLE, h: POD, ..cell };
        let class = if pod.count > 1 { "pod many" } else { "pod" };
        let kind = if pod.count > 1 { "pods" } else { "pod" };
        let says = [format!("{kind} {}", pod.name), pod.says()];
        let mut placed = Placed::new(&pod.id, class, rect, &says);
        placed.write_centred(48, "name", &pod.name);
        placed.write_centred(64, "small", &pod.says());
        let own = self.push(Some(own), placed);
        let widths: i32 = pod.devices.iter().map(|d| device_width(d) + GAP).sum();
        let mut x = rect.middle() - (widths - GAP) / 2;
        for device in &pod.devices {
            let w = device_width(device);
            self.push(Some(own), Placed::device(device, Rect { x, y: rect.y + 8, w, h: DEVICE }));
            x += w + GAP;
        }
    }
}
