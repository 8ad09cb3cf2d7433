//! Real HAProxy as the controller: `haproxy -c` before a file is used, endpoints over the runtime API.
//! For a change of rules a second process takes the listening sockets over from the first one
//! (`-x`), which then answers what it has and ends (`-sf`). Before that the first one's answers carry
//! `Connection: close` for a moment ([`program::FAREWELL`]). What the file says is
//! [`crate::plan::ingress::haproxy`]'s.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use super::program::{self, Process, Product, find, not_installed, until};
use super::{Config, Told};
use crate::plan::ingress::haproxy::{self, Slots};
use crate::plan::ingress::{Endpoints, Rendered, Routing};

/// How long a new process may take until it has taken over.
const TAKE_OVER: Duration = Duration::from_secs(20);
/// How long it may take to answer on its socket.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of commands in one go: HAProxy reads them into a buffer of 16 KiB.
const AT_ONCE: usize = 8 << 10;

/// Serve with HAProxy until `told` ends.
///
/// # Errors
/// HAProxy is not installed, or ends as soon as it starts.
pub async fn serve(config: &Config, told: Told) -> io::Result<()> {
    let program = find("haproxy").ok_or_else(|| not_installed("haproxy", "haproxy"))?;
    let product = Haproxy { program, config: config.clone(), written: None, serving: None };
    program::keep(product, config, told).await
}

struct Haproxy {
    program: PathBuf,
    config: Config,
    /// What the last file that was written says.
    written: Option<(Routing, Slots)>,
    /// What the process that runs has.
    serving: Option<(Routing, Slots)>,
}

impl Haproxy {
    fn command(&self, folder: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.arg("-f").arg(folder.join("haproxy.cfg"));
        command
    }

    /// Run commands. Returns what HAProxy says.
    async fn ask(&self, commands: &str) -> io::Result<String> {
        let asking = async {
            let mut stream = UnixStream::connect(self.config.directory.join(haproxy::SOCKET)).await?;
            stream.write_all(commands.as_bytes()).await?;
            stream.write_all(b"\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        tokio::time::timeout(ANSWER, asking).await?
    }

    /// A number that the process which answers on the socket tells of itself.
    async fn info(&self, what: &str) -> Option<u32> {
        let told = self.ask("show info").await.ok()?;
        let value = told.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        value?.trim().parse().ok()
    }

    /// Wait until `new` has the sockets.
    async fn taken_over(&self, new: &mut Process) -> io::Result<()> {
        let started = Instant::now();
        while self.info("Pid").await != Some(new.pid()) {
            if let Ok(how) = tokio::time::timeout(Duration::from_millis(10), new.ended()).await {
                return Err(io::Error::other(how?));
            }
            if started.elapsed() > TAKE_OVER {
                return Err(io::Error::other("the new haproxy did not take over"));
            }
        }
        Ok(())
    }

    /// Whether clients are asked to come again over a new connection.
    async fn closing(&self, closing: bool) -> io::Result<()> {
        let set = format!("experimental-mode on; set var {} bool({closing})", haproxy::CLOSING);
        self.ask(&set).await.map(drop)
    }

    async fn run(&self, commands: &[String]) -> io::Result<()> {
        let mut rest = commands;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |c: &&String| {
                bytes += c.len() + 1;
                bytes < AT_ONCE
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let said = self.ask(&rest[..count].join(";")).await?;
            let fine = |line: &&str| line.is_empty() || line.contains("changed") || line.contains("no need to change");
            if let Some(complaint) = said.lines().map(str::trim).find(|line| !fine(line)) {
                return Err(io::Error::other(complaint.to_owned()));
            }
            rest = &rest[count..];
        }
        Ok(())
    }
}

impl Product for Haproxy {
    const NAME: &'static str = "haproxy";

    fn render(&mut self, routing: &Routing, endpoints: &Endpoints) -> Rendered {
        let slots = haproxy::slots(routing, endpoints);
        let rendered = haproxy::render(routing, self.config.place(), &slots);
        self.written = Some((routing.clone(), slots));
        rendered
    }

    fn check(&self, folder: &Path) -> Option<Command> {
        let mut command = self.command(folder);
        command.arg("-c");
        Some(Command::from(command))
    }

    fn start(&mut self, _endpoints: &Endpoints) -> io::Result<Process> {
        let mut command = self.command(&self.config.directory.join("current"));
        command.arg("-db");
        self.serving = self.written.take();
        Process::start(Self::NAME, command)
    }

    async fn reload(&mut self, process: &mut Process, _endpoints: &Endpoints) -> io::Result<()> {
        let mut command = self.command(&self.config.directory.join("current"));
        command.arg("-db").arg("-x").arg(self.config.directory.join(haproxy::SOCKET));
        command.arg("-sf").arg(process.pid().to_string());
        self.closing(true).await?;
        until(program::FAREWELL, async || self.info("CurrConns").await == Some(0)).await;
        let mut new = Process::start(Self::NAME, command)?;
        if let Err(e) = self.taken_over(&mut new).await {
            self.closing(false).await?;
            return Err(e);
        }
        self.serving = self.written.take();
        std::mem::replace(process, new).let_go();
        Ok(())
    }

    fn fits(&self, endpoints: &Endpoints) -> bool {
        self.serving.as_ref().is_some_and(|(_, slots)| slots.suffice(endpoints))
    }

    async fn tell(&mut self, endpoints: &Endpoints) -> io::Result<()> {
        let not_yet = || io::Error::other("haproxy has not been started");
        let (routing, slots) = self.serving.as_ref().ok_or_else(not_yet)?;
        let mut new = slots.clone();
        let commands = haproxy::commands(routing, &new.change(endpoints));
        // Whether it listens is asked even where there is nothing to tell.
        if commands.is_empty() {
            return self.ask("show info").await.map(drop);
        }
        self.run(&commands).await?;
        if let Some((_, slots)) = &mut self.serving {
            *slots = new;
        }
        Ok(())
    }
}
