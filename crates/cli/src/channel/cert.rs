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
/// two files, `ca.pem` and `cluster`, and nobody `ca.key`. All of it is made, or nothing; and what a
/// run left half done that was killed, the next one completes.
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
    /// The id of a new cluster, or that of the one whose folder it is [default: a random one]
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
        collections::BTreeSet,
        fs,
        io::{self, Read, Write},
        os::unix::fs::PermissionsExt,
        path::Path,
        time::{Duration, SystemTime, UNIX_EPOCH},
    };
    use tempfile::NamedTempFile;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// The authority outlives what it signs.
    const AUTHORITY_DAYS: u64 = 36_500;

    #[derive(Serialize)]
    pub(in crate::channel) struct Made {
        pub(super) cluster: String,
        pub(super) files: Vec<PathBuf>,
    }

    const TAKEN: &str = "remove it first if it is to be replaced";

    /// Makes what is missing; never writes over anything.
    pub(in crate::channel) fn make(
        folder: &Path,
        cluster: Option<ClusterId>,
        nodes: &[u64],
        days: u64,
    ) -> Result<Made> {
        let hint = "choose a folder that can be written to";
        fs::create_dir_all(folder).map_err(CliError::file(folder, "make", hint))?;
        let mut files = Files { folder, written: Vec::new() };
        let (cluster, issuer) = authority(&mut files, cluster)?;
        for node in nodes.iter().copied().collect::<BTreeSet<_>>() {
            certify(&mut files, &issuer, cluster, NodeId(node), days)?;
        }
        Ok(Made { cluster: cluster.to_string(), files: files.appear()? })
    }

    /// The authority of the folder. Its certificate comes last: where it is missing, nothing was
    /// signed yet, and what there is of the rest was left by a run that was killed.
    fn authority(
        files: &mut Files<'_>,
        given: Option<ClusterId>,
    ) -> Result<(ClusterId, Issuer<'static, KeyPair>)> {
        let folder = files.folder;
        let is_new = !folder.join("ca.pem").exists();
        let cluster = if is_new && !folder.join("cluster").exists() {
            let cluster = match given {
                Some(cluster) => cluster,
                None => ClusterId(random_uuid()?),
            };
            files.write("cluster", 0o644, &format!("{cluster}\n"))?;
            cluster
        } else {
            cluster_of(folder)?
        };
        if let Some(given) = given.filter(|given| *given != cluster) {
            return Err(CliError::OtherCluster { folder: folder.to_owned(), cluster, given });
        }
        let key = if is_new {
            files.key("ca.key")?
        } else {
            KeyPair::from_pem(&read(&folder.join("ca.key"))?)?
        };
        let mut params = authority_params(cluster);
        if is_new {
            set_time(&mut params, AUTHORITY_DAYS);
            let certificate = params.self_signed(&key)?;
            files.write("ca.pem", 0o644, &certificate.pem())?;
        }
        Ok((cluster, Issuer::new(params, key)))
    }

    fn certify(
        files: &mut Files<'_>,
        issuer: &Issuer<'_, KeyPair>,
        cluster: ClusterId,
        node: NodeId,
        days: u64,
    ) -> Result<()> {
        let name = format!("node-{node}.pem");
        if files.folder.join(&name).exists() {
            let path = files.folder.join(&name);
            return Err(CliError::file(&path, "create", TAKEN)(
                io::ErrorKind::AlreadyExists.into(),
            ));
        }
        let mut params =
            CertificateParams::new(vec![cluster_name(cluster), node_name(cluster, node)])?;
        params.distinguished_name.push(DnType::CommonName, format!("node {node}"));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_time(&mut params, days);
        let key = files.key(&format!("node-{node}.key"))?;
        let certificate = params.signed_by(&key, issuer)?;
        files.write(&name, 0o644, &certificate.pem())
    }

    /// Files that are written aside, and appear in the folder when all of them are whole.
    struct Files<'a> {
        folder: &'a Path,
        written: Vec<(NamedTempFile, PathBuf)>,
    }

    impl Files<'_> {
        fn write(&mut self, name: &str, mode: u32, text: &str) -> Result<()> {
            let hint = "choose a folder that can be written to, and free space";
            let written = tempfile::Builder::new()
                .prefix(".mainstay-")
                .permissions(fs::Permissions::from_mode(mode))
                .tempfile_in(self.folder)
                .and_then(|mut file| {
                    file.write_all(text.as_bytes())?;
                    file.as_file().sync_all()?;
                    Ok(file)
                });
            let file = written.map_err(CliError::file(self.folder, "write in", hint))?;
            self.written.push((file, self.folder.join(name)));
            Ok(())
        }

        /// The key that is there already, without its certificate; or else a new one.
        fn key(&mut self, name: &str) -> Result<KeyPair> {
            let path = self.folder.join(name);
            if path.exists() {
                return Ok(KeyPair::from_pem(&read(&path)?)?);
            }
            let key = KeyPair::generate()?;
            self.write(name, 0o600, &key.serialize_pem())?;
            Ok(key)
        }

        /// In the order in which they were written. When one cannot, none stays.
        fn appear(self) -> Result<Vec<PathBuf>> {
            let mut files = Vec::new();
            for (file, path) in self.written {
                if let Err(error) = file.persist_noclobber(&path) {
                    for made in &files {
                        // What cannot be removed, the next run completes.
                        let _ = fs::remove_file(made);
                    }
                    return Err(CliError::file(&path, "create", TAKEN)(error.error));
                }
                files.push(path);
            }
            Ok(files)
        }
    }

    /// All that a certificate says of who signed it.
    fn authority_params(cluster: ClusterId) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("mainstay cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
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
}
