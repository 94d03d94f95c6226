//! The fleet harness: nodes and pods as network namespaces and cgroups of this machine.

pub mod addresses;
pub mod cgroup;
pub mod child;
mod echo;
pub mod fleet;
pub mod identity;
mod iproute;
pub mod member;
pub mod netns;
pub mod owner;
pub mod place;
pub mod privilege;
mod registry;
mod removal;
mod signal;
mod topology;

pub use addresses::Family;
pub use fleet::Fleet;
pub use member::{Node, Pod};
pub use place::Place;
