//! Floor 4. How many clients there may be: what the limit of open files leaves.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that the process needs besides its clients: listeners, event queues, logs, admin,
/// Sentinels.
const RESERVED: u64 = 64;

/// Clients where the system sets no limit of open files.
const UNLIMITED: usize = 1 << 20;

/// The limit of clients and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimit {
    /// Clients of the process at most.
    pub clients: usize,
    /// Open files that the process may have.
    pub files: Option<u64>,
}

/// Raises the soft limit of open files to the hard one and derives the limit of clients from it.
///
/// `wanted` is what the configuration says; `links` are the connections to nodes that the workers
/// may open at most. Where the files do not suffice for `wanted`, fewer clients are allowed.
pub fn client_limit(wanted: Option<usize>, links: usize) -> ClientLimit {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    let Some(files) = limit.current else {
        return ClientLimit {
            clients: wanted.unwrap_or(UNLIMITED),
            files: None,
        };
    };
    let links = u64::try_from(links).unwrap_or(u64::MAX);
    // Links must not eat the clients' files where few are allowed at all.
    let left = files
        .saturating_sub(RESERVED)
        .saturating_sub(links.min(files / 4))
        .max(1);
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    ClientLimit {
        clients: wanted.map_or(left, |wanted| wanted.min(left)),
        files: Some(files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_leaves_files_for_everything_else() {
        let limit = client_limit(None, 100);
        let files = limit.files.unwrap();
        assert!(u64::try_from(limit.clients).unwrap() + RESERVED < files);
        assert_eq!(client_limit(Some(7), 100).clients, 7);
        assert_eq!(client_limit(Some(usize::MAX), 100).clients, limit.clients);
    }
}
