//! The lab file: what was written, every value with its place.
//!
//! Text becomes a tree ([`yaml`], [`node`]), the tree becomes types (`de`, [`types`],
//! [`probe`]), and every problem on the way is collected, not only the first. Kubernetes manifests go
//! the same way ([`manifest`]). Whether a name
//! refers to something or a range overlaps another is not asked here but in `lab`.

pub mod at;
pub mod beside;
pub mod damage;
mod de;
pub mod edit;
mod fault;
pub mod load;
pub mod manifest;
pub mod named;
pub mod node;
pub mod probe;
pub mod resolver;
mod scan;
pub mod schema;
mod shape;
pub mod types;
pub mod value;
pub mod yaml;

pub use at::At;
pub use load::{Input, Loaded, load};
pub use types::LabFile;
