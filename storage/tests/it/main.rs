//! The engine from outside: through its seams, over real and simulated disks.

mod recovery;
mod world;
