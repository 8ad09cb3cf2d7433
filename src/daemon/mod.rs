//! The process that a lab lives in: its beginning, its control socket, live changes, and the
//! state of everyone in it.
//!
//! [`launch`] is the caller's side of the beginning and [`main`] the other. [`state`] holds the
//! lab and changes it to what `target` says that it is to become, `edits` its objects alone; [`workloads`], [`flannelds`], [`programs`], [`rooms`] and [`readiness`] (with `ask`) are about who lives there, and `telling` about what labctl's own programs say that they do;
//! [`faults`] breaks it on purpose and heals it again; [`server`] answers on the socket and [`client`] asks, in the words of [`api`] and, for what
//! Kubernetes has, of [`objects`]; what is read from the kernel for people is [`inspect`]'s.
//! [`services`] follows the pods with rules that `watchers` puts right, [`health`] serves kube-proxy's health checks, and
//! [`balancers`] asks them and keeps the cloud's load balancers. [`trace`] watches a question on its way, [`follow`] what a machine sends and gets
//! anyway; `watching` bounds how many do at once.

pub mod api;
mod ask;
pub mod authority;
pub mod balancers;
pub mod client;
pub mod controllers;
pub mod dns;
mod edits;
pub mod faults;
pub mod flannelds;
pub mod follow;
pub mod frames;
pub mod health;
mod host_ports;
pub mod ingress;
mod inhabit;
pub mod inspect;
pub mod kube;
pub mod launch;
mod lines;
mod logs;
pub mod main;
pub mod objects;
pub mod programs;
pub mod proxies;
pub mod readiness;
pub mod rooms;
pub mod server;
pub mod services;
pub mod state;
mod target;
mod telling;
pub mod trace;
mod watchers;
mod watching;
pub mod workloads;
