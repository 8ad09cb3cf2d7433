//! Memory that this process no longer needs (mallopt(3), malloc_trim(3)).

/// Let threads share their memory: what one of many has given back, and nobody else takes, lies in pieces between what
/// is still needed. To be called before there are other threads.
pub fn few_arenas() {
    // SAFETY: nothing but a number of malloc's own is set.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// One for the daemon's own thread, and one for those that come and go.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Give free memory back to the system: what much at once has needed lies between what little still needs.
pub fn give_back() {
    // SAFETY: no memory in use is touched.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
