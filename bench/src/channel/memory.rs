//! A pair in memory beside the queues one would take instead.
//!
//! * `rtt`: there and back between two threads (or two tasks).
//! * `rate`: one thread sends, another receives, as fast as they can.
//!
//! The blocking face is measured against `crossbeam-channel` and the in-memory channel of
//! `noxu-rep`, the asynchronous face against `tokio::sync::mpsc`; `std::sync::mpsc` stands beside them
//! as the floor. All are bounded to as many messages; our bound in bytes, which no peer has, is set
//! so high that it is not met before.
//!
//! What is handed over is a handle to bytes that are there already, so no side pays for the payload,
//! whatever its size; but for `noxu-rep`, whose interface takes a slice and copies it.

use std::path::Path;
use std::sync::mpsc as std_mpsc;
use std::time::Instant;

use mainstay_channel::memory::{self, MemoryChannel};
use mainstay_channel::{Bounds, Channel, ChannelExt, limits};
use noxu_rep::net::InMemoryTransport;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use super::{PATIENCE, SIZES, message, next, one_way, rounds_of};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, Round, Timing, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const RTT: [&str; 3] = ["channel.memory_rtt_64", "channel.memory_rtt_1k", "channel.memory_rtt_64k"];
const RATE: [&str; 3] =
    ["channel.memory_rate_64", "channel.memory_rate_1k", "channel.memory_rate_64k"];

pub(super) const GROUP: Group =
    Group { figures: &[RTT[0], RTT[1], RTT[2], RATE[0], RATE[1], RATE[2]], measure };

/// Messages in one sample: some ten milliseconds, so that starting the threads, waking the runtime's
/// and finding out on which of them two tasks are best does not count.
const STREAM: u64 = 250_000;
const ROUND_TRIPS: u64 = 3_000;
const ROUND_TRIPS_ASYNC: u64 = 25_000;
/// The same for a peer that copies each message, and wakes with a system call for each.
const STREAM_SLOW: u64 = 3_000;
const ROUND_TRIPS_SLOW: u64 = 500;

const BOUND: usize = limits::MESSAGES_DEFAULT;

/// What is asked: not to be behind any queue that hands over a handle, and far ahead of the channel
/// that offers what ours does.
const ASKED: f64 = 1.0;
const ASKED_NOXU: f64 = 3.0;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let runtime = &runtime;
    for (size, (len, _)) in SIZES.into_iter().enumerate() {
        let sides = vec![
            Round::new("mainstay", move || round_trips(len)),
            Round::new("mainstay, async", move || round_trips_async(runtime, len)),
            Round::new("crossbeam-channel", move || round_trips_crossbeam(len)),
            Round::new("tokio-mpsc", move || round_trips_tokio(runtime, len)),
            Round::new("noxu-rep", move || round_trips_noxu(len)),
            Round::new("std-mpsc", move || round_trips_std(len)),
        ];
        push(report, RTT[size], &timed(plan, sides)?);
        let sides = vec![
            Round::new("mainstay", move || stream(len)),
            Round::new("mainstay, async", move || stream_async(runtime, len)),
            Round::new("crossbeam-channel", move || stream_crossbeam(len)),
            Round::new("tokio-mpsc", move || stream_tokio(runtime, len)),
            Round::new("noxu-rep", move || stream_noxu(len)),
            Round::new("std-mpsc", move || stream_std(len)),
        ];
        push(report, RATE[size], &timed(plan, sides)?);
    }
    Ok(())
}

fn timed(plan: &Plan, mut sides: Vec<Round<'_>>) -> Outcome<Vec<Timing>> {
    rounds(rounds_of(plan), &mut sides)
}

fn push(report: &mut Report, name: &str, timings: &[Timing]) {
    let [blocking, asynchronous, crossbeam, tokio, noxu, std] = timings else { return };
    report.ask(Ratio::of_wall(name, Unit::Ns, blocking, crossbeam), ASKED);
    report.ask(Ratio::of_wall(name, Unit::Ns, asynchronous, tokio), ASKED);
    report.ask(Ratio::of_wall(name, Unit::Ns, blocking, noxu), ASKED_NOXU);
    report.ratios.push(Ratio::of_wall(name, Unit::Ns, blocking, std));
}

/// Bounded as the peers are: in messages.
fn pair(len: usize) -> Outcome<(MemoryChannel, MemoryChannel)> {
    Ok(memory::pair_with(Bounds { messages: BOUND, bytes: BOUND * len, ..Bounds::default() })?)
}

fn round_trips(len: usize) -> Outcome<Span> {
    let (a, b) = pair(len)?;
    let there = || {
        a.send(message(len))?;
        next(&a)?;
        Ok(())
    };
    let back = || Ok(b.send(next(&b)?)?);
    one_way(ROUND_TRIPS, there, back)
}

fn stream(len: usize) -> Outcome<Span> {
    let (a, b) = pair(len)?;
    one_way(STREAM, || Ok(a.send(message(len))?), || next(&b).map(drop))
}

fn round_trips_crossbeam(len: usize) -> Outcome<Span> {
    let (there_in, there_out) = crossbeam_channel::bounded(BOUND);
    let (back_in, back_out) = crossbeam_channel::bounded(BOUND);
    let there = || {
        there_in.send(message(len))?;
        back_out.recv()?;
        Ok(())
    };
    let back = || Ok(back_in.send(there_out.recv()?)?);
    one_way(ROUND_TRIPS, there, back)
}

fn stream_crossbeam(len: usize) -> Outcome<Span> {
    let (sender, receiver) = crossbeam_channel::bounded(BOUND);
    let receive = || {
        receiver.recv()?;
        Ok(())
    };
    one_way(STREAM, || Ok(sender.send(message(len))?), receive)
}

fn round_trips_std(len: usize) -> Outcome<Span> {
    let (there_in, there_out) = std_mpsc::sync_channel(BOUND);
    let (back_in, back_out) = std_mpsc::sync_channel(BOUND);
    let there = move || {
        there_in.send(message(len))?;
        back_out.recv()?;
        Ok(())
    };
    let back = move || Ok(back_in.send(there_out.recv()?)?);
    one_way(ROUND_TRIPS, there, back)
}

fn stream_std(len: usize) -> Outcome<Span> {
    let (sender, receiver) = std_mpsc::sync_channel(BOUND);
    let receive = move || {
        receiver.recv()?;
        Ok(())
    };
    one_way(STREAM, || Ok(sender.send(message(len))?), receive)
}

fn round_trips_noxu(len: usize) -> Outcome<Span> {
    let (a, b) = InMemoryTransport::new_pair();
    let (a, b) = (a.channel_handle(), b.channel_handle());
    let message = message(len);
    let there = || {
        a.send(&message)?;
        a.receive(PATIENCE)?.ok_or("no message came in time")?;
        Ok(())
    };
    let back = || Ok(b.send(&b.receive(PATIENCE)?.ok_or("no message came in time")?)?);
    one_way(ROUND_TRIPS_SLOW, there, back)
}

fn stream_noxu(len: usize) -> Outcome<Span> {
    let (a, b) = InMemoryTransport::new_pair();
    let (a, b) = (a.channel_handle(), b.channel_handle());
    let message = message(len);
    let receive = || {
        b.receive(PATIENCE)?.ok_or("no message came in time")?;
        Ok(())
    };
    one_way(STREAM_SLOW, || Ok(a.send(&message)?), receive)
}

/// Two tasks on the runtime's threads, timed from outside.
fn on_runtime<A, B>(runtime: &Runtime, times: u64, one: A, other: B) -> Outcome<Span>
where
    A: Future<Output = Outcome<()>> + Send + 'static,
    B: Future<Output = Outcome<()>> + Send + 'static,
{
    let start = Instant::now();
    let (span, done) = Span::of(|| {
        runtime.block_on(async move {
            let (one, other) = (tokio::spawn(one), tokio::spawn(other));
            one.await??;
            other.await?
        })
    });
    done?;
    // The work is not this thread's: its CPU time says nothing.
    let wall_ns = start.elapsed().as_nanos() as f64;
    Ok(Span { wall_ns, cpu_ns: span.cpu_ns }.per(times))
}

fn round_trips_async(runtime: &Runtime, len: usize) -> Outcome<Span> {
    let (a, b) = pair(len)?;
    let there = async move {
        for _ in 0..ROUND_TRIPS_ASYNC {
            a.sending(message(len)).await?;
            a.receiving().await?;
        }
        Ok(())
    };
    let back = async move {
        for _ in 0..ROUND_TRIPS_ASYNC {
            let message = b.receiving().await?;
            b.sending(message).await?;
        }
        Ok(())
    };
    on_runtime(runtime, ROUND_TRIPS_ASYNC, there, back)
}

fn stream_async(runtime: &Runtime, len: usize) -> Outcome<Span> {
    let (a, b) = pair(len)?;
    let send = async move {
        for _ in 0..STREAM {
            a.sending(message(len)).await?;
        }
        Ok(())
    };
    let receive = async move {
        for _ in 0..STREAM {
            b.receiving().await?;
        }
        Ok(())
    };
    on_runtime(runtime, STREAM, send, receive)
}

fn round_trips_tokio(runtime: &Runtime, len: usize) -> Outcome<Span> {
    let (there_in, mut there_out) = mpsc::channel(BOUND);
    let (back_in, mut back_out) = mpsc::channel(BOUND);
    let there = async move {
        for _ in 0..ROUND_TRIPS_ASYNC {
            there_in.send(message(len)).await?;
            back_out.recv().await.ok_or("the other task ended")?;
        }
        Ok(())
    };
    let back = async move {
        for _ in 0..ROUND_TRIPS_ASYNC {
            back_in.send(there_out.recv().await.ok_or("the other task ended")?).await?;
        }
        Ok(())
    };
    on_runtime(runtime, ROUND_TRIPS_ASYNC, there, back)
}

fn stream_tokio(runtime: &Runtime, len: usize) -> Outcome<Span> {
    let (sender, mut receiver) = mpsc::channel(BOUND);
    let send = async move {
        for _ in 0..STREAM {
            sender.send(message(len)).await?;
        }
        Ok(())
    };
    let receive = async move {
        for _ in 0..STREAM {
            receiver.recv().await.ok_or("the other task ended")?;
        }
        Ok(())
    };
    on_runtime(runtime, STREAM, send, receive)
}
