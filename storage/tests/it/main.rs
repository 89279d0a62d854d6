//! The engine from outside: through its seams, over real and simulated disks.

mod append;
mod crash;
mod faults;
mod identity;
mod lookup;
mod read_only;
mod recovery;
mod retention;
mod world;
