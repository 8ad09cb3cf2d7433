//! What those who answer and those who read tell each other of a connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Fault;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Between requests.
    pub idle: Duration,
    /// For a head, from its first byte; for the first one from the beginning.
    pub head: Duration,
    /// Without taking a byte of an answer.
    pub write: Duration,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
    /// It went away.
    Nothing,
}

/// What those who answer and those who read know together of a connection.
#[derive(Debug, Default)]
pub struct Shared {
    fault: Mutex<Option<Fault>>,
    length: AtomicU64,
    raw: AtomicBool,
}

impl Shared {
    /// What was wrong with the request that hyper has just been given.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    pub(super) fn set_length(&self, bytes: usize) {
        self.length.store(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of this request's head.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    pub(super) fn raw(&self) -> bool {
        self.raw.load(Ordering::Relaxed)
    }

    /// From now on no HTTP/1 follows.
    pub fn set_raw(&self) {
        self.raw.store(true, Ordering::Relaxed);
    }
}
