//! How many may watch a lab's packets at once. Each holds two sockets in every namespace and what those and
//! itself keep, so there is a bound; a trace, which soon ends, waits for its turn, and who follows does not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::diag::{Problem, codes};

/// So many traces and followers at once.
const MOST: usize = 8;

/// Who watches.
pub struct Watching(Arc<Semaphore>);

/// A place among those who watch; it is free again when this is dropped.
#[must_use]
pub struct Place(#[allow(dead_code, reason = "it is held, and not asked")] OwnedSemaphorePermit);

impl Default for Watching {
    fn default() -> Watching {
        Watching(Arc::new(Semaphore::new(MOST)))
    }
}

impl Watching {
    /// A place, waited for so long at most.
    pub async fn place(&self, patience: Duration) -> Result<Place, Box<Problem>> {
        let place = timeout(patience, Arc::clone(&self.0).acquire_owned()).await;
        place.ok().and_then(Result::ok).map(Place).ok_or_else(|| {
            let message = format!("{MOST} traces and followers watch the lab at once already");
            let help = "end one of `labctl trace --follow` by Ctrl-C, or wait until a trace is over, and ask again";
            Box::new(Problem::error(codes::TRACE_TOO_MANY, message).help(help))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_is_refused_and_a_place_that_is_left_can_be_taken() {
        let watching = Watching::default();
        let mut all = Vec::new();
        for _ in 0..MOST {
            all.push(watching.place(Duration::ZERO).await.expect("a place"));
        }
        let refused = watching.place(Duration::ZERO).await.err().expect("no place");
        assert_eq!(refused.code, codes::TRACE_TOO_MANY);
        all.pop();
        assert!(watching.place(Duration::ZERO).await.is_ok());
    }
}
