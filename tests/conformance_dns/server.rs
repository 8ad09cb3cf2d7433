//! A real server process on a free port of loopback, and asking it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use labctl::workload::dns::{Config, DnsConfig, VERB};
use serde_json::Value;

use crate::harness::PATIENCE;

pub struct Server {
    process: Child,
    address: SocketAddr,
    _control: ChildStdin,
}

impl Server {
    /// Start it and tell it `update`; without one it stays as it is before it has heard of the
    /// cluster.
    pub fn start(dns: DnsConfig, update: Option<&Value>) -> Server {
        let listen = Ipv4Addr::LOCALHOST.into();
        let config = Config { listen, port: 0, health: None, ready: None, metrics: None, dns };
        let mut process = Command::new(env!("CARGO_BIN_EXE_labctl"))
            .args([VERB, &serde_json::to_string(&config).expect("plain data")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut control = process.stdin.take().expect("a pipe");
        let mut said = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let mut line = || said.next().expect("the server ended").expect("text");
        let listening = line();
        let address = listening.strip_prefix("listening ").and_then(|a| a.parse().ok()).expect("an address");
        if let Some(update) = update {
            writeln!(control, "{update}").expect("the server reads");
            assert_eq!(line(), "ready");
        }
        Server { process, address, _control: control }
    }

    pub fn ask(&self, name: &str, kind: &str, transport: &str) -> Message {
        let kind = RecordType::from_str(kind).expect("a record type");
        let mut name = Name::from_ascii(name).expect("a name");
        name.set_fqdn(true);
        let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name, kind));
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.set_edns(edns);
        let bytes = message.to_vec().expect("a query");
        let reply = if transport == "udp" { self.udp(&bytes) } else { self.tcp(&bytes) };
        let reply = Message::from_vec(&reply).expect("an answer");
        assert_eq!(reply.metadata.id, 4711);
        assert_eq!(reply.queries, message.queries, "the question goes back");
        assert_eq!(reply.queries[0].name().to_ascii(), message.queries[0].name().to_ascii(), "in its own case");
        assert!(reply.edns.is_some(), "an OPT is answered with one");
        reply
    }

    fn udp(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.connect(self.address).expect("loopback");
        socket.send(query).expect("sent");
        let mut reply = vec![0; 65535];
        let length = socket.recv(&mut reply).expect("an answer in time");
        reply.truncate(length);
        reply
    }

    fn tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let length = u16::try_from(query.len()).expect("short").to_be_bytes();
        stream.write_all(&[&length, query].concat()).expect("sent");
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("an answer in time");
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).expect("all of it");
        reply
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends when its control channel does; this is for one that would not.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A section's records as text, each `name ttl IN type data` in the recording's form, without an
/// SOA's serial. Every record must be there once.
pub fn section(records: &[Record]) -> Result<BTreeSet<String>, String> {
    let all: BTreeSet<String> = records.iter().map(text).collect();
    if all.len() == records.len() { Ok(all) } else { Err(format!("a record comes twice: {records:?}")) }
}

fn text(record: &Record) -> String {
    let data = match &record.data {
        RData::TXT(txt) => txt.txt_data.iter().map(|t| format!("{:?}", String::from_utf8_lossy(t))).collect(),
        RData::SOA(soa) => {
            let (ns, mailbox) = (soa.mname.to_ascii(), soa.rname.to_ascii());
            format!("{ns} {mailbox} - {} {} {} {}", soa.refresh, soa.retry, soa.expire, soa.minimum)
        }
        RData::SRV(srv) => format!("{} {} {} {}", srv.priority, srv.weight, srv.port, srv.target.to_ascii()),
        RData::CNAME(name) => name.to_ascii(),
        RData::NS(name) => name.to_ascii(),
        RData::PTR(name) => name.to_ascii(),
        other => other.to_string(),
    };
    format!("{} {} IN {} {data}", record.name.to_ascii(), record.ttl, record.record_type())
}
