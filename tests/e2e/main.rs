//! Labs from the outside: the real program, real namespaces, as root and as an ordinary user. Each
//! test has a bench of its own, so all can run side by side.

#[path = "../harness/mod.rs"]
mod harness;

mod backends;
mod drift;
mod drift_filters;
mod ending;
mod enter;
mod live;
mod programs;
mod readiness;
mod rooms;
mod sample;
mod services_balancer;
mod services_rules;
mod testing;
mod together;
mod untouched;

fn main() {
    harness::tests::main();
}
