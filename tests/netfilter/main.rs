//! Connection tracking, changes of rules and recordings of packets, as the kernel tells them: in real
//! namespaces of the test's own, as root and again where the namespaces belong to a user namespace.

mod conntrack;
mod ground;
mod line;
mod record;
mod record_life;
mod record_rules;
mod rulewatch;
