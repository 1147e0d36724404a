//! The simulator against reality: the same scripts on the simulated disk and on io_uring with a real file, on simulated
//! links and on TCP. What the real one answers must be something that the simulated one may answer.
//!
//! `docs/simulator.md` has the table of what the simulator takes for granted, with the test that checks each line.

mod device;
mod disk;
mod link;
mod process;
mod proxy;
mod talker;
