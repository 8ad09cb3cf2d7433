//! The DNS server beyond the recorded cases: messages as such, any bytes and any names, and the
//! process with its sockets, changes and end.

mod messages;
mod process;
mod properties;
mod sample;
