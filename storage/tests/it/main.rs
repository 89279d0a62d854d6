//! The engine from outside: through its seams, over real and simulated disks.

mod append;
mod crash;
mod damage;
mod digests;
mod faults;
mod forget;
mod identity;
mod import;
mod lookup;
mod read_only;
mod recovery;
mod replica;
mod retention;
mod world;
