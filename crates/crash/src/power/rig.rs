//! An ext4 on a device of which every write and flush is logged, and images to look at.
//!
//! QEMU's storage daemon exports an image file through FUSE and logs what is written to it; the file
//! is mounted by a loop device. All mounts are in a namespace of this process, and end with it.

use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{UnshareFlags, unshare_unsafe},
};
use std::{
    error::Error,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub(super) type Outcome<T> = Result<T, Box<dyn Error>>;

/// How large the file system is; the device is longer, for acknowledgements.
pub(super) const FS_BYTES: u64 = 60 << 20;
const DEVICE_BYTES: u64 = 64 << 20;

/// What the rig calls, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 4] = [
    ("qemu-storage-daemon", "qemu-system-common"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("umount", "mount"),
];

/// Why this machine cannot do it.
pub(super) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root, to mount".into());
    }
    let missing = PROGRAMS.iter().find(|(program, _)| !is_installed(program));
    if let Some((program, package)) = missing {
        return Some(format!("{program} is missing; apt-get install {package}"));
    }
    (!Path::new("/dev/fuse").exists()).then(|| "there is no /dev/fuse".into())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).any(|folder| folder.join(program).is_file())
}

fn call(program: &str, arguments: &[&str]) -> Outcome<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), said.trim()).into())
}

pub(super) struct Rig {
    work: tempfile::TempDir,
    daemon: Option<Pid>,
}

impl Rig {
    pub(super) fn start() -> Outcome<Self> {
        // SAFETY: this process has one thread, and shares no file system state with another.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        call("mount", &["--make-rprivate", "/"])?;
        let work = tempfile::tempdir()?;
        let mut rig = Self { work, daemon: None };
        let path = |name: &str| rig.work.path().join(name).display().to_string();
        let (base, log, export, pid) = (path("base"), path("log"), path("export"), path("pid"));
        File::create(&base)?.set_len(DEVICE_BYTES)?;
        File::create(&log)?.set_len(DEVICE_BYTES)?;
        File::create(&export)?;
        let plain = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
        let blocks = format!("{}k", FS_BYTES >> 10);
        call("mkfs.ext4", &["-q", "-F", "-E", plain, &base, &blocks])?;
        call("cp", &["--sparse=always", &base, &path("start")])?;
        call(
            "qemu-storage-daemon",
            &[
                "--blockdev",
                &format!("driver=file,node-name=f,filename={base}"),
                "--blockdev",
                &format!("driver=file,node-name=l,filename={log}"),
                "--blockdev",
                "driver=blklogwrites,node-name=lw,file=f,log=l,log-sector-size=512",
                "--export",
                &format!("type=fuse,id=e,node-name=lw,mountpoint={export},writable=on"),
                "--pidfile",
                &pid,
                "--daemonize",
            ],
        )?;
        let number = fs::read_to_string(&pid)?.trim().parse()?;
        rig.daemon = Pid::from_raw(number);
        fs::create_dir(rig.folder())?;
        let folder = rig.folder().display().to_string();
        let options = format!("loop,sizelimit={FS_BYTES}");
        call("mount", &["-o", &options, &export, &folder])?;
        Ok(rig)
    }

    /// Where the file system is mounted.
    pub(super) fn folder(&self) -> PathBuf {
        self.work.path().join("mounted")
    }

    /// The device as a file, for acknowledgements behind the file system.
    pub(super) fn device(&self) -> PathBuf {
        self.work.path().join("export")
    }

    /// Cuts the power; the log.
    pub(super) fn power_off(&self) -> Outcome<PathBuf> {
        self.kill_daemon();
        // What is still in caches finds no device any more.
        call("umount", &["-l", &self.folder().display().to_string()])?;
        Ok(self.work.path().join("log"))
    }

    /// A copy of the device as it was at first, changed by `change`, and mounted.
    pub(super) fn mount_image(
        &self,
        change: impl FnOnce(&File) -> std::io::Result<()>,
    ) -> Outcome<Mounted> {
        let image = self.work.path().join("image");
        let text = image.display().to_string();
        let start = self.work.path().join("start").display().to_string();
        call("cp", &["--sparse=always", &start, &text])?;
        let file = File::options().write(true).open(&image)?;
        change(&file)?;
        file.set_len(FS_BYTES)?;
        let folder = self.work.path().join("looked-at");
        fs::create_dir_all(&folder)?;
        call("mount", &["-o", "loop", &text, &folder.display().to_string()])?;
        Ok(Mounted { folder })
    }

    fn kill_daemon(&self) {
        if let Some(pid) = self.daemon {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill_daemon();
        for mounted in ["looked-at", "mounted", "export"] {
            let path = self.work.path().join(mounted);
            let _ = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
        }
    }
}

/// An image of the device, mounted.
pub(super) struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn unmount(self) -> Outcome<()> {
        call("umount", &[&self.folder.display().to_string()])
    }
}
