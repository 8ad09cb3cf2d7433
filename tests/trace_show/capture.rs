//! Captures, as tshark reads them.

use std::process::{Command, Output};

use etherparse::PacketBuilder;
use labctl::lab::names::{IfName, NsName};
use labctl::trace::show::pcapng::{Frame, MOST_BYTES, MOST_COMMENT, write};
use tempfile::TempDir;

const AT: u64 = 1_764_140_000_123_456_789;

fn frame(place: &str, dev: &str, at: u64, bytes: Vec<u8>) -> Frame {
    let place = NsName::try_from(place.to_owned()).expect("a place");
    let length = bytes.len() as u32;
    Frame { place, dev: IfName::new(dev), index: 2, ethernet: true, at, bytes, length, comment: None }
}

/// An IP packet of a ping.
fn ping() -> Vec<u8> {
    let mut bytes = Vec::new();
    let echo = PacketBuilder::ipv4([10, 244, 1, 21], [10, 244, 2, 22], 64).icmpv4_echo_request(7, 1);
    echo.write(&mut bytes, b"labctl").expect("a packet");
    bytes
}

fn ethernet(ip: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x0a, 0x58, 10, 244, 1, 1, 0x0a, 0x58, 10, 244, 1, 21, 8, 0];
    frame.extend(ip);
    frame
}

/// The frame in VXLAN 1, at flannel's port.
fn vxlan(inner: &[u8]) -> Vec<u8> {
    let mut payload = vec![8, 0, 0, 0, 0, 0, 1, 0];
    payload.extend(inner);
    let mut ip = Vec::new();
    let outer = PacketBuilder::ipv4([192, 168, 1, 11], [192, 168, 1, 12], 64).udp(38211, 8472);
    outer.write(&mut ip, &payload).expect("a packet");
    ethernet(&ip)
}

/// The bytes of a file, and a directory that has it.
struct Capture(TempDir);

impl Capture {
    fn of(frames: &[Frame], question: &str) -> Capture {
        let dir = tempfile::tempdir().expect("a directory");
        let file = std::fs::File::create(dir.path().join("trace.pcapng")).expect("a file");
        write(frames, question, file).expect("a capture");
        Capture(dir)
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        command.env("HOME", self.0.path()).env("LC_ALL", "C.UTF-8").args(args).arg(self.0.path().join("trace.pcapng"));
        let ran = command.output().unwrap_or_else(|e| panic!("{program}: {e}; `scripts/need tshark` installs it"));
        let Output { status, stdout, stderr } = ran;
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{program} {args:?}: {status}\n{stdout}{stderr}");
        assert!(!stderr.contains("damaged") && !stderr.contains("corrupt"), "{stderr}");
        stdout.into_owned()
    }

    /// Fields of each packet, a line each.
    fn fields(&self, fields: &[&str]) -> String {
        let mut args = vec![
            "-n",
            "-d",
            "udp.port==8472,vxlan",
            "-d",
            "udp.port==8285,ip",
            "-T",
            "fields",
            "-E",
            "separator=|",
            "-E",
            "occurrence=a",
        ];
        fields.iter().for_each(|f| args.extend(["-e", f]));
        args.push("-r");
        self.run("tshark", &args)
    }
}

#[test]
fn each_device_is_an_interface_with_its_name_and_times_are_exact() {
    let frames = [
        frame("host/node1", "eth0", AT + 1, vxlan(&ethernet(&ping()))),
        frame("pod/default/tea-1", "eth0", AT, ethernet(&ping())),
        frame("pod/kube-system/coredns-1", "eth0", AT + 2, ethernet(&ping())),
        frame("host/node1", "eth0", AT + 3, ethernet(&ping())),
    ];
    let seen = Capture::of(&frames, "").fields(&["frame.interface_id", "frame.interface_name", "frame.time_epoch"]);
    let expected = [
        "0|tea-1/eth0|1764140000.123456789",
        "1|node1/eth0|1764140000.123456790",
        "2|kube-system/coredns-1/eth0|1764140000.123456791",
        "1|node1/eth0|1764140000.123456792",
    ];
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn comments_stand_beside_their_packets_and_the_question_beside_the_file() {
    let mut said = frame("host/node1", "eth0", AT, ethernet(&ping()));
    said.comment = Some("wrapped into VXLAN 1 → node2".to_owned());
    let capture = Capture::of(&[said, frame("host/node1", "eth0", AT + 1, ethernet(&ping()))], "tea-1 pings tea-2");
    assert_eq!(capture.fields(&["frame.number", "frame.comment"]), "1|wrapped into VXLAN 1 → node2\n2|\n");
    let about = capture.run("capinfos", &["-k"]);
    assert!(about.contains("tea-1 pings tea-2"), "{about}");
}

#[test]
fn vxlan_at_flannels_port_is_read_to_the_inner_packet() {
    let capture = Capture::of(&[frame("host/node1", "eth0", AT, vxlan(&ethernet(&ping())))], "");
    let seen = capture.fields(&["vxlan.vni", "ip.src", "icmp.type", "_ws.malformed"]);
    assert_eq!(seen, "1|192.168.1.11,10.244.1.21|8|\n");
}

#[test]
fn flannels_udp_is_read_to_the_inner_packet() {
    let mut ip = Vec::new();
    let outer = PacketBuilder::ipv4([192, 168, 1, 11], [192, 168, 1, 12], 64).udp(8285, 8285);
    outer.write(&mut ip, &ping()).expect("a packet");
    let capture = Capture::of(&[frame("host/node1", "eth0", AT, ethernet(&ip))], "");
    let seen = capture.fields(&["ip.src", "icmp.type", "_ws.malformed"]);
    assert_eq!(seen, "192.168.1.11,10.244.1.21|8|\n");
}

#[test]
fn packets_of_a_tun_device_have_no_ethernet() {
    let tun = Frame { ethernet: false, ..frame("host/node1", "flannel0", AT, ping()) };
    let seen = Capture::of(&[tun], "").fields(&["frame.protocols", "ip.dst", "eth.dst"]);
    assert_eq!(seen, "raw:ip:icmp:data|10.244.2.22|\n");
}

#[test]
fn a_frame_that_was_cut_says_how_long_it_was() {
    let mut cut = frame("host/node1", "eth0", AT, ethernet(&ping()));
    cut.length = 1514;
    let seen = Capture::of(&[cut], "").fields(&["frame.cap_len", "frame.len"]);
    assert_eq!(seen, "48|1514\n");
}

#[test]
fn frames_and_comments_without_end_are_cut() {
    let mut long = frame("host/node1", "eth0", AT, vec![0; MOST_BYTES + 1]);
    long.comment = Some("ä".repeat(40_000));
    let seen = Capture::of(&[long], &"ö".repeat(40_000)).fields(&["frame.cap_len", "frame.len", "frame.comment"]);
    let comment = "ä".repeat(MOST_COMMENT / 2);
    assert_eq!(seen, format!("{MOST_BYTES}|{}|{comment}\n", MOST_BYTES + 1));
}

#[test]
fn a_capture_of_nothing_is_one() {
    let capture = Capture::of(&[], "tea-1 pings tea-2");
    assert_eq!(capture.fields(&["frame.number"]), "");
}
