//! TCP: whether a connection comes about and, where the probe looks at it, what the server says.
//! The lab's echo server sends a line that says who it is and then what it was sent; from other
//! servers anything is taken.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::outcome::{Answer, Details, Failure};
use super::{Asking, identity, socket};
use crate::spec::probe::FailureName;

/// What is sent where the probe names nothing.
pub const GREETING: &str = "hello from labctl\n";
/// The most bytes of an answer that are read.
const MOST: usize = 1 << 20;

pub async fn ask(
    asking: &Asking<'_>,
    (to, ttl): (SocketAddr, Option<u8>),
    send: Option<&str>,
) -> Result<Answer, Failure> {
    let mut stream = socket::connect(asking, to, ttl).await?;
    if send.is_none() && !asking.wants_words() {
        return Ok(Answer::default());
    }
    let sent = send.unwrap_or(GREETING).as_bytes();
    let mut received = Vec::new();
    let exchange = exchange(asking, &mut stream, sent, &mut received);
    let ended = asking.within(exchange).await;
    let (progress, size) = (progress(&received, sent.len()), received.len());
    let hung_up = ended.is_some();
    match (ended, progress) {
        (Some(Err(e)), _) => return Err(socket::failure(asking, &stream, &e, to)),
        (_, Progress::Short { echoed }) => {
            let text = format!("{to} said who it is and sent back {echoed} of {} bytes", sent.len());
            return Err(end(asking, hung_up, text));
        }
        (Some(Ok(())), _) if size == 0 => {
            return Err(Failure::new(FailureName::Reset, format!("{to} hung up without a word")));
        }
        (None, _) if size == 0 => {
            let text = format!("{to} took the connection but sent no answer");
            return Err(asking.silence(FailureName::Timeout, text));
        }
        _ => {}
    }
    let text = String::from_utf8_lossy(&received).into_owned();
    let mut details = Details::default();
    identity::read(text.lines().next().unwrap_or_default(), &mut details);
    Ok(Answer { details, text: Some(text), refusal: None })
}

/// An answer that broke off: cut by the server, or by our patience.
fn end(asking: &Asking, hung_up: bool, text: String) -> Failure {
    if hung_up {
        return Failure::new(FailureName::Reset, format!("{text}, then hung up"));
    }
    asking.silence(FailureName::Timeout, text)
}

/// Send, and read until the answer is whole; its end is the server's, or ours to see.
async fn exchange(asking: &Asking<'_>, stream: &mut TcpStream, sent: &[u8], received: &mut Vec<u8>) -> io::Result<()> {
    let (mut reading, mut writing) = stream.split();
    let write = async {
        writing.write_all(sent).await?;
        // Nothing more comes from here, but the connection has to stay for the answer.
        std::future::pending::<io::Result<()>>().await
    };
    let read = async {
        let mut chunk = [0_u8; 16_384];
        loop {
            let length = reading.read(&mut chunk).await?;
            received.extend_from_slice(&chunk[..length]);
            if length == 0 || received.len() >= MOST || enough(asking, received, sent.len()) {
                return Ok(());
            }
        }
    };
    tokio::select! { ended = write => ended, ended = read => ended }
}

/// Whether what was received is all that the probe looks for.
fn enough(asking: &Asking, received: &[u8], sent: usize) -> bool {
    match progress(received, sent) {
        Progress::Whole => true,
        Progress::Short { .. } => false,
        Progress::Foreign => match &asking.expect.body {
            Some(wanted) => String::from_utf8_lossy(received).contains(wanted.as_str()),
            None => received.ends_with(b"\n"),
        },
    }
}

/// How far the echo server's answer has come.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// The identity and every byte that was sent.
    Whole,
    /// The identity, but only so many of the bytes that were sent.
    Short { echoed: usize },
    /// Not the echo server, or not a whole line of it yet.
    Foreign,
}

fn progress(received: &[u8], sent: usize) -> Progress {
    let Some(end) = received.iter().position(|b| *b == b'\n') else { return Progress::Foreign };
    let line = String::from_utf8_lossy(&received[..end]);
    if !identity::read(&line, &mut Details::default()) {
        return Progress::Foreign;
    }
    let echoed = received.len() - end - 1;
    if echoed >= sent { Progress::Whole } else { Progress::Short { echoed } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_whole_when_every_byte_is_back() {
        let line = b"{\"name\":\"a\",\"source\":\"10.0.0.1:5\"}\n";
        assert_eq!(progress(&line[..10], 5), Progress::Foreign);
        assert_eq!(progress(line, 5), Progress::Short { echoed: 0 });
        assert_eq!(progress(&[&line[..], b"hell"].concat(), 5), Progress::Short { echoed: 4 });
        assert_eq!(progress(&[&line[..], b"hello"].concat(), 5), Progress::Whole);
        assert_eq!(progress(b"220 mail.example.com\n", 5), Progress::Foreign);
    }
}
