//! A group over connections from each member to each other one.

use crate::group::{Member, Told, quick, until};
use mainstay_sds::{
    driver::{Error, Heard, Link, Mesh, Transport},
    limits::{LINKS_MAX, LINKS_PER_MEMBER_MAX},
};
use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(600);

/// One end of a connection in memory.
struct Queues {
    to: mpsc::Sender<Vec<u8>>,
    from: mpsc::Receiver<Vec<u8>>,
}

impl Link for Queues {
    fn try_send(&mut self, message: &[u8]) -> io::Result<bool> {
        match self.to.try_send(message.to_vec()) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.from.poll_recv(cx).map(|message| message.ok_or_else(closed))
    }
}

fn pair(room: usize) -> (Queues, Queues) {
    let ((to_b, from_a), (to_a, from_b)) = (mpsc::channel(room), mpsc::channel(room));
    (Queues { to: to_b, from: from_b }, Queues { to: to_a, from: from_a })
}

/// A message or two fit into each connection, so that most are lost when all talk at once.
#[tokio::test(start_paused = true)]
async fn members_of_a_mesh_that_is_too_narrow_end_with_the_same_log() {
    let ((ab, ba), (ac, ca), (bc, cb)) = (pair(2), pair(2), pair(2));
    let mut members = Vec::new();
    for (name, links) in [("alice", [ab, ac]), ("bob", [ba, bc]), ("carol", [ca, cb])] {
        members.push(Member::in_room(name, Mesh::new(links), quick()).await);
    }
    for round in 0..20 {
        for (number, member) in members.iter().enumerate() {
            member.say(&format!("{number}: {round}")).await;
        }
    }
    until("all have all", LIMIT, || {
        members.iter().all(|member| member.look(|told| told.delivered.len() == 40))
    })
    .await;
    let first = members[0].log().await;
    for member in &members {
        assert_eq!(member.log().await, first);
        assert_eq!(member.look(Told::contents), first);
    }
}

#[tokio::test]
async fn a_member_that_is_gone_is_left_out_and_the_last_one_gone_is_the_end() {
    let ((ab, mut b), (ac, c)) = (pair(8), pair(8));
    let mut alice = Mesh::new([ab, ac]);
    drop(c);
    alice.broadcast(b"hello").await.unwrap();
    assert_eq!(alice.links(), 1);
    assert_eq!(b.from.recv().await.unwrap(), b"hello");
    assert!(b.try_send(b"bye").unwrap());
    drop(b);
    let mut message = Vec::new();
    alice.receive(&mut message).await.unwrap();
    assert_eq!(message, b"bye");
    assert!(matches!(alice.receive(&mut message).await, Err(Error::Ended)));
}

#[tokio::test]
async fn a_member_that_talks_a_lot_does_not_drown_the_others() {
    let ((ab, mut b), (ac, mut c)) = (pair(64), pair(64));
    let mut alice = Mesh::new([ab, ac]);
    for _ in 0..50 {
        assert!(b.try_send(b"loud").unwrap());
    }
    assert!(c.try_send(b"soft").unwrap());
    let mut heard = Vec::new();
    let mut message = Vec::new();
    for _ in 0..2 {
        alice.receive(&mut message).await.unwrap();
        heard.push(message.clone());
    }
    assert!(heard.contains(&b"soft".to_vec()));
}

/// A connection that is known to lead to a member.
struct Named(u64, Queues);

impl Link for Named {
    fn try_send(&mut self, message: &[u8]) -> io::Result<bool> {
        self.1.try_send(message)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        self.1.poll_receive(cx)
    }

    fn member(&self) -> Option<u64> {
        Some(self.0)
    }
}

#[tokio::test]
async fn of_several_connections_to_one_member_the_newest_that_works_is_used_and_all_are_heard() {
    let ((old, mut old_end), (new, mut new_end), (other, mut other_end)) =
        (pair(8), pair(8), pair(8));
    let mut alice = Mesh::new([Named(1, old), Named(2, other), Named(1, new)]);
    alice.broadcast(b"hello").await.unwrap();
    assert_eq!(new_end.from.try_recv().unwrap(), b"hello");
    assert_eq!(other_end.from.try_recv().unwrap(), b"hello");
    assert!(old_end.from.try_recv().is_err(), "once is enough");
    assert!(old_end.try_send(b"from the old one").unwrap());
    let mut message = Vec::new();
    alice.receive(&mut message).await.unwrap();
    assert_eq!(message, b"from the old one");
    drop(new_end);
    alice.broadcast(b"again").await.unwrap();
    assert_eq!(old_end.from.try_recv().unwrap(), b"again", "in the same breath");
}

#[tokio::test]
async fn there_are_at_most_so_many_connections_to_one_member_and_the_oldest_goes() {
    let (mut mesh, door) = Mesh::with_door();
    let mut ends = Vec::new();
    for _ in 0..=LINKS_PER_MEMBER_MAX {
        let (here, there) = pair(1);
        door.admit(Named(7, here)).await.unwrap();
        ends.push(there);
        if ends.len() == LINKS_PER_MEMBER_MAX {
            mesh.broadcast(b"all are kept").await.unwrap();
            assert!(ends.iter().all(|end| !end.to.is_closed()));
        }
    }
    mesh.broadcast(b"one too many").await.unwrap();
    let closed: Vec<bool> = ends.iter().map(|end| end.to.is_closed()).collect();
    assert!(closed[0] && !closed[1..].contains(&true), "{closed:?}");
    assert_eq!(mesh.links(), LINKS_PER_MEMBER_MAX);
}

#[tokio::test]
async fn there_are_at_most_so_many_connections_and_one_more_is_refused() {
    let mut ends = Vec::new();
    let mut link = |member| {
        let (here, there) = pair(1);
        ends.push(there);
        Named(member, here)
    };
    let mesh = Mesh::new((0..=LINKS_MAX as u64).map(&mut link));
    assert_eq!(mesh.links(), LINKS_MAX);
    assert!(ends[LINKS_MAX].to.is_closed() && !ends[LINKS_MAX - 1].to.is_closed());
}

#[tokio::test]
async fn a_mesh_with_a_door_waits_for_the_next_member_and_ends_when_the_door_is_shut() {
    let (mut mesh, door) = Mesh::with_door();
    let mut message = Vec::new();
    let pause = Duration::from_millis(10);
    assert!(tokio::time::timeout(pause, mesh.receive(&mut message)).await.is_err(), "it waits");
    let (here, mut there) = pair(1);
    assert!(there.try_send(b"late, and welcome").unwrap());
    door.admit(here).await.unwrap();
    assert_eq!(mesh.receive(&mut message).await.unwrap(), Heard::Newcomer);
    assert_eq!(mesh.receive(&mut message).await.unwrap(), Heard::Message);
    assert_eq!(message, b"late, and welcome");
    drop((door, there));
    assert!(matches!(mesh.receive(&mut message).await, Err(Error::Ended)));
    let (mesh, door) = Mesh::with_door();
    drop(mesh);
    assert!(matches!(door.admit(pair(1).0).await, Err(Error::Ended)));
}

/// Nobody has anything to say any more when she comes, and nobody sends sync messages.
#[tokio::test(start_paused = true)]
async fn a_member_that_comes_into_a_silence_is_told_of_and_gets_what_was_said() {
    let mut members = Vec::new();
    let mut doors = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let (mesh, door) = Mesh::with_door();
        members.push(Member::in_room(name, mesh, quick()).await);
        doors.push(door);
    }
    let (ab, ba) = pair(8);
    doors[0].admit(ab).await.unwrap();
    doors[1].admit(ba).await.unwrap();
    let [alice, bob, carol] = &members[..] else { panic!() };
    for member in [alice, bob] {
        until("they are told of", LIMIT, || member.look(|told| told.newcomers == 1)).await;
        member.say("before she came").await;
    }
    until("they have it", LIMIT, || alice.look(|told| told.delivered.len() == 1)).await;
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    let sent = alice.look(|told| told.sent.len());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(alice.look(|told| told.sent.len()), sent, "there is silence");

    for (at, door) in doors[..2].iter().enumerate() {
        let (here, there) = pair(8);
        door.admit(here).await.unwrap();
        doors[2].admit(there).await.unwrap();
        let member = &members[at];
        until("she is told of", LIMIT, || member.look(|told| told.newcomers == 2)).await;
        member.handle.with("room", |channel, now| channel.announce(now)).await.unwrap();
    }
    until("she has all of it", LIMIT, || carol.look(|told| told.delivered.len() == 2)).await;
    assert_eq!(carol.log().await, alice.log().await);
}
