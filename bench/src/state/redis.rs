//! Redis on a unix socket, without persistence, where it is installed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Commands, Connection};

use super::value::{Keeper, Reader, Size, Writer, bytes, stamp_of};
use crate::{Outcome, raw};

pub(super) const KEEPER: Keeper = Keeper {
    name: "redis",
    writer: |folder, size| Ok(Box::new(serve(folder, size)?)),
    reader: |folder, size| {
        let copy = vec![0; size.words];
        Ok(Box::new(Looking { connection: connect(&socket(folder))?, copy }))
    },
};

const PROGRAM: &str = "redis-server";
const KEY: &str = "value";
/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(10);

/// Whether there is a server to start.
pub(super) fn is_installed() -> bool {
    let version = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to do about a failure.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Serving {
    connection: Connection,
    _server: Server,
}

struct Looking {
    connection: Connection,
    copy: Vec<u64>,
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

fn serve(folder: &Path, size: Size) -> Outcome<Serving> {
    let socket = socket(folder);
    let mut command = Command::new(PROGRAM);
    command
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(&socket)
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // A writer is killed when it is not needed any more, and drops nothing.
    let server = Server(raw::spawn_mortal(&mut command)?);
    let start = Instant::now();
    let connection = loop {
        match connect(&socket) {
            Ok(connection) => break connection,
            Err(error) if start.elapsed() > START_MAX => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut serving = Serving { connection, _server: server };
    serving.commit(&vec![0; size.words])?;
    Ok(serving)
}

fn connect(socket: &Path) -> Outcome<Connection> {
    let address = format!("unix://{}", socket.display());
    Ok(redis::Client::open(address)?.get_connection()?)
}

impl Writer for Serving {
    fn commit(&mut self, value: &[u64]) -> Outcome<()> {
        Ok(self.connection.set(KEY, bytes(value))?)
    }
}

impl Reader for Looking {
    fn read(&mut self) -> Outcome<u64> {
        let value: Vec<u8> = self.connection.get(KEY)?;
        let (words, _) = value.as_chunks::<8>();
        for (to, from) in self.copy.iter_mut().zip(words) {
            *to = u64::from_le_bytes(*from);
        }
        Ok(stamp_of(&self.copy))
    }
}
