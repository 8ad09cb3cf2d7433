//! The built-in ingress controller as a process: real sockets, endpoints that the tests run, and every
//! kind of trouble that clients and endpoints make.

mod balance;
mod bodies;
mod changes;
mod endpoint;
mod http2;
mod many;
mod process;
mod refusals;
mod rules;
mod slow;
mod tls;
mod upgrades;
