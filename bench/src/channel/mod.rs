//! The figures of channels, one file a group.
//!
//! Every side of a comparison hands over the same message: a payload that is there already and is
//! only counted (`Bytes` over static memory), where the peer's interface allows it. What takes a
//! slice copies it: that is part of what it costs.

mod memory;
mod mesh;
mod quic;
mod shm;
mod tcp;
mod tls;

use std::thread;
use std::time::Duration;

use mainstay_channel::handshake::{Local, Purpose};
use mainstay_channel::net::{self, Listener, NetChannel, Settings, Wire};
use mainstay_channel::{Bytes, Channel, ClusterId, NodeId, Secret};

use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, REPETITIONS_MIN};
use crate::part::Part;

pub(crate) const PART: Part = Part {
    name: "channel",
    groups: &[memory::GROUP, mesh::GROUP, shm::GROUP, tcp::GROUP, tls::GROUP, quic::GROUP],
    roles: &[shm::ECHO],
};

/// The sizes of messages, and how they are written in names.
const SIZES: [(usize, &str); 3] = [(64, "64"), (1 << 10, "1k"), (64 << 10, "64k")];

/// Nothing takes this long unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

static PAYLOAD: [u8; 64 << 10] = [7; 64 << 10];

/// A message that costs nothing to make, to copy, or to drop.
fn message(len: usize) -> Bytes {
    Bytes::from_static(&PAYLOAD[..len])
}

/// Rounds of work that takes milliseconds: enough of them for a steady median.
fn rounds_of(plan: &Plan) -> usize {
    (plan.repetitions_heavy * 3).max(REPETITIONS_MIN)
}

/// One thread sends, another receives: the time a message takes, when there are many.
fn one_way(
    messages: u64,
    send: impl FnMut() -> Outcome<()> + Send,
    receive: impl FnMut() -> Outcome<()> + Send,
) -> Outcome<Span> {
    let (span, done) = Span::of(|| both(messages, send, receive));
    done?;
    Ok(span.per(messages))
}

/// Runs both `times` times, each in a thread, and waits for both.
fn both(
    times: u64,
    mut first: impl FnMut() -> Outcome<()> + Send,
    mut second: impl FnMut() -> Outcome<()> + Send,
) -> Outcome<()> {
    thread::scope(|scope| {
        let other = scope.spawn(move || (0..times).try_for_each(|_| first()));
        let one = (0..times).try_for_each(|_| second());
        other.join().unwrap_or_else(|_| Err("a thread panicked".into()))?;
        one
    })
}

/// The next message of a channel.
fn next(channel: &impl Channel) -> Outcome<Bytes> {
    Ok(channel.receive(PATIENCE)?.ok_or("no message came in time")?)
}

const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(0x6d61_696e_7374_6179));

fn settings(node: u64, secret: bool) -> Outcome<Settings> {
    let local = Local::new(NodeId(node), CLUSTER, Purpose::new("bench")?);
    let secret = if secret { Some(Secret::new(b"known to both ends only")?) } else { None };
    Ok(Settings::new(match secret {
        Some(secret) => local.with_secret(secret),
        None => local,
    }))
}

/// Both ends of a channel over a wire, on the loopback interface.
fn connected(here: &Wire, there: &Wire, secret: bool) -> Outcome<(NetChannel, NetChannel)> {
    let listener = Listener::bind(here, "127.0.0.1:0", settings(1, secret)?)?;
    let address = listener.address().to_string();
    let dialled = net::connect(there, &address, &settings(2, secret)?)?;
    let accepted = listener.accept(PATIENCE)?.ok_or("nobody came")?;
    Ok((accepted, dialled))
}
