//! A run that `mpirun` started as several processes: the first does what the command says, the others train with it.

use super::stop::{Ended, Result, Stop};

/// Runs `work` in the first of the processes, and has the others serve it.
pub(super) fn across(work: impl FnOnce() -> Result<Ended>) -> Result<Ended> {
    if launched() > 1 { several(work) } else { work() }
}

/// How many processes `mpirun` started: as Open MPI says it, or MPICH and those made from it.
fn launched() -> usize {
    let said = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].into_iter().find_map(|name| std::env::var(name).ok());
    said.and_then(|size| size.parse().ok()).unwrap_or(1)
}

#[cfg(feature = "mpi")]
fn several(work: impl FnOnce() -> Result<Ended>) -> Result<Ended> {
    match retort_ops::lora_train::ranks::across(work) {
        Ok(ended) => ended.unwrap_or(Ok(Ended::DONE)),
        Err(why) => Err(Stop::wrong(format!("`mpirun` started this, but {why}"))),
    }
}

/// In a program that was built without MPI several processes would do the same thing side by side.
#[cfg(not(feature = "mpi"))]
fn several(_: impl FnOnce() -> Result<Ended>) -> Result<Ended> {
    Err(Stop::wrong("`mpirun` started several processes, but this `retort` was built without MPI")
        .hint("build it with `cargo build --release --features mpi`"))
}
