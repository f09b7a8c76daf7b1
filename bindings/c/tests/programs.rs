//! C programs that include the headers, link with the library, and check what they get.
//!
//! Each is compiled with all warnings as errors, once with the shared library and once with the
//! static one, and ends with status 0 if all is as it says. A program that the library aborts, or
//! that hangs, fails.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// After so long a program hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Cargo puts the library beside the tests.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.parent().expect("a file is in a folder");
    assert!(folder.join("libsds.so").is_file(), "no libsds.so in {}", folder.display());
    folder.to_path_buf()
}

/// A line of the file for pkg-config, which builds of other programs go by.
fn said_by_pkg_config(key: &str) -> &'static str {
    let lines = include_str!("../libsds.pc").lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    values.next().expect("the file has the line")
}

#[derive(Clone, Copy, Debug)]
enum Linked {
    Shared,
    Static,
}

fn compile(name: &str, linked: Linked, to: &Path) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = libraries();
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-pedantic"])
        .arg("-I")
        .arg(here.join("include"))
        .arg(here.join("tests/c").join(format!("{name}.c")))
        .arg("-o")
        .arg(to);
    match linked {
        Linked::Shared => {
            cc.arg("-L").arg(&libraries).arg("-lsds");
            cc.arg(format!("-Wl,-rpath,{}", libraries.display()));
        }
        // What Rust's standard library needs.
        Linked::Static => {
            cc.arg(libraries.join("libsds.a")).args(said_by_pkg_config("Libs.private").split(' '));
        }
    }
    let output = cc.arg("-lpthread").output().expect("a linker is there, and cc is one");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}, {linked:?}: {said}");
}

fn run(name: &str) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for linked in [Linked::Shared, Linked::Static] {
        let room = folder.path().join(format!("{linked:?}"));
        std::fs::create_dir(&room).expect("the folder is ours");
        let program = room.join(name);
        compile(name, linked, &program);
        let mut command = Command::new(&program);
        command.current_dir(&room).stdin(Stdio::null());
        let mut child = command.spawn().expect("what was just linked can be run");
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("it is our child") {
                break status;
            }
            if started.elapsed() > LIMIT {
                let _gone = child.kill();
                let _gone = child.wait();
                panic!("{name}, {linked:?}: hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{name}, {linked:?}: {status}; it says above what is wrong");
    }
}

#[test]
fn a_program_for_the_field_s_header_sends_receives_and_is_told() {
    run("compat");
}

#[test]
fn no_call_of_the_field_s_header_ends_its_host() {
    run("hostile");
}

#[test]
fn a_program_for_the_better_header_sends_receives_keeps_and_comes_back() {
    run("node");
}

#[test]
fn managers_that_were_cleaned_up_leave_no_thread_and_no_descriptor() {
    run("many");
}

/// As it is installed: `PREFIX/lib`, `PREFIX/include`, `PREFIX/lib/pkgconfig`.
#[test]
fn an_installed_tree_is_found_by_pkg_config() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (lib, include) = (folder.path().join("lib"), folder.path().join("include"));
    for made in [&lib, &include, &lib.join("pkgconfig")] {
        std::fs::create_dir_all(made).expect("the folder is ours");
    }
    let copy = |from: &Path, to: PathBuf| {
        let _bytes = std::fs::copy(from, to).expect("the folder is ours");
    };
    copy(&libraries().join("libsds.so"), lib.join("libsds.so"));
    copy(&here.join("libsds.pc"), lib.join("pkgconfig/libsds.pc"));
    for header in ["libsds.h", "mainstay_sds.h"] {
        copy(&here.join("include").join(header), include.join(header));
    }
    let mut command = Command::new("pkg-config");
    command.args(["--cflags", "--libs", "libsds"]).env("PKG_CONFIG_PATH", lib.join("pkgconfig"));
    let flags = match command.output() {
        Ok(output) => output,
        Err(missing) => {
            eprintln!("skipped: there is no pkg-config: {missing}");
            return;
        }
    };
    assert!(flags.status.success(), "{}", String::from_utf8_lossy(&flags.stderr));
    let flags = String::from_utf8(flags.stdout).expect("flags are text");
    let program = folder.path().join("many");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L"]).arg(here.join("tests/c/many.c"));
    cc.arg("-o").arg(&program).args(flags.split_whitespace()).arg("-lpthread");
    let output = cc.output().expect("a linker is there, and cc is one");
    assert!(output.status.success(), "{flags}: {}", String::from_utf8_lossy(&output.stderr));
    let status = Command::new(&program).env("LD_LIBRARY_PATH", &lib).status();
    assert!(status.expect("what was just linked can be run").success(), "{flags}");
}

#[test]
fn pkg_config_is_told_the_version_and_the_library_of_this_crate() {
    assert_eq!(said_by_pkg_config("Version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(said_by_pkg_config("Libs"), "-L${libdir} -lsds");
}

#[test]
fn the_headers_are_c_plus_plus_as_well() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for header in ["libsds.h", "mainstay_sds.h"] {
        let source = folder.path().join("include.cc");
        let text = format!("#include \"{header}\"\nint main() {{ return 0; }}\n");
        std::fs::write(&source, text).expect("the folder is ours");
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
        let mut cc = Command::new("cc");
        cc.args(["-fsyntax-only", "-Wall", "-Werror", "-I"]).arg(include).arg(&source);
        let output = cc.output().expect("a linker is there, and cc is one");
        let said = String::from_utf8_lossy(&output.stderr);
        // A C compiler alone is enough for the rest.
        if said.contains("cc1plus") {
            eprintln!("skipped: there is no C++ compiler");
            return;
        }
        assert!(output.status.success(), "{header}: {said}");
    }
}
