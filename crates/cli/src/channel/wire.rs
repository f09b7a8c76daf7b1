//! What the commands have in common: over what to talk, and as whom.

use crate::error::{CliError, Result};
use mainstay::channel::{
    ClusterId, NodeId, Secret,
    handshake::{Local, Purpose},
    net::{Settings, Wire},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Over what processes talk.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    /// Shared memory between two processes of this host
    Shm,
    /// TCP, with a shared secret as proof
    Tcp,
    /// TLS 1.3 over TCP, with certificates
    #[cfg_attr(not(feature = "tls"), value(hide = true))]
    Tls,
    /// QUIC, with certificates
    #[cfg_attr(not(feature = "tls"), value(hide = true))]
    Quic,
}

impl Over {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }
}

/// Who we are to the other end.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Identity {
    /// Our number in the cluster; every node has another
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) node: u64,
    #[command(flatten)]
    credentials: Credentials,
}

/// What shows that we belong to the cluster.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Credentials {
    /// Which cluster, by its UUID [default: that of the certificates' folder, or zeros]
    #[arg(long, value_name = "UUID")]
    cluster: Option<ClusterId>,
    /// The file with the cluster's shared secret, 16 to 1,024 bytes
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The folder that `mainstay channel cert` made, for TLS and QUIC
    #[arg(long, value_name = "FOLDER")]
    certs: Option<PathBuf>,
}

impl Identity {
    pub(crate) fn new(node: u64, credentials: Credentials) -> Self {
        Self { node, credentials }
    }

    /// Over what, and with which settings.
    pub(super) fn on(&self, over: Over) -> Result<(Wire, Settings)> {
        self.on_for(over, "ping")
    }

    /// The same, for those who talk of the same thing.
    pub(crate) fn on_for(&self, over: Over, purpose: &str) -> Result<(Wire, Settings)> {
        #[cfg(not(feature = "tls"))]
        if let Over::Tls | Over::Quic = over {
            // Whatever else is missing: this program cannot do it.
            return Err(CliError::WithoutTls);
        }
        let cluster = match (self.credentials.cluster, &self.credentials.certs) {
            (Some(cluster), _) => cluster,
            (None, Some(folder)) => cluster_of(folder)?,
            (None, None) => ClusterId::default(),
        };
        let local = Local::new(NodeId(self.node), cluster, Purpose::new(purpose)?);
        let settings = Settings::new(match &self.credentials.secret_file {
            Some(path) => local.with_secret(secret(path)?),
            None => local,
        });
        Ok((self.wire(over)?, settings))
    }

    fn wire(&self, over: Over) -> Result<Wire> {
        let missing = |missing| Err(CliError::Missing { over: over.name().to_owned(), missing });
        match over {
            Over::Shm => missing("no network: it stays on this host"),
            Over::Tcp if self.credentials.secret_file.is_none() => {
                missing("--secret-file, as from `head -c 32 /dev/urandom > secret`")
            }
            Over::Tcp => Ok(Wire::Tcp),
            Over::Tls | Over::Quic if self.credentials.certs.is_none() => {
                missing("--certs, a folder as `mainstay channel cert` makes it")
            }
            Over::Tls | Over::Quic => self.certified(over),
        }
    }

    #[cfg(feature = "tls")]
    fn certified(&self, over: Over) -> Result<Wire> {
        let folder = self.credentials.certs.clone().unwrap_or_default();
        certified(over, &folder, NodeId(self.node))
    }

    #[cfg(not(feature = "tls"))]
    fn certified(&self, _: Over) -> Result<Wire> {
        Err(CliError::WithoutTls)
    }
}

/// A wire with the certificate of a node from a folder.
#[cfg(feature = "tls")]
pub(super) fn certified(over: Over, folder: &Path, node: NodeId) -> Result<Wire> {
    use mainstay::channel::net::{Credentials, QuicEndpoint};
    let credentials = Credentials::from_files(
        &folder.join("ca.pem"),
        &folder.join(format!("node-{node}.pem")),
        &folder.join(format!("node-{node}.key")),
    )?;
    match over {
        Over::Quic => Ok(Wire::Quic(QuicEndpoint::new(credentials)?)),
        _ => Ok(Wire::Tls(credentials)),
    }
}

/// The cluster that the certificates in a folder are of.
pub(super) fn cluster_of(folder: &Path) -> Result<ClusterId> {
    let path = folder.join("cluster");
    let hint = "name a folder that `mainstay channel cert` made";
    let text = fs::read_to_string(&path).map_err(CliError::file(&path, "read", hint))?;
    Ok(text.trim().parse()?)
}

fn secret(path: &Path) -> Result<Secret> {
    let hint = "make one with `head -c 32 /dev/urandom > FILE`, and copy it to every node";
    let bytes = fs::read(path).map_err(CliError::file(path, "read", hint))?;
    Ok(Secret::new(bytes)?)
}
