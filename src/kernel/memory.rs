//! Memory that this process no longer needs.

/// Give free memory back to the system: what much at once has needed lies between what little still needs.
pub fn give_back() {
    // SAFETY: no memory in use is touched.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
