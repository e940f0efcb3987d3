//! Several processes -> one run: which ranks are whose, how the processes find each other, and that all mean the same run.
//!
//! [`Place`] is read from the environment that `schedc launch`, torchrun or Slurm sets. [`meet`] is the rendezvous: process 0 listens,
//! the others come, each with its [`Terms`] (versions, the plan's hash, the run's settings). Where all agree, each process gets a
//! [`Mesh`]: one connection to every other. Where they do not, every process ends with the names of what differs and who has which.
//!
//! Until it has proved that it knows the secret of the run, whoever connects is a stranger: it is read a bounded number of bytes for a
//! bounded time on a thread of its own, and turned away without harm to the run.

mod error;
mod hello;
mod link;
mod place;
mod rendezvous;
mod secret;

pub use error::LaunchError;
pub use hello::Terms;
pub use place::Place;
pub use rendezvous::{Mesh, meet};
pub use secret::{Secret, nonce};
