//! Asking a lab's daemon on its control socket.

use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::diag::{Problem, codes};
use crate::lab::names::LabName;
use crate::runtime::RuntimeDir;

use super::api::Refusal;

/// How long a daemon may take to answer what it knows.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way to one lab.
#[derive(Debug, Clone)]
pub struct Client {
    lab: LabName,
    socket: PathBuf,
}

/// An answer that is not JSON, with the position that came along.
pub struct Raw {
    pub bytes: Vec<u8>,
    pub position: u64,
}

/// What is asked, and how long the answer may take.
struct Question<'a> {
    method: Method,
    path: &'a str,
    body: Vec<u8>,
    limit: Option<Duration>,
}

impl<'a> Question<'a> {
    fn get(path: &'a str, limit: Option<Duration>) -> Question<'a> {
        Question { method: Method::GET, path, body: Vec::new(), limit }
    }
}

impl Client {
    pub fn new(dir: &RuntimeDir, lab: LabName) -> Client {
        Client { socket: dir.socket(&lab), lab }
    }

    pub fn lab(&self) -> &LabName {
        &self.lab
    }

    /// The daemon's process, as the caller's PID namespace counts (unix(7), SO_PEERCRED).
    pub fn pid(&self) -> Result<i32, Box<Problem>> {
        let stream = self.connect()?;
        let peer = getsockopt(&stream, PeerCredentials).map_err(|e| self.gone(&e.to_string()))?;
        Ok(peer.pid())
    }

    fn connect(&self) -> Result<StdStream, Box<Problem>> {
        // By descriptor of its directory: a path to a socket has at most 107 bytes.
        let dir = self.socket.parent().and_then(|d| std::fs::File::open(d).ok());
        let short = match (&dir, self.socket.file_name()) {
            (Some(dir), Some(name)) => PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name),
            _ => self.socket.clone(),
        };
        let stream = StdStream::connect(short).map_err(|e| self.gone(&e.to_string()))?;
        let peer = getsockopt(&stream, PeerCredentials).map_err(|e| self.gone(&e.to_string()))?;
        let own = nix::unistd::geteuid().as_raw();
        if peer.uid() != own && peer.uid() != 0 {
            return Err(self.gone(&format!("its socket is held by user {}, not by you", peer.uid())));
        }
        Ok(stream)
    }

    fn gone(&self, why: &str) -> Box<Problem> {
        Box::new(
            Problem::error(codes::LAB_GONE, format!("the lab {} does not answer: {why}", self.lab))
                .help("`labctl list` shows the labs that run; `labctl down` ends one that hangs"),
        )
    }

    /// Ask for what the daemon knows at once.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Box<Problem>> {
        self.get_within(path, PATIENCE)
    }

    /// Ask for something that the daemon gives for as long as the connection lasts, which comes along.
    pub fn get_and_hold<T: DeserializeOwned>(&self, path: &str) -> Result<(T, StdStream), Box<Problem>> {
        let stream = self.connect()?;
        let held = stream.try_clone().map_err(|e| self.gone(&e.to_string()))?;
        let answer = self.exchange_on(stream, Question::get(path, Some(PATIENCE)), whole)?;
        Ok((self.read(answer)?, held))
    }

    /// Ask for what the daemon may take its time for.
    pub fn get_within<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, Box<Problem>> {
        self.read(self.ask(Question::get(path, Some(limit)))?)
    }

    /// Have the daemon do something, however long it takes.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Box<Problem>> {
        let body = serde_json::to_vec(body).map_err(|e| self.gone(&e.to_string()))?;
        self.read(self.ask(Question { method: Method::POST, path, body, limit: None })?)
    }

    /// Have the daemon do something that it does at once.
    pub fn post_within<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, Box<Problem>> {
        self.read(self.ask(Question { method: Method::POST, path, body: Vec::new(), limit: Some(limit) })?)
    }

    /// An answer as it is, such as a log.
    pub fn raw(&self, path: &str) -> Result<Raw, Box<Problem>> {
        let (status, raw) = self.ask(Question::get(path, None))?;
        if status == StatusCode::OK {
            return Ok(raw);
        }
        self.read::<()>((status, raw))?;
        Err(self.gone("its answer is empty"))
    }

    fn read<T: DeserializeOwned>(&self, (status, raw): (StatusCode, Raw)) -> Result<T, Box<Problem>> {
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            let refusal: Refusal = serde_json::from_slice(&raw.bytes).map_err(|e| self.gone(&e.to_string()))?;
            return Err(Box::new(refusal.problem));
        }
        if status != StatusCode::OK {
            return Err(self.gone(&format!("it answers {status}")));
        }
        serde_json::from_slice(&raw.bytes).map_err(|e| self.gone(&e.to_string()))
    }

    fn ask(&self, question: Question) -> Result<(StatusCode, Raw), Box<Problem>> {
        self.exchange(question, whole)
    }

    /// Follow an answer that comes in lines, until it ends or `hear` says that it is enough.
    pub fn follow(&self, path: &str, mut hear: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), Box<Problem>> {
        let (status, raw) = self.exchange(Question::get(path, None), |mut answer| async move {
            let (status, mut bytes) = (answer.status(), Vec::new());
            while let Some(frame) = answer.body_mut().frame().await {
                bytes.extend(frame.map_err(|e| e.to_string())?.into_data().unwrap_or_default());
                while status == StatusCode::OK
                    && let Some(end) = bytes.iter().position(|b| *b == b'\n')
                {
                    let line: Vec<u8> = bytes.drain(..=end).collect();
                    if hear(&line).is_break() {
                        return Ok((status, Raw { bytes: Vec::new(), position: 0 }));
                    }
                }
            }
            Ok((status, Raw { bytes, position: 0 }))
        })?;
        if status == StatusCode::OK { Ok(()) } else { self.read::<()>((status, raw)) }
    }

    /// Send a request and let `take` have the answer while the connection is kept going.
    fn exchange<T, F: Future<Output = Result<T, String>>>(
        &self,
        question: Question,
        take: impl FnOnce(Response<Incoming>) -> F,
    ) -> Result<T, Box<Problem>> {
        self.exchange_on(self.connect()?, question, take)
    }

    fn exchange_on<T, F: Future<Output = Result<T, String>>>(
        &self,
        stream: StdStream,
        question: Question,
        take: impl FnOnce(Response<Incoming>) -> F,
    ) -> Result<T, Box<Problem>> {
        let Question { method, path, body, limit } = question;
        let exchange = async {
            stream.set_nonblocking(true).map_err(|e| e.to_string())?;
            let stream = tokio::net::UnixStream::from_std(stream).map_err(|e| e.to_string())?;
            let io = TokioIo::new(stream);
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
            let request = Request::builder()
                .method(method)
                .uri(written(path))
                .header("host", "labctl")
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body)))
                .map_err(|e| e.to_string())?;
            let answer = async {
                let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
                take(answer).await
            };
            let driven = async {
                // The connection must be driven until the answer is there; its own end is no news.
                let _ = connection.await;
                std::future::pending::<()>().await;
            };
            let too_late = async {
                match limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                answer = answer => answer,
                () = driven => Err("the connection ended".to_owned()),
                () = too_late => Err(format!("no answer within {} s", limit.unwrap_or_default().as_secs())),
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| self.gone(&e.to_string()))?;
        runtime.block_on(exchange).map_err(|why| self.gone(&why))
    }
}

/// All of an answer.
async fn whole(mut answer: Response<Incoming>) -> Result<(StatusCode, Raw), String> {
    let (status, position) = (answer.status(), position(answer.headers()));
    let bytes = answer.body_mut().collect().await.map_err(|e| e.to_string())?.to_bytes().to_vec();
    Ok((status, Raw { bytes, position }))
}

fn position(headers: &hyper::HeaderMap) -> u64 {
    headers.get("x-labctl-position").and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// A path as a URI may hold it: what was typed may have blanks or letters of any language.
fn written(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/?&=:.-_,".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
