//! How many files and connections a process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as the system lets it be raised. A connection takes a descriptor, and the usual soft limit is low
/// for the sake of programs that use `select`, which this one does not.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the limit of descriptors stays as it is: {error}");
    }
}
