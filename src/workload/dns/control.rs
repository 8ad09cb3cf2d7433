//! The server's control channel: lines of JSON in, records in force. A line is read and understood
//! on a thread of its own, so that queries wait for neither; they wait only while what was made of
//! it is put in the old one's place.

use std::io::{self, Read};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::oneshot;

use super::config::DnsConfig;
use super::log;
use super::records::{Records, Update};
use crate::workload::events::Teller;
use crate::workload::lines;

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
        if let Update::Change { .. } | Update::Outside(_) = update {
            write().apply(update);
            return Ok(());
        }
        let mut new = Records::new(config)?;
        new.apply(update);
        let mut old = write();
        new.settings.keep_outside(&mut old.settings);
        let old = std::mem::replace(&mut *old, new);
        // Taking ten thousand services down takes time; nobody waits for it here.
        drop(old);
        Ok(())
    }
}

/// Read updates on a thread of its own. What is returned tells of the end, and of an error that
/// was the reason.
pub fn listen(
    (records, teller): (Shared, Teller),
    config: DnsConfig,
    control: impl Read + Send + 'static,
    ready: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let mut ready = Some(ready);
    lines::follow(control, teller, move |line| {
        match serde_json::from_slice(line) {
            Ok(update) => records.apply(&update, &config)?,
            Err(problem) => {
                log(format_args!("an update was refused: {problem}"));
                return Ok(());
            }
        }
        ready.take().map_or(Ok(()), |ready| ready())
    })
}
