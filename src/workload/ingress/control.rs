//! The control channel: updates in, the newest routing and endpoints out.

use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::plan::ingress::Update;
use crate::workload::events::Teller;
use crate::workload::lines;

use super::{Told, log};

/// Put `new` in the place of `old`; whether they differ. What is told again is no reason for a reload.
fn renew<T: PartialEq>(old: &mut T, new: T) -> bool {
    let differs = *old != new;
    *old = new;
    differs
}

/// Hear updates. The second value tells of the end, and of an error that was the reason.
pub fn listen(control: impl Read + Send + 'static) -> io::Result<(Told, oneshot::Receiver<io::Result<()>>)> {
    let (routing, routing_told) = watch::channel(None);
    let (endpoints, endpoints_told) = watch::channel(Arc::default());
    let teller = Teller::default();
    let ended = lines::follow(control, teller.clone(), move |line| {
        match serde_json::from_slice(line) {
            Ok(Update::Routing(new)) => drop(routing.send_if_modified(|old| renew(old, Some(Arc::from(new))))),
            Ok(Update::Endpoints(new)) => drop(endpoints.send_if_modified(|old| renew(old, Arc::new(new)))),
            Err(problem) => log(format_args!("an update was refused: {problem}")),
        }
        Ok(())
    })?;
    let told = Told { routing: routing_told, endpoints: endpoints_told, healthy: watch::Sender::new(false), teller };
    Ok((told, ended))
}
