//! States that the tests write themselves, and processes that keep one alive.

use crate::sandbox::{Running, Sandbox, wait_until};
use mainstay::state::{Domain, Record};
use std::io::{BufRead, BufReader};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A type that says what its fields are.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, PartialEq, Debug)]
#[repr(C)]
pub(crate) struct Pose {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) steps: u64,
    pub(crate) room: [u8; 8],
}

impl Record for Pose {
    const NAME: &'static str = "test.pose/1";
    const FIELDS: &'static str = "x: f64, y: f64, steps: u64, room: text[8]";
}

impl Sandbox {
    /// This very process as another subscriber.
    pub(crate) fn domain(&self) -> Domain {
        Domain::open(self.path("")).unwrap()
    }

    /// A process that holds a state of this text.
    pub(crate) fn holder(&self, name: &str, text: &str) -> Running {
        let mut holder = self.spawn(&["set", name, text, "--hold"]);
        let mut line = String::new();
        BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.ends_with("held until interrupted\n"), "{line}");
        holder
    }

    /// A process that writes this state all the time.
    pub(crate) fn feeder(&self, name: &str) -> Running {
        let feeder = self.spawn(&["feed", name]);
        wait_until("it is fed", || self.run(&["get", name, "--version"]).code == 0);
        feeder
    }

    /// Names of the states that are listed.
    pub(crate) fn listed(&self) -> Vec<String> {
        let states = self.json(&["ls", "--sample", "0ms"]);
        let states = states.as_array().unwrap();
        states.iter().map(|state| state["name"].as_str().unwrap().to_owned()).collect()
    }
}
