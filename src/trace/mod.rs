//! Where a packet went, what changed it, and why it died.
//!
//! [`model`] is what a trace says, whoever says it: observing and predicting give the same words, so
//! that they can be compared, drawn and exported by the same code. [`walk`] predicts. Taking packets from the kernel is
//! `kernel::record`'s, asking the question that is traced is `probe`'s; nothing here does I/O.
//! [`follow`] makes packets of what a machine sends and gets without being asked.

pub mod align;
mod copies;
pub mod filter;
pub mod flow;
pub mod follow;
mod freed;
mod grounds;
mod hits;
mod hops;
mod listeners;
mod lookups;
mod met;
pub mod model;
mod objects;
pub mod origin;
pub mod packet;
mod packets;
mod parting;
pub mod predict;
mod programs;
mod proxied;
pub mod question;
mod remedy;
mod remembered;
#[cfg(test)]
mod sample;
mod senders;
mod settle;
pub mod show;
pub mod sight;
pub mod tell;
mod translation;
mod unplanned;
mod unseen;
mod verdict;
pub mod walk;
pub mod who;
