//! Waiting with a limit, cheaply: a timer that is set again for each of a thousand requests a second
//! would be most of their cost. It is left to fire at the earlier time, and then set for the rest.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// More than anybody waits; a longer limit would not fit into the clock.
const EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The moment `limit` from now.
pub fn after(limit: Duration) -> Instant {
    later(Instant::now(), limit)
}

/// The moment `limit` after `since`.
pub fn later(since: Instant, limit: Duration) -> Instant {
    since + limit.min(EVER)
}

/// One wait after the other.
#[derive(Default)]
pub struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
    until: Option<Instant>,
}

impl Patience {
    /// Nothing came yet: whether it has been so for `limit` since the first such call. Where not, the
    /// task is woken when it is.
    pub fn ended(&mut self, cx: &mut Context<'_>, limit: Duration) -> bool {
        let until = *self.until.get_or_insert_with(|| after(limit));
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= until {
                return true;
            }
            timer.as_mut().reset(until);
        }
        false
    }

    /// Something came; the next wait is a new one.
    pub fn renew(&mut self) {
        self.until = None;
    }
}
