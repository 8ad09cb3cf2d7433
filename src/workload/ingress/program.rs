//! What nginx, HAProxy and a user's own program have in common: a configuration is written, checked
//! by the program itself, taken into use, and the program watched. What differs is a [`Product`].
//!
//! Each configuration has a folder of its own in the controller's directory; the link `current`
//! leads to the one in use. So one that the program refuses changes nothing: the old one serves on,
//! the complaint goes to the log and, as a [`Report`], to standard output, as does what is taken. A program that ends is started again, unless it ends at once: then this process
//! ends with its words.

mod complaint;
mod process;
mod store;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::sync::watch;

use super::{Config, Report, Told, log};
use crate::plan::ingress::{Endpoints, Rendered, Routing};
pub use process::{Process, find, not_installed};
use store::Store;

/// How long the program may take until it serves, and for checking a file.
const PATIENCE: Duration = Duration::from_secs(30);
/// A program that lives shorter is not started again.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Between two looks at whether it serves.
const LOOK: Duration = Duration::from_millis(10);

/// How long clients have, before a reload, to hear that their connections are closed: real proxies
/// close idle ones without looking whether a request has just arrived. Who is idle for longer finds
/// its connection closed, as HTTP has it.
pub const FAREWELL: Duration = Duration::from_millis(300);

/// A program that serves from a configuration.
pub trait Product {
    const NAME: &'static str;

    fn render(&mut self, routing: &Routing, endpoints: &Endpoints) -> Rendered;

    /// The command that checks the configuration in a folder; nothing where the program has none.
    fn check(&self, folder: &Path) -> Option<Command>;

    /// Start the program on the configuration in use.
    fn start(&mut self, endpoints: &Endpoints) -> io::Result<Process>;

    /// Make it use the configuration that is now in use, with these endpoints, without a request lost.
    /// `process` is what runs afterwards.
    async fn reload(&mut self, process: &mut Process, endpoints: &Endpoints) -> io::Result<()>;

    /// Whether these endpoints can be told without a reload.
    fn fits(&self, _endpoints: &Endpoints) -> bool {
        true
    }

    /// Tell it who serves. Fails while the program does not listen.
    async fn tell(&mut self, endpoints: &Endpoints) -> io::Result<()>;
}

/// Serve with `product` until nobody tells anything any more.
pub async fn keep<P: Product>(product: P, config: &Config, told: Told) -> io::Result<()> {
    process::many_files();
    let store = Store::new(&config.directory)?;
    let Told { mut routing, mut endpoints, healthy, .. } = told;
    let mut keeper = Keeper { product, store, process: None, serving: None, refused: false, healthy };
    loop {
        tokio::select! {
            biased;
            news = routing.changed() => {
                told_still(news).await;
                let new = routing.borrow_and_update().clone();
                // Not marked as seen: where the routing is no new one they are still to be told.
                let endpoints = Arc::clone(&endpoints.borrow());
                if let Some(new) = new {
                    keeper.routing(new, &endpoints).await?;
                }
            }
            news = endpoints.changed() => {
                told_still(news).await;
                let endpoints = Arc::clone(&endpoints.borrow_and_update());
                keeper.endpoints(&endpoints).await?;
            }
            how = ended(&mut keeper.process) => {
                let endpoints = Arc::clone(&endpoints.borrow());
                keeper.again(&how?, &endpoints).await?;
            }
        }
    }
}

/// Once nobody tells anything any more this process is about to end, and others say why.
async fn told_still(news: Result<(), watch::error::RecvError>) {
    if news.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn ended(process: &mut Option<Process>) -> io::Result<String> {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

struct Keeper<P> {
    product: P,
    store: Store,
    process: Option<Process>,
    /// What the program serves.
    serving: Option<Arc<Routing>>,
    /// Whether what was told last is not served.
    refused: bool,
    healthy: watch::Sender<bool>,
}

impl<P: Product> Keeper<P> {
    async fn routing(&mut self, new: Arc<Routing>, endpoints: &Endpoints) -> io::Result<()> {
        if !self.refused && self.serving.as_ref() == Some(&new) {
            return Ok(());
        }
        match self.take(&new, endpoints).await? {
            Ok(()) => {
                Report::Accepted { mark: new.mark() }.tell();
                self.serving = Some(new);
                self.refused = false;
                self.healthy.send_replace(true);
            }
            Err(complaint) => {
                self.refused = true;
                log(format_args!("{} refuses the new configuration, and the old one stays: {complaint}", P::NAME));
                Report::refused(new.mark(), &complaint).tell();
            }
        }
        Ok(())
    }

    /// Write, check and use a configuration. The inner error is the program's complaint.
    async fn take(&mut self, routing: &Routing, endpoints: &Endpoints) -> io::Result<Result<(), String>> {
        let rendered = self.product.render(routing, endpoints);
        for what in &rendered.refused {
            log(format_args!("{what}"));
        }
        for field in &rendered.unknown {
            log(format_args!("the ConfigMap's field {field} is none that {} knows", P::NAME));
        }
        let folder = self.store.write(&rendered)?;
        if let Err(complaint) = self.check(&folder).await? {
            self.store.forget(&folder);
            return Ok(Err(complaint::with_objects(&complaint, &rendered)));
        }
        let before = self.store.adopt(&folder)?;
        let outcome = match &mut self.process {
            Some(process) => self.product.reload(process, endpoints).await,
            None => self.begin(endpoints).await,
        };
        match outcome {
            Ok(()) => {
                self.store.tidy();
                Ok(Ok(()))
            }
            // Nothing serves that could serve on.
            Err(e) if self.process.is_none() => Err(e),
            Err(e) => {
                self.store.go_back(before)?;
                Ok(Err(e.to_string()))
            }
        }
    }

    async fn check(&self, folder: &Path) -> io::Result<Result<(), String>> {
        let Some(mut command) = self.product.check(folder) else { return Ok(Ok(())) };
        command.kill_on_drop(true).stdin(std::process::Stdio::null());
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.map_err(|_| io::Error::other(format!("{} took too long for a check", P::NAME)))??;
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Ok(if output.status.success() { Ok(()) } else { Err(said) })
    }

    /// Start the program and wait until it has heard of its endpoints.
    async fn begin(&mut self, endpoints: &Endpoints) -> io::Result<()> {
        let mut process = self.product.start(endpoints)?;
        let started = Instant::now();
        loop {
            tokio::select! {
                how = process.ended() => return Err(io::Error::other(how?)),
                outcome = self.product.tell(endpoints) => match outcome {
                    Ok(()) => break,
                    Err(e) if started.elapsed() > PATIENCE => {
                        return Err(io::Error::other(format!("{} does not serve after {PATIENCE:?}: {e}", P::NAME)));
                    }
                    Err(_) => tokio::time::sleep(LOOK).await,
                },
            }
        }
        self.process = Some(process);
        Ok(())
    }

    async fn endpoints(&mut self, endpoints: &Endpoints) -> io::Result<()> {
        let Some(routing) = self.serving.clone() else { return Ok(()) };
        if self.product.fits(endpoints) {
            match self.product.tell(endpoints).await {
                Ok(()) => return Ok(()),
                Err(e) => log(format_args!("{} could not be told of endpoints, and is reloaded: {e}", P::NAME)),
            }
        }
        match self.take(&routing, endpoints).await? {
            Ok(()) => self.product.tell(endpoints).await,
            Err(complaint) => Err(io::Error::other(complaint)),
        }
    }

    /// The program has ended: another one, with what was served.
    async fn again(&mut self, how: &str, endpoints: &Endpoints) -> io::Result<()> {
        let lived = self.process.take().map(|p| p.since.elapsed()).unwrap_or_default();
        self.healthy.send_replace(false);
        log(format_args!("{how}"));
        let Some(routing) = self.serving.clone().filter(|_| lived > AT_ONCE) else {
            return Err(io::Error::other(how.to_owned()));
        };
        self.take(&routing, endpoints).await?.map_err(io::Error::other)?;
        self.healthy.send_replace(true);
        Ok(())
    }
}

/// Call `attempt` until it is true, for at most `patience`. False where it never was.
pub async fn until(patience: Duration, mut attempt: impl AsyncFnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < patience {
        if attempt().await {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}
