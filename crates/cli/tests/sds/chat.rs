//! Conversations between processes that lose a third of what they are sent.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(60);

/// For those whose end is not what is looked at.
const QUICK: [&str; 2] = ["--patience", "0s"];

/// A group of this test's own: tests of a machine run beside each other.
fn group(last: u8) -> String {
    let pid = std::process::id();
    format!("239.78.{}.{last}:{}", pid >> 16 & 0xff, 20_000 + pid % 20_000)
}

fn chat(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(["sds", "chat"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A process that talks, and what it has told so far.
struct Talker {
    child: Child,
    to: Option<ChildStdin>,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Talker {
    fn start(name: &str, group: &str, more: &[&str]) -> Self {
        let fixed = ["--json", "--log", "--stay", "500ms", "--name", name, "--group", group];
        let mut child = chat(&[&fixed, more].concat()).spawn().unwrap();
        let to = child.stdin.take();
        let out = BufReader::new(child.stdout.take().unwrap());
        let told = Arc::<Mutex<Vec<Value>>>::default();
        let teller = Arc::clone(&told);
        std::thread::spawn(move || {
            for line in out.lines() {
                let value = serde_json::from_str(&line.unwrap()).unwrap();
                teller.lock().unwrap().push(value);
            }
        });
        let talker = Self { child, to, told };
        talker.wait("it has joined", |talker| talker.count("opened") == 1);
        talker
    }

    /// Where it listens, as arguments for those who want to get there.
    fn dial(&self) -> [String; 2] {
        let opened = self.all("opened").pop().unwrap();
        ["--dial".to_owned(), opened["addresses"][0].as_str().unwrap().to_owned()]
    }

    fn say(&mut self, text: &str) {
        let to = self.to.as_mut().unwrap();
        writeln!(to, "{text}").and_then(|()| to.flush()).unwrap();
    }

    fn all(&self, event: &str) -> Vec<Value> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|value| value["event"] == event).cloned().collect()
    }

    fn count(&self, event: &str) -> usize {
        self.all(event).len()
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            let told = self.told.lock().unwrap();
            assert!(started.elapsed() < LIMIT, "still not so: {what}; told was {told:#?}");
            drop(told);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the input, and waits for the process; returns the log that it prints then.
    fn end(mut self) -> Vec<(String, String)> {
        drop(self.to.take());
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}");
        self.wait("its output was read", |talker| talker.count("closed") == 1);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let log = self.all("log").pop().unwrap();
        let messages = log["messages"].as_array().unwrap();
        messages.iter().map(|row| (text(&row["name"]), text(&row["content"]))).collect()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each says `each` lines, and in the end all have all of them in the same order.
fn talk(mut talkers: Vec<(&str, Talker)>, each: usize) {
    for round in 0..each {
        for (name, talker) in &mut talkers {
            talker.say(&format!("{name} {round}"));
            std::thread::sleep(Duration::from_millis(15));
        }
    }
    let others = talkers.len() - 1;
    for (_, talker) in &talkers {
        talker.wait("every line arrived, and is known to have", |talker| {
            talker.count("delivered") == others * each && talker.count("acknowledged") == each
        });
    }
    // Of a hundred messages thirty were lost: something had to be put right.
    let repaired = |(_, talker): &(&str, Talker)| {
        talker.count("missing") + talker.count("resent") + talker.count("repaired")
    };
    assert!(talkers.iter().map(repaired).sum::<usize>() > 0);

    let names: Vec<&str> = talkers.iter().map(|(name, _)| *name).collect();
    let mut logs = talkers.into_iter().map(|(_, talker)| talker.end());
    let log = logs.next().unwrap();
    assert_eq!(log.len(), names.len() * each);
    assert!(logs.all(|other| other == log), "one order for all");
    for name in names {
        let said: Vec<&str> =
            log.iter().filter(|(who, _)| who == name).map(|(_, text)| &**text).collect();
        let expected: Vec<String> = (0..each).map(|round| format!("{name} {round}")).collect();
        assert_eq!(said, expected, "what one says stays in the order in which it was said");
    }
}

/// Two in a multicast group of a profile.
fn pair(profile: &str, last: u8) -> Vec<(&'static str, Talker)> {
    let group = group(last);
    let start = |name, seed| {
        let arguments = ["--loss", "30", "--profile", profile, "--seed", seed];
        (name, Talker::start(name, &group, &arguments))
    };
    vec![start("alice", "1"), start("bob", "2")]
}

#[test]
fn every_line_arrives_on_both_sides_in_the_same_order_although_30_percent_are_lost() {
    talk(pair("lip", 1), 25);
}

#[test]
fn the_same_holds_in_the_other_dialect() {
    talk(pair("nim", 2), 10);
}

/// Everybody's input has ended before anything is acknowledged: each has to stay for the others.
fn pipe(names: &[&str], lines: usize, loss: &str, group: &str) {
    let start = |name: &&str| {
        let mut child = chat(&[
            "--json",
            "--log",
            "--stay",
            "2s",
            "--patience",
            "45s",
            "--loss",
            loss,
            "--name",
            name,
            "--group",
            group,
        ])
        .spawn()
        .unwrap();
        let text: String = (0..lines).map(|line| format!("{name} {line}\n")).collect();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child
    };
    let children: Vec<Child> = names.iter().map(start).collect();
    // All of them are read at once: none may wait for room in its pipe.
    let readers: Vec<_> = children
        .into_iter()
        .map(|child| std::thread::spawn(|| child.wait_with_output().unwrap()))
        .collect();
    let logs = readers.into_iter().map(|reader| {
        let output = reader.join().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{names:?} losing {loss}: {stderr}");
        let told = String::from_utf8(output.stdout).unwrap();
        let mut told = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        told.find(|value| value["event"] == "log").unwrap()["messages"].clone()
    });
    let logs: Vec<Value> = logs.collect();
    assert_eq!(logs[0].as_array().unwrap().len(), names.len() * lines);
    assert!(logs.iter().all(|log| *log == logs[0]), "one order for all");
}

#[test]
fn whoever_has_nothing_more_to_say_stays_until_the_others_need_it_no_more() {
    std::thread::scope(|scope| {
        for (last, names, lines, loss) in [
            (10, &["alice", "bob"][..], 20, "30"),
            (11, &["alice", "bob"], 20, "30"),
            (12, &["alice", "bob"], 80, "30"),
            (13, &["alice", "bob"], 1, "30"),
            (14, &["alice", "bob"], 5, "0"),
            (15, &["alice", "bob", "carol"], 15, "30"),
        ] {
            scope.spawn(move || pipe(names, lines, loss, &group(last)));
        }
    });
}

#[test]
fn one_who_comes_late_gets_what_was_said_before() {
    let group = group(3);
    let mut alice = Talker::start("alice", &group, &[]);
    for round in 0..5 {
        alice.say(&format!("early {round}"));
    }
    alice.wait("it was said", |alice| alice.count("said") == 5);
    let bob = Talker::start("bob", &group, &["--loss", "30", "--seed", "3"]);
    bob.wait("all of it arrived", |bob| bob.count("delivered") == 5);
    alice.wait("and is acknowledged", |alice| alice.count("acknowledged") == 5);
    let log = alice.end();
    assert_eq!(log, bob.end());
}

/// A file with a secret, in a folder that goes with it.
fn secret(bytes: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, bytes).unwrap();
    (folder, path.into_os_string().into_string().unwrap())
}

#[test]
fn the_same_holds_over_tcp_between_each_two_of_three() {
    let (_folder, secret) = secret(b"0123456789abcdef");
    let start = |name, seed, dial: &[String]| {
        let fixed = ["--over", "mesh", "--secret-file", &secret, "--loss", "30", "--seed", seed];
        let dial: Vec<&str> = dial.iter().map(String::as_str).collect();
        (name, Talker::start(name, "room", &[&fixed[..], &dial].concat()))
    };
    let alice = start("alice", "1", &[]);
    let bob = start("bob", "2", &alice.1.dial());
    let carol = start("carol", "3", &[alice.1.dial(), bob.1.dial()].concat());
    talk(vec![alice, bob, carol], 10);
}

#[test]
fn over_tcp_nobody_gets_in_without_the_secret_or_from_another_group() {
    let (_folder, right) = secret(b"0123456789abcdef");
    let (_another, wrong) = secret(b"another secret !");
    let arguments = |secret| ["--over", "mesh", "--secret-file", secret];
    let mut alice = Talker::start("alice", "room", &[&arguments(&right)[..], &QUICK].concat());
    let dial = alice.dial();
    let dial: Vec<&str> = dial.iter().map(String::as_str).collect();
    let more = |secret| [&arguments(secret)[..], &dial, &QUICK].concat();
    let eve = Talker::start("eve", "room", &more(&wrong));
    let mallory = Talker::start("mallory", "another room", &more(&right));
    let bob = Talker::start("bob", "room", &more(&right));
    alice.say("among ourselves");
    bob.wait("a member hears it", |bob| bob.count("delivered") == 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((eve.count("delivered"), mallory.count("delivered")), (0, 0));
}

#[test]
fn over_tcp_a_secret_is_asked_for() {
    let output = run("", &["--over", "mesh"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: --over mesh needs --secret-file"), "{stderr}");
}

/// Alice and carol know only bob, so what they say to each other goes through him.
#[cfg(feature = "gossipsub")]
#[test]
fn the_same_holds_over_gossipsub_among_three_in_a_line() {
    let start = |name, seed, dial: &[String]| {
        let fixed = ["--over", "gossipsub", "--loss", "30", "--seed", seed];
        let dial: Vec<&str> = dial.iter().map(String::as_str).collect();
        (name, Talker::start(name, "room", &[&fixed[..], &dial].concat()))
    };
    let bob = start("bob", "2", &[]);
    let alice = start("alice", "1", &bob.1.dial());
    let carol = start("carol", "3", &bob.1.dial());
    talk(vec![alice, bob, carol], 10);
}

#[cfg(not(feature = "gossipsub"))]
#[test]
fn a_program_without_gossipsub_says_how_to_build_one_with_it() {
    let output = run("", &["--over", "gossipsub"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let hint = "build one with `cargo install --path crates/cli --features gossipsub`";
    assert!(stderr.contains(hint), "{stderr}");
}

fn run(input: &str, arguments: &[&str]) -> Output {
    let mut child = chat(arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn one_who_talks_to_nobody_is_told_so_and_ends_in_time() {
    let group = group(4);
    let arguments = ["--name", "alice", "--group", &group, "--stay", "0s", "--patience", "1s"];
    let started = Instant::now();
    let output = run("hello?\n", &arguments);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "error: 1 message was never acknowledged: nobody was there, or too much is lost\n"
    );
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("   #1  alice     hello?\n"), "{stdout}");
}

#[test]
fn an_address_that_is_no_group_is_refused() {
    let output = run("", &["--group", "10.0.0.1:80"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: 10.0.0.1 is no multicast group"), "{stderr}");
    let output = run("", &["--group", "room"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: \"room\" is no multicast group"), "{stderr}");
}

#[test]
fn what_is_of_no_use_on_the_way_that_was_chosen_is_refused() {
    for (arguments, refusal) in [
        (&["--dial", "127.0.0.1:1"][..], "--dial is of no use over multicast"),
        (&["--listen", "127.0.0.1:1"], "--listen is of no use over multicast"),
        (&["--secret-file", "x"], "--secret-file is of no use over multicast"),
        (&["--over", "mesh", "--hops", "2"], "--hops is of no use over mesh"),
        (&["--over", "mesh", "--interface", "127.0.0.1"], "--interface is of no use over mesh"),
        (&["--over", "gossipsub", "--secret-file", "x"], "--secret-file is of no use over gossip"),
    ] {
        let output = run("", arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with(&format!("error: {refusal}")), "{stderr}");
        assert!(stderr.contains("choose --over"), "{stderr}");
    }
}

#[test]
fn a_line_that_could_steer_a_terminal_is_shown_harmless() {
    let group = group(5);
    let arguments = ["--name", "alice", "--group", &group, "--stay", "0s", "--patience", "0s"];
    let stdout = String::from_utf8(run("\x1b[2Jboo\n", &arguments).stdout).unwrap();
    assert!(stdout.contains("\\u{1b}[2Jboo") && !stdout.contains('\x1b'), "{stdout}");
}
