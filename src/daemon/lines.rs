//! Answers that come in lines: JSON values, one a line, for as long as there is more to tell and
//! somebody listens.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Bytes, Frame};
use serde::Serialize;
use tokio::sync::mpsc;

use super::server::Answer;

/// So many lines wait for a caller that is slow; then it is waited for.
const WAITING: usize = 64;

/// The end that tells.
pub struct Say(mpsc::Sender<Bytes>);

/// A way to tell lines, and the answer in which they come.
pub fn lines() -> (Say, Answer) {
    let (send, receive) = mpsc::channel(WAITING);
    (Say(send), Response::new(Lines(receive).boxed_unsync()))
}

impl Say {
    /// Send a line; whether someone still listens.
    pub async fn line(&self, value: &impl Serialize) -> bool {
        let mut line = serde_json::to_vec(value).unwrap_or_default();
        line.push(b'\n');
        self.0.send(Bytes::from(line)).await.is_ok()
    }

    /// Until nobody listens any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A body that goes on for as long as lines come.
struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|bytes| Ok(Frame::data(bytes))))
    }
}
