//! The server's control channel: lines of JSON in, records in force. A line is read and understood
//! on a thread of its own, so that queries wait for neither; they wait only while what was made of
//! it is put in the old one's place.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::oneshot;

use super::config::DnsConfig;
use super::log;
use super::records::{Records, Update};

/// Bytes of the longest line: some 100,000 services with their endpoints. A longer one ends the
/// server, as nothing sensible can follow it.
const MAX_LINE: u64 = 256 << 20;

/// The records in force, for who answers and who changes them.
#[derive(Clone)]
pub struct Shared(Arc<RwLock<Records>>);

impl Shared {
    pub fn new(config: &DnsConfig) -> io::Result<Shared> {
        Ok(Shared(Arc::new(RwLock::new(Records::new(config)?))))
    }

    /// To be held for some answers, not across waiting.
    pub fn read(&self) -> RwLockReadGuard<'_, Records> {
        // Whoever panicked while writing has left whole records, or none that are worse than none.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, update: &Update, config: &DnsConfig) -> io::Result<()> {
        let write = || self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Update::Change { .. } = update {
            write().apply(update);
            return Ok(());
        }
        let mut new = Records::new(config)?;
        new.apply(update);
        let old = std::mem::replace(&mut *write(), new);
        // Taking ten thousand services down takes time; nobody waits for it here.
        drop(old);
        Ok(())
    }
}

/// Read updates on a thread of its own. What is returned tells of the end, and of an error that
/// was the reason.
pub fn listen(
    records: Shared,
    config: DnsConfig,
    control: impl Read + Send + 'static,
    ready: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        let outcome = follow(&records, &config, control, ready);
        // Where nobody waits any more, the server has ended before.
        let _ = tell.send(outcome);
    })?;
    Ok(ended)
}

fn follow(
    records: &Shared,
    config: &DnsConfig,
    control: impl Read,
    ready: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let mut control = BufReader::with_capacity(64 << 10, control);
    let mut ready = Some(ready);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut control).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an update is longer than 256 MiB"));
        }
        match serde_json::from_slice(&line) {
            Ok(update) => records.apply(&update, config)?,
            Err(problem) => {
                log(format_args!("an update was refused: {problem}"));
                continue;
            }
        }
        if let Some(ready) = ready.take() {
            ready()?;
        }
        // The next one may be small and long in coming.
        line.shrink_to(64 << 10);
    }
}
