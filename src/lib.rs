//! Kubernetes networking in a box. A YAML file becomes hosts, pods and a flannel network out of
//! real Linux namespaces, bridges, veth pairs, VXLAN and TUN devices and iptables; probes prove
//! what it does.
//!
//! The way through the code is the data's way: [`spec`] (what was written), [`lab`] (what it
//! means), [`plan`] (what each namespace must hold), [`kernel`] (making it so). Around them stand
//! [`daemon`], the process that a lab lives in, [`workload`], who lives in it, [`probe`], and
//! [`cli`], one verb a file. Faults that a lab can be given on purpose are [`fault`]'s. What the machine allows is [`doctor`]'s, and problems that people are
//! told about are [`diag`]'s.

pub mod cli;
pub mod daemon;
pub mod diag;
pub mod doctor;
pub mod fault;
pub mod graph;
pub mod kernel;
pub mod lab;
pub mod objects;
pub mod plan;
pub mod probe;
pub mod runtime;
pub mod spec;
pub mod trace;
pub mod workload;
pub mod xml;
