//! Floor 1. Where a listener listens: a TCP address or the path of a Unix socket.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::types::{NodeAddr, NodeAddrError};

/// Address of a listener: `host:port`, or `unix:/path/of/socket`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddr {
    /// TCP; the port may be 0 (the system chooses).
    Tcp {
        /// Host name or IP address, IPv6 without brackets.
        host: String,
        /// Port, 0 for any free one.
        port: u16,
    },
    /// Unix-domain stream socket at this absolute path.
    Unix(PathBuf),
}

/// A text that is no listener's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenAddrError {
    /// Not `host:port`.
    #[error(transparent)]
    Tcp(#[from] NodeAddrError),
    /// `unix:` without an absolute path.
    #[error("{0:?} has no absolute path; write unix:/path/of/socket")]
    Unix(String),
}

impl FromStr for ListenAddr {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, ListenAddrError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err(ListenAddrError::Unix(text.to_owned()));
            }
            return Ok(Self::Unix(path));
        }
        if let Some(host) = text.strip_suffix(":0") {
            // Port 0 means "any free port" for a listener, while no node can have it.
            let addr = NodeAddr::parse(&format!("{host}:1"), None)?;
            return Ok(Self::Tcp {
                host: addr.host().to_owned(),
                port: 0,
            });
        }
        let addr = NodeAddr::parse(text, None)?;
        Ok(Self::Tcp {
            host: addr.host().to_owned(),
            port: addr.port(),
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_print_as_they_are_read() {
        for text in [
            "127.0.0.1:6379",
            "[::]:0",
            "localhost:0",
            "unix:/run/s.sock",
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
        assert!("unix:s.sock".parse::<ListenAddr>().is_err());
        assert!("6379".parse::<ListenAddr>().is_err());
    }
}
