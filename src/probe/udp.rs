//! UDP: a datagram and the one that answers it. There is no connection, so an answer must come
//! for the probe to know anything.

use std::net::SocketAddr;

use super::outcome::{Answer, Details, Failure};
use super::stream::GREETING;
use super::{Asking, identity, socket};
use crate::spec::probe::FailureName;

pub async fn ask(
    asking: &Asking<'_>,
    (to, ttl): (SocketAddr, Option<u8>),
    send: Option<&str>,
) -> Result<Answer, Failure> {
    let socket = socket::datagrams(asking, to, ttl)?;
    let fault = |e: std::io::Error| socket::failure(asking, &socket, &e, to);
    let mut buffer = vec![0_u8; 65_535];
    let exchange = async {
        socket.send(send.unwrap_or(GREETING).as_bytes()).await?;
        socket.recv(&mut buffer).await
    };
    let received = asking.within(exchange).await;
    let received = received.ok_or_else(|| asking.silence(FailureName::Timeout, format!("no answer from {to}")))?;
    let length = received.map_err(fault)?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let mut details = Details::default();
    identity::read(text.lines().next().unwrap_or_default(), &mut details);
    Ok(Answer { details, text: Some(text), refusal: None })
}
