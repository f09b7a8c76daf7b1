//! A running `peer.mjs`.

use crate::group::Said;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// One participant of `@waku/sds`. Ends with its standard input.
pub(crate) struct Peer {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// Everything it has told so far.
    events: Vec<Value>,
}

impl Peer {
    pub(crate) fn start(folder: &str, name: &str, options: &Value) -> Self {
        let mut child = Command::new("node")
            .arg(Path::new(folder).join("peer.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self { child, to, from, events: Vec::new() };
        peer.ask(json!({ "do": "clock", "ms": crate::group::START_MS }));
        peer.ask(json!({ "do": "open", "name": "room", "participant": name, "options": options }));
        peer
    }

    /// Has it do something; the messages that it wants to be sent.
    pub(crate) fn ask(&mut self, command: Value) -> Vec<Vec<u8>> {
        let mut answer = self.answer(&command);
        if let Value::Array(events) = answer["events"].take() {
            self.events.extend(events);
        }
        let out = answer["out"].as_array().unwrap();
        out.iter().map(|message| from_hex(message.as_str().unwrap())).collect()
    }

    fn answer(&mut self, command: &Value) -> Value {
        let to = self.to.as_mut().unwrap();
        writeln!(to, "{command}").and_then(|()| to.flush()).unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(answer.get("error"), None, "{command}");
        answer
    }

    /// Its log, in its order.
    pub(crate) fn log(&mut self) -> Vec<Said> {
        let answer = self.answer(&json!({ "do": "log" }));
        let entries = answer["events"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| Said {
                id: entry["id"].as_str().unwrap().to_owned(),
                lamport: entry["lamport"].as_u64().unwrap(),
                content: String::from_utf8(from_hex(entry["content"].as_str().unwrap())).unwrap(),
            })
            .collect()
    }

    /// All events of a name.
    pub(crate) fn told(&self, event: &str) -> Vec<&Value> {
        self.events.iter().filter(|told| told["event"] == event).collect()
    }

    pub(crate) fn was_told(&self, event: &str, id: &str) -> bool {
        self.told(event).iter().any(|told| told["id"] == id)
    }

    pub(crate) fn was_told_in_a_list(&self, event: &str, id: &str) -> bool {
        let has = |told: &&Value| told["ids"].as_array().unwrap().iter().any(|other| other == id);
        self.told(event).iter().any(has)
    }

    /// What it took a message for.
    pub(crate) fn kind_of(&self, id: &str) -> Option<String> {
        let read = self.told("read").into_iter().find(|told| told["id"] == id)?;
        read["kind"].as_str().map(str::to_owned)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
