//! States on D-Bus: a `dbus-daemon` of the test's own, and `dbus-send`, which knows nothing of states.

use crate::sandbox::Sandbox;

#[cfg(not(feature = "dbus"))]
#[test]
fn a_build_without_d_bus_says_how_to_get_one() {
    let sandbox = Sandbox::new();
    let error = sandbox.fails(1, &["bus", "speed", "--as", "org.example.Car"]);
    assert!(error.contains("--features dbus"), "{error}");
}

#[test]
fn a_bus_without_a_name_or_a_rate_that_makes_no_sense_is_a_wrong_command_line() {
    let sandbox = Sandbox::new();
    sandbox.fails(2, &["bus", "speed"]);
    sandbox.fails(2, &["bus", "--as", "org.example.Car"]);
    sandbox.fails(2, &["bus", "speed", "--as", "org.example.Car", "--max-rate", "0"]);
    let both = ["bus", "speed", "--as", "org.example.Car", "--system", "--address", "unix:path=/x"];
    sandbox.fails(2, &both);
}

#[cfg(feature = "dbus")]
mod serving {
    use super::*;
    use crate::sandbox::{Running, wait_until};
    use std::{
        fs,
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"#;

    /// A bus, as long as what is returned first lives, and its address.
    fn bus(sandbox: &Sandbox) -> (Running, String) {
        let (socket, config) = (sandbox.path("bus"), sandbox.path("bus.conf"));
        fs::write(&config, CONFIG.replace("SOCKET", socket.to_str().unwrap())).unwrap();
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog"])
            .stderr(Stdio::null())
            .spawn();
        let daemon = daemon.unwrap_or_else(|error| {
            panic!("cannot start dbus-daemon ({error}); install it: apt-get install dbus")
        });
        let running = Running(daemon);
        wait_until("there is a bus", || socket.exists());
        (running, format!("unix:path={}", socket.display()))
    }

    /// Serves, and waits until that was told.
    fn serve(sandbox: &Sandbox, arguments: &[&str]) -> (Running, String) {
        let mut running = sandbox.spawn(&[&["bus"], arguments].concat());
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (running, line)
    }

    /// What a method answers, or the error.
    fn call(address: &str, path: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("dbus-send")
            .arg(format!("--bus={address}"))
            .args(["--print-reply", "--dest=org.example.Car", path])
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    const GET: &[&str] = &["org.mainstay.State1.Get"];
    const SET: &[&str] = &["org.mainstay.State1.Set", "array:byte:57,57"];

    #[test]
    fn states_are_read_and_set_over_a_bus_until_the_command_is_interrupted() {
        let sandbox = Sandbox::new();
        let (_bus, address) = bus(&sandbox);
        let _holders = [sandbox.holder("left.speed", "80"), sandbox.holder("right", "81")];
        let arguments =
            ["left.speed", "right", "--as", "org.example.Car", "--address", &address, "--json"];
        let (mut serving, said) = serve(&sandbox, &arguments);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let path = said["objects"][0]["path"].as_str().unwrap();
        assert_eq!(path, "/org/mainstay/state/left_2espeed");
        assert_eq!(
            (&said["bus_name"], &said["objects"][1]["writable"]),
            (&"org.example.Car".into(), &true.into())
        );
        let got = call(&address, path, GET).unwrap();
        assert!(
            got.contains("uint64 1") && (got.contains("\"80\"") || got.contains("38 30")),
            "{got}"
        );
        let set = call(&address, path, SET).unwrap();
        assert!(set.contains("uint64 2"), "{set}");
        assert_eq!(sandbox.ok(&["get", "left.speed"]), "99\n");

        let pid = rustix::process::Pid::from_raw(serving.0.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(serving.0.wait().unwrap().success());
        assert!(call(&address, path, GET).is_err(), "nobody has that name any more");
    }

    #[test]
    fn what_is_served_for_reading_cannot_be_set() {
        let sandbox = Sandbox::new();
        let (_bus, address) = bus(&sandbox);
        let _holder = sandbox.holder("speed", "80");
        let arguments = ["speed", "--as", "org.example.Car", "--address", &address, "--read-only"];
        let (_serving, said) = serve(&sandbox, &arguments);
        let path = "/org/mainstay/state/speed";
        assert_eq!(
            said,
            format!("speed: {path} of org.example.Car, to be read; until interrupted\n")
        );
        call(&address, path, GET).unwrap();
        let refused = call(&address, path, SET).unwrap_err();
        assert!(refused.contains("org.mainstay.State1.Error.NotPermitted"), "{refused}");
        assert_eq!(sandbox.ok(&["get", "speed"]), "80\n");
    }

    #[test]
    fn a_state_that_is_not_there_and_a_bus_that_is_not_there_are_named() {
        let sandbox = Sandbox::new();
        let nowhere =
            ["bus", "speed", "--as", "org.example.Car", "--address", "unix:path=/nowhere"];
        assert!(sandbox.fails(1, &nowhere).contains("speed: there is no such state"));
        let _holder = sandbox.holder("speed", "80");
        let error = sandbox.fails(1, &nowhere);
        assert!(error.contains("check that the bus runs"), "{error}");
    }
}
