//! Real nginx as the controller: `nginx -t` before a file is used, SIGHUP for a change, endpoints
//! over a Unix socket inside nginx. What the file says is [`crate::plan::ingress::nginx`]'s.
//!
//! nginx 1.22 closes idle connections when a worker is replaced, without looking whether a request
//! has just arrived on one. So a reload is announced first: answers then carry `Connection: close`, and
//! the old worker is replaced when no client waits with a connection any more, or after
//! [`program::FAREWELL`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use super::program::{self, Process, Product, find, not_installed, until};
use super::{Config, Told, log};
use crate::plan::ingress::{Endpoints, Rendered, Routing, nginx};

/// How long nginx may take until a new worker answers.
const RELOAD: Duration = Duration::from_secs(20);
/// How long it may take to answer on its socket.
const ANSWER: Duration = Duration::from_secs(5);

/// Serve with nginx until `told` ends.
///
/// # Errors
/// nginx or its Lua module is not installed; nginx ends as soon as it starts.
pub async fn serve(config: &Config, told: Told) -> io::Result<()> {
    let program = find("nginx").ok_or_else(|| not_installed("nginx", "nginx-light"))?;
    for (module, package) in nginx::NEEDED {
        if !Path::new(nginx::MODULES).join(module).exists() {
            return Err(not_installed(&format!("nginx' module {module}"), package));
        }
    }
    program::keep(Nginx { program, config: config.clone() }, config, told).await
}

struct Nginx {
    program: PathBuf,
    config: Config,
}

impl Nginx {
    /// nginx with the configuration in a folder.
    fn command(&self, folder: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.arg("-e").arg("stderr").arg("-p").arg(&self.config.directory);
        command.arg("-c").arg(folder.join("nginx.conf"));
        command
    }

    /// Ask over the socket. Returns the answer's body.
    async fn ask(&self, path: &str, body: &str) -> io::Result<String> {
        let asking = async {
            let mut stream = UnixStream::connect(self.config.directory.join(nginx::SOCKET)).await?;
            let head = format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer = tokio::time::timeout(ANSWER, asking).await??;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let fine = head.split(' ').nth(1) == Some("200");
        if fine { Ok(body.trim().to_owned()) } else { Err(io::Error::other(format!("{head} {body}"))) }
    }

    /// Whether a worker answers that does not go, and how many clients keep idle connections.
    async fn state(&self) -> io::Result<(bool, usize)> {
        let state = self.ask("/state", "").await?;
        let (state, waiting) = state.split_once(' ').unwrap_or_default();
        Ok((state == "open", waiting.parse().unwrap_or(usize::MAX)))
    }
}

impl Product for Nginx {
    const NAME: &'static str = "nginx";

    fn render(&mut self, routing: &Routing, _endpoints: &Endpoints) -> Rendered {
        nginx::render(routing, self.config.place())
    }

    fn check(&self, folder: &Path) -> Option<Command> {
        let mut command = self.command(folder);
        command.arg("-t").arg("-q");
        Some(Command::from(command))
    }

    fn start(&mut self, endpoints: &Endpoints) -> io::Result<Process> {
        let directory = &self.config.directory;
        std::fs::write(directory.join(nginx::FIRST_ENDPOINTS), nginx::endpoints(endpoints))?;
        // One that was killed leaves its socket, which another cannot take.
        match std::fs::remove_file(directory.join(nginx::SOCKET)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        Process::start(Self::NAME, self.command(&directory.join("current")))
    }

    async fn reload(&mut self, process: &mut Process, endpoints: &Endpoints) -> io::Result<()> {
        // Before the new rules, so that a backend of theirs has its endpoints when it is first asked.
        self.tell(endpoints).await?;
        self.ask("/closing", "").await?;
        until(program::FAREWELL, async || !matches!(self.state().await, Ok((_, 1..)))).await;
        process.signal(Signal::SIGHUP)?;
        if until(RELOAD, async || matches!(self.state().await, Ok((true, _)))).await {
            return Ok(());
        }
        if let Err(e) = self.ask("/open", "").await {
            log(format_args!("nginx keeps closing connections: {e}"));
        }
        Err(io::Error::other("nginx did not replace its worker; its own words are in the log"))
    }

    async fn tell(&mut self, endpoints: &Endpoints) -> io::Result<()> {
        self.ask("/endpoints", &nginx::endpoints(endpoints)).await.map(drop)
    }
}
