//! Effects: everything that changes or reads the kernel. Nothing is decided here; what to do
//! comes from `plan`.

pub mod ns;
