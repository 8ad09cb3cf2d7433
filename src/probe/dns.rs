//! DNS queries (RFC 1035): one name asked of one server as it is, over UDP and, where the answer
//! did not fit, over TCP.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU16, Ordering};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Asking;
use super::name::words;
use super::outcome::{Answer, Details, Failure};
use super::socket;
use crate::spec::probe::FailureName;

/// What is asked of a server.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub name: &'a str,
    /// The record type's mnemonic.
    pub record: &'a str,
    /// Ask over TCP from the first.
    pub tcp: bool,
}

/// What a server said.
pub struct Reply {
    /// The response code's mnemonic.
    pub rcode: String,
    /// The answer's records as text; of other types than asked for, with the type before it.
    pub records: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Reply {
    /// The first address of the answer.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }
}

/// Ask for `names` one after the other until one has the record, and otherwise as `question` says.
pub async fn ask(
    asking: &Asking<'_>,
    server: SocketAddr,
    names: &[String],
    question: &Question<'_>,
) -> Result<Answer, Failure> {
    let mut last = None;
    let mut refused = Vec::new();
    for name in names {
        let reply = lookup(asking, server, &Question { name, ..*question }).await?;
        let has_it = reply.rcode == "NOERROR" && !reply.records.is_empty();
        if !has_it {
            refused.push((reply.rcode.clone(), name.clone()));
        }
        last = Some((reply, has_it));
        if has_it {
            break;
        }
    }
    let (reply, has_it) = last.ok_or_else(|| Failure::unasked("there is no name to ask for"))?;
    let refusal = (!has_it).then(|| Failure::answer(FailureName::Name, no(server, &refused, question.record)));
    let details = Details { rcode: Some(reply.rcode), answers: Some(reply.records), ..Details::default() };
    Ok(Answer { details, text: None, refusal })
}

/// That no name of a question has the record, in words.
pub fn no(server: SocketAddr, refused: &[(String, String)], record: &str) -> String {
    match refused {
        [(rcode, name)] if rcode == "NOERROR" => format!("{server} knows no {record} record of {name} (NOERROR)"),
        _ => format!("{server} answers {} {record}", words(refused)),
    }
}

/// Ask `server`; every response code is a reply.
pub async fn lookup(asking: &Asking<'_>, server: SocketAddr, question: &Question<'_>) -> Result<Reply, Failure> {
    let (message, bytes) = query(question)?;
    let response = if question.tcp {
        over_tcp(asking, server, &bytes).await?
    } else {
        let short = over_udp(asking, server, &message, &bytes).await?;
        if short.metadata.truncation { over_tcp(asking, server, &bytes).await? } else { short }
    };
    if response.metadata.id != message.metadata.id {
        let text = format!("{server} answers a question that was not asked");
        return Err(Failure::new(FailureName::Protocol, text));
    }
    let reply = reply(&response, message.queries.first().map(Query::query_type));
    asking.note_answer(question.name, &reply.rcode);
    Ok(reply)
}

/// A question as a message, and its bytes.
pub fn query(question: &Question) -> Result<(Message, Vec<u8>), Failure> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    // Not `from_str`, which would fold the name's case: some servers are tested for echoing it.
    let mut name = Name::from_ascii(question.name)
        .map_err(|e| Failure::new(FailureName::Name, format!("`{}` is not a DNS name: {e}", question.name)))?;
    name.set_fqdn(true);
    let record = RecordType::from_str(question.record).map_err(Failure::unasked)?;
    // The port is new each time and the server ours, so a number that counts is random enough.
    let mut message = Message::new(NEXT.fetch_add(1, Ordering::Relaxed), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, record));
    let bytes = message.to_vec().map_err(Failure::unasked)?;
    Ok((message, bytes))
}

async fn over_udp(
    asking: &Asking<'_>,
    server: SocketAddr,
    message: &Message,
    bytes: &[u8],
) -> Result<Message, Failure> {
    let socket = socket::datagrams(asking, server, None)?;
    let fault = |e: std::io::Error| socket::failure(asking, &socket, &e, server);
    socket.send(bytes).await.map_err(fault)?;
    let mut buffer = vec![0_u8; 65_535];
    loop {
        let received = asking.within(socket.recv(&mut buffer)).await;
        let received = received.ok_or_else(|| no_answer(asking, server))?;
        let length = received.map_err(|e| socket::failure(asking, &socket, &e, server))?;
        let response = decode(&buffer[..length], server)?;
        // A late answer to an earlier question cannot come to this port, but a stray one could.
        if response.metadata.id == message.metadata.id {
            return Ok(response);
        }
    }
}

async fn over_tcp(asking: &Asking<'_>, server: SocketAddr, bytes: &[u8]) -> Result<Message, Failure> {
    let mut stream = socket::connect(asking, server, None).await?;
    let exchange = async {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let framed = [&length.to_be_bytes()[..], bytes].concat();
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut response = vec![0_u8; usize::from(length)];
        stream.read_exact(&mut response).await?;
        Ok(response)
    };
    let response = asking.within(exchange).await.ok_or_else(|| no_answer(asking, server))?;
    let response = response.map_err(|e| socket::from_errno(&e, &server.to_string()))?;
    decode(&response, server)
}

fn no_answer(asking: &Asking, server: SocketAddr) -> Failure {
    asking.silence(FailureName::Timeout, format!("no answer from the DNS server {server}"))
}

fn decode(bytes: &[u8], server: SocketAddr) -> Result<Message, Failure> {
    Message::from_vec(bytes)
        .map_err(|e| Failure::new(FailureName::Protocol, format!("{server} answers what is not DNS: {e}")))
}

/// What a response says.
pub fn reply(message: &Message, asked: Option<RecordType>) -> Reply {
    let mut reply = Reply { rcode: rcode(message.metadata.response_code), records: Vec::new(), addresses: Vec::new() };
    for record in &message.answers {
        match &record.data {
            RData::A(a) => reply.addresses.push(a.0.into()),
            RData::AAAA(a) => reply.addresses.push(a.0.into()),
            _ => {}
        }
        let kind = record.record_type();
        let text = record.data.to_string();
        reply.records.push(if Some(kind) == asked { text } else { format!("{kind} {text}") });
    }
    reply
}

/// The mnemonics of the IANA registry, which are what a lab file says.
pub fn rcode(code: ResponseCode) -> String {
    const NAMES: [&str; 11] = [
        "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
        "NOTZONE",
    ];
    let number = u16::from(code);
    NAMES.get(usize::from(number)).map_or_else(|| format!("RCODE{number}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, CNAME};

    use super::*;

    #[test]
    fn a_name_is_asked_as_it_is() {
        let question = Question { name: "_http._tcp.Tea-Svc.default.svc", record: "SRV", tcp: false };
        let (message, bytes) = query(&question).expect("a query");
        let read = Message::from_vec(&bytes).expect("DNS");
        assert_eq!(read.metadata.id, message.metadata.id);
        assert_eq!(read.queries[0].name().to_string(), "_http._tcp.Tea-Svc.default.svc.");
        assert_eq!(read.queries[0].query_type(), RecordType::SRV);
        let bad = Question { name: &"x".repeat(64), record: "A", tcp: false };
        assert_eq!(query(&bad).expect_err("a label of 64").kind, Some(FailureName::Name));
    }

    #[test]
    fn records_of_another_type_say_which() {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        let name = Name::from_str("a.b.").expect("a name");
        let alias = RData::CNAME(CNAME(Name::from_str("c.d.").expect("a name")));
        message.add_answer(Record::from_rdata(name.clone(), 5, alias));
        message.add_answer(Record::from_rdata(name, 5, RData::A(A(Ipv4Addr::new(10, 0, 0, 1)))));
        let reply = reply(&message, Some(RecordType::A));
        assert_eq!(reply.records, ["CNAME c.d.", "10.0.0.1"]);
        assert_eq!(reply.address(), "10.0.0.1".parse().ok());
    }

    #[test]
    fn response_codes_have_their_registered_names() {
        assert_eq!(rcode(ResponseCode::NoError), "NOERROR");
        assert_eq!(rcode(ResponseCode::NXDomain), "NXDOMAIN");
        assert_eq!(rcode(ResponseCode::Refused), "REFUSED");
        assert_eq!(rcode(ResponseCode::from(0, 0xb)), "RCODE11");
    }
}
