//! Probes asked for real, in namespaces of the test's own: every kind of answer and every way to
//! fail, each brought about by what brings it about in a network.

mod packets;
mod servers;
mod world;

/// A world for the running test; the test ends here where it was run again by a process that
/// may make namespaces.
#[macro_export]
macro_rules! world {
    () => {{
        fn here() {}
        // `probes::module::test::here`
        let path = std::any::type_name_of_val(&here);
        let test = path.split_once("::").and_then(|(_, rest)| rest.strip_suffix("::here")).expect("a path");
        match $crate::world::World::build(test) {
            Some(world) => world,
            None => return,
        }
    }};
}
