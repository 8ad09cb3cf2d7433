//! What follows an upgrade: bytes both ways, in which nobody here reads. WebSocket is the usual reason.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep_until};

use super::patience::later;

/// Pass bytes on until one side ends, or neither has sent anything for `silence`, which is what
/// nginx' `proxy_read_timeout` means for such connections.
pub async fn run(client: OnUpgrade, endpoint: OnUpgrade, silence: Duration) {
    let Ok((client, endpoint)) = tokio::try_join!(client, endpoint) else { return };
    let heard = Rc::new(Cell::new(Instant::now()));
    let mut client = Heard { stream: TokioIo::new(client), heard: Rc::clone(&heard) };
    let mut endpoint = Heard { stream: TokioIo::new(endpoint), heard: Rc::clone(&heard) };
    let silent = async {
        loop {
            let until = later(heard.get(), silence);
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    };
    tokio::select! {
        // However it ended, both sides see it by their connections' ends.
        _ = copy_bidirectional(&mut client, &mut endpoint) => {}
        () = silent => {}
    }
}

/// A stream that notes when something came.
struct Heard<S> {
    stream: S,
    heard: Rc<Cell<Instant>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if outcome.is_ready() {
            self.heard.set(Instant::now());
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
