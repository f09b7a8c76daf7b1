//! TCP on the loopback interface: beside a raw stream with the same chunks, and `noxu-rep`'s.
//!
//! Its channel as it is published sends a header and a payload by two writes without TCP_NODELAY,
//! so a small round trip waits for a delayed acknowledgement; it is measured as it is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use mainstay_channel::Channel;
use mainstay_channel::net::Wire;
use noxu_rep::net::{Channel as _, TcpChannel, TcpChannelListener};

use super::{PATIENCE, SIZES, connected, message, next, one_way, rounds_of};
use crate::Outcome;
use crate::method::{Plan, REPETITIONS_MIN, Round, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const RTT: [&str; 3] = ["channel.tcp_rtt_64", "channel.tcp_rtt_1k", "channel.tcp_rtt_64k"];
const RATE: [&str; 3] = ["channel.tcp_rate_64", "channel.tcp_rate_1k", "channel.tcp_rate_64k"];

pub(super) const GROUP: Group =
    Group { figures: &[RTT[0], RTT[1], RTT[2], RATE[0], RATE[1], RATE[2]], measure };

/// What is asked beside the raw stream, where bytes and not calls are what counts.
const ASKED: f64 = 0.85;
const LEN_ASKED: usize = 64 << 10;

const ROUND_TRIPS: u64 = 200;
/// Each may take a tenth of a second.
const ROUND_TRIPS_DELAYED: u64 = 2;
/// Bytes in one sample of a stream of messages, and the most messages.
const STREAM_BYTES: u64 = 64 << 20;
const STREAM_MAX: u64 = 20_000;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let (a, b) = connected(&Wire::Tcp, &Wire::Tcp, true)?;
    let (one, other) = raw()?;
    let (sender, receiver) = noxu()?;
    for (size, (len, _)) in SIZES.into_iter().enumerate() {
        let mut sides = vec![
            Round::new("mainstay", || {
                let there = || {
                    a.send(message(len))?;
                    next(&a).map(drop)
                };
                one_way(ROUND_TRIPS, there, || Ok(b.send(next(&b)?)?))
            }),
            Round::new("raw-stream", || {
                let (mut bytes, mut back) = (vec![0; len], vec![0; len]);
                let there = || {
                    (&one).write_all(&message(len))?;
                    Ok((&one).read_exact(&mut bytes)?)
                };
                let echo = || {
                    (&other).read_exact(&mut back)?;
                    Ok((&other).write_all(&back)?)
                };
                one_way(ROUND_TRIPS, there, echo)
            }),
        ];
        let timings = rounds(rounds_of(plan), &mut sides)?;
        report.ratios.push(Ratio::of_wall(RTT[size], Unit::Us, &timings[0], &timings[1]));
        let mut side = [Round::new("noxu-rep", || {
            let there = || {
                sender.send(&message(len))?;
                sender.receive(PATIENCE)?.ok_or("no message came in time")?;
                Ok(())
            };
            let back = || {
                let received = receiver.receive(PATIENCE)?.ok_or("no message came in time")?;
                Ok(receiver.send(&received)?)
            };
            one_way(ROUND_TRIPS_DELAYED, there, back)
        })];
        let delayed = rounds(REPETITIONS_MIN, &mut side)?;
        report.ratios.push(Ratio::of_wall(RTT[size], Unit::Us, &timings[0], &delayed[0]));

        let messages = (STREAM_BYTES / len as u64).min(STREAM_MAX);
        let mut sides = vec![
            Round::new("mainstay", || {
                one_way(messages, || Ok(a.send(message(len))?), || next(&b).map(drop))
            }),
            Round::new("raw-stream", || {
                let mut bytes = vec![0; len];
                let receive = || Ok((&other).read_exact(&mut bytes)?);
                one_way(messages, || Ok((&one).write_all(&message(len))?), receive)
            }),
            Round::new("noxu-rep", || {
                let receive = || {
                    receiver.receive(PATIENCE)?.ok_or("no message came in time")?;
                    Ok(())
                };
                one_way(messages, || Ok(sender.send(&message(len))?), receive)
            }),
        ];
        let timings = rounds(rounds_of(plan), &mut sides)?;
        let ratio = |peer| Ratio::of_wall(RATE[size], Unit::Ns, &timings[0], peer);
        match len {
            LEN_ASKED => report.ask(ratio(&timings[1]), ASKED),
            _ => report.ratios.push(ratio(&timings[1])),
        }
        report.ratios.push(ratio(&timings[2]));
    }
    Ok(())
}

/// Two ends of a plain stream, without delay for small writes.
pub(super) fn raw() -> Outcome<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    Ok((one, other))
}

fn noxu() -> Outcome<(TcpChannel, TcpChannel)> {
    let listener = TcpChannelListener::bind("127.0.0.1:0".parse()?)?;
    let address = listener.local_addr()?;
    let dialling = std::thread::spawn(move || TcpChannel::connect(address));
    let accepted = listener.accept()?;
    let dialled = dialling.join().map_err(|_| "a thread panicked")??;
    Ok((dialled, accepted))
}
