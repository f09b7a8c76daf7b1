//! What a follower refuses whoever wants to write to it, and a leader whoever has nothing to say.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::play::*;

/// Every command that writes to a store of whose records one has this key.
fn writes(folder: &Path, store: &str, key: &str) -> Vec<Vec<String>> {
    std::fs::write(folder.join("more.csv"), "key,value\nmore,1\n").unwrap();
    let mut commands = vec![
        vec!["put", store, key, "other"],
        vec!["put", store, "more", "1"],
        vec!["put", store, "more", "1", "--new"],
        vec!["put", store, key, "other", "--expect", "1"],
        vec!["rm", store, key],
        vec!["import", "more.csv", store],
        vec!["reshard", store, "--shards", "2"],
    ];
    if store != "people" {
        commands.push(vec!["put", store, key, "other", "--ttl", "1h"]);
        commands.push(vec!["touch", store, key, "--ttl", "1h"]);
        commands.push(vec!["touch", store, key, "--forever"]);
    }
    let owned = |command: Vec<&str>| command.into_iter().map(ToOwned::to_owned).collect();
    commands.into_iter().map(owned).collect()
}

#[test]
fn a_follower_refuses_every_command_that_writes_and_has_what_its_leader_has() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    ok(folder, &["create", "pictures", "--values", "any", "--segment", "64KiB"]);
    let sizes = ["--key-bytes", "8", "--value-bytes", "16", "--expiring"];
    ok(folder, &[&["create", "ending"][..], &sizes].concat());
    for store in ["people", "pictures", "ending"] {
        let (mut leader, address) = serve(folder, store, "127.0.0.1:0");
        leader.write("alice 1\nbob 2\n");
        let copy = &format!("copy-of-{store}");
        follow_until(folder, copy, &address, 2);
        leader.kill();
        let before = ok(folder, &["export", copy, "--sorted"]);
        assert_eq!(before, ok(folder, &["export", store, "--sorted"]));
        for command in writes(folder, store, "alice") {
            let path = command.iter().position(|word| word == store).unwrap();
            let mut refused: Vec<&str> = command.iter().map(String::as_str).collect();
            refused[path] = copy;
            let output = mainstay(folder, &refused).stderr(Stdio::piped()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{refused:?}: {said}");
            assert!(said.contains("follows"), "{refused:?}: {said}");
            assert_eq!(ok(folder, &["export", copy, "--sorted"]), before, "{refused:?}");
        }
        let swept = mainstay(folder, &["sweep", copy]).output().unwrap();
        assert_eq!(swept.status.success(), store != "people");
        assert_eq!(ok(folder, &["export", copy, "--sorted"]), before);
        let said: Value =
            serde_json::from_str(&ok(folder, &["verify", store, "--against", copy])).unwrap();
        assert_eq!(said["equal"], 2, "{said}");
    }
    // So that none of them is refused for another reason.
    for store in ["people", "pictures", "ending"] {
        for command in writes(folder, store, "bob") {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let output = mainstay(folder, &command).output().unwrap();
            // A key that is there is not new, and of another value than is expected.
            let is_conditional = command.contains(&"--new") || command.contains(&"--expect");
            let is_gone = command[0] == "touch";
            assert!(output.status.success() || is_conditional || is_gone, "{command:?}");
        }
    }
}

/// What a stranger says first, by its number.
fn nonsense(number: u64) -> Vec<u8> {
    let noise = |len: u64, seed: u64| -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..len).map(|_| next()).collect()
    };
    match number % 7 {
        0 => noise(1_200, number),
        1 => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        // A record of TLS that is to hold a hello, and one of QUIC's first packets.
        2 => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise(500, number)].concat(),
        3 => [&[0xc3, 0, 0, 0, 1, 8][..], &noise(8, number), &[0, 0, 0x44, 0xb0], &noise(1_180, 1)]
            .concat(),
        4 => vec![0; 1_200],
        5 => vec![0xff; 64 << 10],
        _ => Vec::new(),
    }
}

/// Says nonsense to an address until it is told to stop; how often.
fn say_nonsense(to: SocketAddr, is_quic: bool, is_over: &AtomicBool, said: &AtomicU64) {
    let mut number = 0;
    let mut silent = Vec::new();
    while !is_over.load(Relaxed) {
        number += 1;
        let words = nonsense(number);
        if is_quic {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for datagram in words.chunks(1_200) {
                let _refused = socket.send_to(datagram, to);
            }
        } else if let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let _hung_up = stream.write_all(&words);
            let mut answer = [0; 4_096];
            let _none = stream.read(&mut answer);
            match number % 3 {
                0 => drop(stream.shutdown(Shutdown::Write)),
                // Some say nothing more, and stay.
                1 if silent.len() < 20 => silent.push(stream),
                _ => {}
            }
        }
        said.fetch_add(1, Relaxed);
        thread::sleep(Duration::from_millis(2));
    }
}

fn a_leader_among_strangers(folder: &Path, over: &[&str], is_quic: bool) {
    let (mut leader, address) = serve_over(folder, "people", "127.0.0.1:0", over);
    let (is_over, said) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let to: SocketAddr = address.parse().unwrap();
    let strangers: Vec<_> = (0..2)
        .map(|_| {
            let (is_over, said) = (Arc::clone(&is_over), Arc::clone(&said));
            thread::spawn(move || say_nonsense(to, is_quic, &is_over, &said))
        })
        .collect();
    let begun = Instant::now();
    while said.load(Relaxed) < 100 {
        assert!(begun.elapsed() < PATIENCE, "nobody can say anything");
        thread::sleep(Duration::from_millis(10));
    }
    // Followers come, are served what is written meanwhile, and come again.
    for round in 0..3 {
        let key = format!("{}{round}", over.get(1).map_or("tcp", |over| &over[..3]));
        leader.write(&format!("{key} 1\n"));
        let begun = Instant::now();
        loop {
            follow_until_equal(folder, "copy", &address, over);
            if records(folder, "copy").iter().any(|record| record.contains(&key)) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "a follower is not served");
        }
    }
    assert_eq!(leader.child.try_wait().unwrap(), None, "the leader has ended");
    is_over.store(true, Relaxed);
    strangers.into_iter().for_each(|stranger| stranger.join().unwrap());
    println!("{over:?}: {} strangers", said.load(Relaxed));
    leader.kill();
    assert_eq!(records(folder, "people"), records(folder, "copy"));
}

#[test]
fn strangers_who_talk_nonsense_neither_end_a_leader_nor_keep_its_followers_out() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    a_leader_among_strangers(folder, SECRET, false);
}

#[cfg(feature = "tls")]
#[test]
fn strangers_who_talk_nonsense_over_tls_and_over_quic_neither_end_a_leader_nor_keep_its_followers_out()
 {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let mut cert = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    cert.current_dir(folder).args(["channel", "cert", "certs", "--node", "1", "--node", "2"]);
    assert!(cert.stdin(Stdio::null()).output().unwrap().status.success());
    for (over, is_quic) in [("tls", false), ("quic", true)] {
        a_leader_among_strangers(folder, &["--over", over, "--certs", "certs"], is_quic);
    }
}
