//! DNS over TCP (RFC 7766): messages with two bytes of length before them, any number in a
//! connection, answered in the order in which they come.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::answer::{Transport, answer};
use super::server::State;
use super::told;

/// Connections at a time; further ones are closed at once.
const MAX_CONNECTIONS: usize = 512;
/// For how long a connection may say nothing; CoreDNS' own limit.
const IDLE: Duration = Duration::from_secs(10);
/// How long a message may take once it has begun, and an answer to be taken.
const SLOW: Duration = Duration::from_secs(5);
/// The pause after an accept that failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// One more connection, as long as it lives.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(count: &Rc<Cell<usize>>, most: usize) -> Option<Counted> {
        let number = count.get();
        (number < most).then(|| {
            count.set(number + 1);
            Counted(Rc::clone(count))
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Take connections for ever, `most` at a time, and give each to `serve`.
pub async fn accept<F: Future<Output = ()> + 'static>(
    listener: TcpListener,
    most: usize,
    state: Rc<State>,
    serve: impl Fn(TcpStream, Rc<State>) -> F,
) {
    let count = Rc::new(Cell::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(counted) = Counted::new(&count, most) else {
            state.counters.turned_away();
            continue;
        };
        let serving = serve(stream, Rc::clone(&state));
        tokio::task::spawn_local(async move {
            serving.await;
            drop(counted);
        });
    }
}

pub async fn serve(listener: TcpListener, state: Rc<State>) {
    accept(listener, MAX_CONNECTIONS, state, |stream, state| async move {
        // A client that goes away, stalls or talks rubbish ends its own connection, no more.
        let _ = converse(stream, &state).await;
    })
    .await;
}

async fn converse(stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let client = stream.peer_addr()?;
    let mut stream = BufReader::with_capacity(4096, stream);
    let (mut query, mut reply, mut framed) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        query.resize(usize::from(length), 0);
        timeout(SLOW, stream.read_exact(&mut query)).await??;
        let code = {
            let records = state.records.read();
            let code = answer(&records, &query, Transport::Tcp, &mut reply);
            if code.is_some() {
                told::tell(&state.teller, &records, client, (&query, &reply));
            }
            code
        };
        state.counters.seen(Transport::Tcp, code);
        if code.is_none() {
            return Ok(());
        }
        framed.clear();
        framed.extend_from_slice(&u16::try_from(reply.len()).map_err(io::Error::other)?.to_be_bytes());
        framed.extend_from_slice(&reply);
        timeout(SLOW, stream.get_mut().write_all(&framed)).await??;
    }
}
