//! Labs that are broken, and what a trace says of it: the true cause, its place and the object that is at fault,
//! on grounds that hold; and what it names as remedy mends the lab. As root and as an ordinary user, who is told of no
//! drop reasons. A trace must not know which fault was made: it is given the question alone.

#[path = "../harness/mod.rs"]
mod harness;

mod broken;
mod faults;
mod files;
mod foreign;
mod lookups;
mod pair;
mod path_mtu;
mod programs;
mod proxied;
mod rewriting;
mod table;
mod untouched;

fn main() {
    harness::tests::main();
}
