//! `mainstay channel cert`.

use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
};
use mainstay::channel::ClusterId;
use std::path::PathBuf;

/// Make an authority for a cluster, and certificates for its nodes
///
/// In FOLDER come to be: the authority (`ca.pem`, `ca.key`) and the cluster's id (`cluster`), unless
/// they are there already; then `node-N.pem` and `node-N.key` for each node. Give each node its own
/// two files and `ca.pem`, and nobody `ca.key`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay channel cert certs --node 1 --node 2 --node 3
  mainstay channel cert certs --node 4 --days 30
  mainstay channel ping --listen 127.0.0.1:7400 --over tls --node 1 --certs certs &")]
pub(crate) struct Args {
    /// Where to put them
    folder: PathBuf,
    /// The number of a node; may be given several times
    #[arg(long = "node", value_name = "N", required = true, value_parser = clap::value_parser!(u64).range(1..))]
    nodes: Vec<u64>,
    /// The id of a new cluster [default: a random one]
    #[arg(long, value_name = "UUID")]
    cluster: Option<ClusterId>,
    /// How long the certificates of nodes are valid
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
}

#[cfg(not(feature = "tls"))]
pub(super) fn run(args: &Args, _: &mut Output) -> Result<Outcome> {
    // Complete command lines are checked in every build.
    let Args { folder: _, nodes: _, cluster: _, days: _ } = args;
    Err(CliError::WithoutTls)
}

#[cfg(feature = "tls")]
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let made = make(&args.folder, args.cluster, &args.nodes, args.days)?;
    if out.json {
        out.document(&made)?;
    } else {
        out.line(&format!("cluster {} in {}", made.cluster, args.folder.display()))?;
        for file in &made.files {
            out.line(&format!("made {}", file.display()))?;
        }
    }
    Ok(Outcome::Fine)
}

#[cfg(feature = "tls")]
pub(super) use making::make;

#[cfg(feature = "tls")]
mod making {
    use super::*;
    use crate::channel::wire::cluster_of;
    use mainstay::{
        channel::{
            NodeId,
            net::{cluster_name, node_name},
        },
        pool::Uuid,
    };
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
        KeyPair, KeyUsagePurpose, date_time_ymd,
    };
    use serde::Serialize;
    use std::{
        fs::{self, OpenOptions},
        io::{Read, Write},
        os::unix::fs::OpenOptionsExt,
        path::Path,
        time::{Duration, SystemTime, UNIX_EPOCH},
    };

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// The authority outlives what it signs.
    const AUTHORITY_DAYS: u64 = 36_500;

    #[derive(Serialize)]
    pub(in crate::channel) struct Made {
        pub(super) cluster: String,
        pub(super) files: Vec<PathBuf>,
    }

    /// Makes what is missing; never writes over anything.
    pub(in crate::channel) fn make(
        folder: &Path,
        cluster: Option<ClusterId>,
        nodes: &[u64],
        days: u64,
    ) -> Result<Made> {
        let hint = "choose a folder that can be written to";
        fs::create_dir_all(folder).map_err(CliError::file(folder, "make", hint))?;
        let mut files = Vec::new();
        let authority = folder.join("ca.pem");
        if !authority.exists() {
            let cluster = match cluster {
                Some(cluster) => cluster,
                None => ClusterId(random_uuid()?),
            };
            make_authority(folder, cluster, &mut files)?;
        }
        let cluster = cluster_of(folder)?;
        let key = KeyPair::from_pem(&read(&folder.join("ca.key"))?)?;
        let issuer = Issuer::new(authority_params(cluster), key);
        for node in nodes {
            let node = NodeId(*node);
            let mut params =
                CertificateParams::new(vec![cluster_name(cluster), node_name(cluster, node)])?;
            params.distinguished_name.push(DnType::CommonName, format!("node {node}"));
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            set_time(&mut params, days);
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?;
            let path = |end| folder.join(format!("node-{node}.{end}"));
            put(path("key"), 0o600, &key.serialize_pem(), &mut files)?;
            put(path("pem"), 0o644, &certificate.pem(), &mut files)?;
        }
        Ok(Made { cluster: cluster.to_string(), files })
    }

    /// All that a certificate says of who signed it.
    fn authority_params(cluster: ClusterId) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("mainstay cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    fn make_authority(folder: &Path, cluster: ClusterId, files: &mut Vec<PathBuf>) -> Result<()> {
        let mut params = authority_params(cluster);
        set_time(&mut params, AUTHORITY_DAYS);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        put(folder.join("cluster"), 0o644, &format!("{cluster}\n"), files)?;
        put(folder.join("ca.key"), 0o600, &key.serialize_pem(), files)?;
        put(folder.join("ca.pem"), 0o644, &certificate.pem(), files)
    }

    /// From yesterday, for clocks that are behind.
    fn set_time(params: &mut CertificateParams, days: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(DAY);
        params.not_after = epoch + now + DAY * u32::try_from(days).unwrap_or(u32::MAX);
    }

    /// Of version 4.
    fn random_uuid() -> Result<Uuid> {
        let path = Path::new("/dev/urandom");
        let mut bytes = [0; 16];
        fs::File::open(path)
            .and_then(|mut urandom| urandom.read_exact(&mut bytes))
            .map_err(CliError::file(path, "read", "name a --cluster"))?;
        bytes[6] = bytes[6] & 0x0F | 0x40;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Ok(Uuid::from_bytes(bytes))
    }

    fn read(path: &Path) -> Result<String> {
        let hint = "name a folder that this command made";
        fs::read_to_string(path).map_err(CliError::file(path, "read", hint))
    }

    fn put(path: PathBuf, mode: u32, text: &str, files: &mut Vec<PathBuf>) -> Result<()> {
        let hint = "remove it first if it is to be replaced";
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let mut file = opened.map_err(CliError::file(&path, "create", hint))?;
        file.write_all(text.as_bytes()).map_err(CliError::file(&path, "write", "free space"))?;
        files.push(path);
        Ok(())
    }
}
