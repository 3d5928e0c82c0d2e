//! What a worker process does to itself before it touches anything foreign.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

/// The worker is killed when its parent is: no build outlives the command that asked for it.
pub(crate) fn die_with_parent() {
    // Where the system cannot do it, the worker ends at its next write to the closed pipe.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Lowers what this process may use: bytes of private writable memory; no core files.
///
/// `RLIMIT_AS` would be of no use: wasmtime reserves gigabytes of address space that it never touches.
pub(crate) fn limit_self(memory: u64) {
    lower(Resource::Data, memory);
    lower(Resource::Core, 0);
}

/// Takes all the descriptors that this process may have: large files of a build are one each.
pub(crate) fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it cannot be raised, fewer large files fit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn lower(resource: Resource, to: u64) {
    let Rlimit { maximum, .. } = getrlimit(resource);
    let to = maximum.map_or(to, |maximum| to.min(maximum));
    // Lowering one's own limit fails in no way; if it did, the limits inside the engine still hold.
    let _ = setrlimit(resource, Rlimit { current: Some(to), maximum: Some(to) });
}
