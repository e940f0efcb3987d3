//! The model: gradients against differences, schedules' passes driven by hand against the reference, plans that cannot run.

mod gradients;
mod refused;
mod rig;
mod sharded;
mod stages;
