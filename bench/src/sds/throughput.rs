//! Sending and receiving with default parameters: 1,000 messages in the history, 100 bytes of
//! content, ids of 64 characters, eight senders. By default a message cites ten others here, and
//! 200 there.

use std::cell::RefCell;
use std::path::Path;

use mainstay_sds::{
    Config,
    bloom::{Params, RollingFilter},
    hash::FilterHashes,
    wire::Profile,
};

use super::peer::Peer;
use super::world::{Sender, Senders, id, receive, receiver, time_receiving};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, REPETITIONS_MIN, Round, Timing, rounds};
use crate::part::Group;
use crate::report::{Aim, Ratio, Report, Unit};

const SEND: &str = "sds.send";
const SEND_1K: &str = "sds.send_1k_filter";
const RECEIVE: &str = "sds.receive";
const RECEIVE_100: &str = "sds.receive_with_100_unacked";
const RECEIVE_1000: &str = "sds.receive_with_1000_unacked";
const REVERSE: &str = "sds.reverse_400";
const INSERT: &str = "sds.bloom_insert";
const BYTES: &str = "sds.bytes_per_message";
const BYTES_1K: &str = "sds.bytes_per_message_1k_filter";

pub(super) const GROUP: Group = Group {
    figures: &[SEND, SEND_1K, RECEIVE, RECEIVE_100, RECEIVE_1000, REVERSE, INSERT, BYTES, BYTES_1K],
    measure,
};

/// Operations a round: of ours, and of the peer, which takes a good part of a millisecond for each
/// and leaves none of ours in the processor's caches: so many that this does not count.
const RECEIVES: u64 = 512;
const SENDS: u64 = 64;
const BURSTS: u64 = 32;
const PEER_OPS: u64 = 4;
/// Messages in a history that is full.
const HISTORY: u64 = 1000;
/// Messages that arrive backwards.
const BACKWARDS: u64 = 400;

/// What nim-sds took by hand on such a machine, built as it is shipped / with -d:release.
const NIM: [(&str, &str); 6] = [
    (SEND, "nim-sds 25,800 / 13,900 us"),
    (RECEIVE, "nim-sds 27,500 / 8,300 us"),
    (RECEIVE_100, "nim-sds 36,700 / 11,900 us"),
    (REVERSE, "nim-sds 16,600 / 7,600 us"),
    (INSERT, "nim-sds 4.3 / 1.2 us"),
    (BYTES, "nim-sds 19,654 bytes"),
];

/// What is to be so many times faster than with `@waku/sds`.
const TIMES_FASTER: [&str; 5] = [SEND, SEND_1K, RECEIVE, RECEIVE_100, RECEIVE_1000];
const TIMES_FASTER_MIN: f64 = 500.0;

type Side<'a> = Box<dyn FnMut() -> Outcome<Span> + 'a>;

/// Measures ours, beside the peer's if there is one, and reports the ratio or our figure alone.
struct Bench<'a> {
    peer: Option<&'a RefCell<Peer>>,
    repetitions: usize,
    report: &'a mut Report,
}

impl Bench<'_> {
    fn compare(
        &mut self,
        name: &str,
        aim_ns: Option<f64>,
        ours: Side<'_>,
        mut theirs: impl FnMut(&mut Peer) -> Outcome<Span>,
    ) -> Outcome<()> {
        let mut sides = vec![Round { name: "mainstay", run: ours }];
        if let Some(peer) = self.peer {
            sides.push(Round::new("@waku/sds", move || theirs(&mut peer.borrow_mut())));
        }
        let timings = rounds(self.repetitions, &mut sides)?;
        self.push(name, aim_ns, &timings);
        Ok(())
    }

    fn push(&mut self, name: &str, aim_ns: Option<f64>, timings: &[Timing]) {
        let nim = NIM.iter().find(|(of, _)| *of == name).map_or("", |(_, text)| *text);
        if let [ours, theirs] = timings {
            let mut ratio = Ratio::of_wall(name, Unit::Us, ours, theirs);
            ratio.note = format!("{}; {nim}", ratio.note);
            if TIMES_FASTER.contains(&name) {
                let name = format!("{name}_times_faster");
                let aim = Aim::at_least(&name, ratio.value, TIMES_FASTER_MIN, Unit::Times);
                self.report.aims.push(aim.with_note("than @waku/sds in the same run"));
            }
            self.report.ratios.push(ratio);
        }
        let wall = &timings[0].wall;
        let rate = format!("{:.0} a second; {nim}", 1e9 / wall.median);
        let aim = Aim::of_ns(&format!("{name}_ns"), wall, aim_ns, Unit::Ns);
        self.report.aims.push(aim.with_note(rate));
    }
}

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let peer = match Peer::start() {
        Ok(peer) => Some(RefCell::new(peer)),
        Err(error) => {
            report.warnings.push(format!("{error}: our figures stand alone"));
            None
        }
    };
    let repetitions = plan.repetitions_heavy.max(15);
    let mut bench = Bench { peer: peer.as_ref(), repetitions, report };

    insert(&mut bench)?;
    receives(&mut bench)?;
    sends(&mut bench)?;
    reverse(&mut bench)?;
    bytes(&mut bench)
}

fn insert(bench: &mut Bench<'_>) -> Outcome<()> {
    let ids: Vec<Vec<u8>> = (0..10_000).map(id).collect();
    let params = Params::new(10_000, 0.001)?;
    let ours = || {
        let mut filter = RollingFilter::new(Profile::Lip, params);
        let (span, ()) = Span::of(|| {
            for id in &ids {
                filter.add(FilterHashes::of(Profile::Lip, id));
            }
        });
        Ok(span.per(ids.len() as u64))
    };
    bench.compare(INSERT, None, Box::new(ours), |peer| Ok(peer.run("insert", 1000)?.per(1000)))
}

/// A second is `AIM` nanoseconds a message.
const RECEIVE_AIM_NS: f64 = 1e9 / 300_000.0;
const SEND_AIM_NS: f64 = 1e9 / 300_000.0;
const SEND_1K_AIM_NS: f64 = 1e9 / 1_000_000.0;

fn receives(bench: &mut Bench<'_>) -> Outcome<()> {
    if let Some(peer) = bench.peer {
        let mut peer = peer.borrow_mut();
        peer.run("open", 0)?;
        peer.run("fill", HISTORY)?;
    }
    let mut own = 0;
    for (name, unacknowledged) in [(RECEIVE, 0), (RECEIVE_100, 100), (RECEIVE_1000, 1000)] {
        let mut senders = Senders::new()?;
        let mut channel = receiver()?;
        receive(&mut channel, &senders.messages(4 * HISTORY))?;
        for number in 0..unacknowledged {
            channel.send(super::world::NOW, format!("own {number}").as_bytes(), b"own")?;
            while channel.poll_output().is_some() {}
        }
        if let Some(peer) = bench.peer {
            peer.borrow_mut().run("send", unacknowledged - own)?;
            own = unacknowledged;
        }
        let ours = || {
            let messages = senders.messages(RECEIVES);
            Ok(time_receiving(&mut channel, &messages)?.per(RECEIVES))
        };
        bench.compare(name, Some(RECEIVE_AIM_NS), Box::new(ours), |peer| {
            Ok(peer.run("receive", PEER_OPS)?.per(PEER_OPS))
        })?;
        let left = channel.counts().outgoing as u64;
        if left < unacknowledged {
            return Err(format!("{left} of {unacknowledged} messages are unacknowledged").into());
        }
    }
    Ok(())
}

fn small_filter() -> Config {
    let mut config = Config::nim_own();
    (config.filter_capacity, config.filter_error_rate) = (800, 0.01);
    config
}

fn sends(bench: &mut Bench<'_>) -> Outcome<()> {
    let cases = [(SEND, Config::lip(), SEND_AIM_NS), (SEND_1K, small_filter(), SEND_1K_AIM_NS)];
    for (name, config, aim_ns) in cases {
        if let Some(peer) = bench.peer {
            let mut peer = peer.borrow_mut();
            peer.run("open", 0)?;
            peer.run("fill", HISTORY)?;
        }
        let mut sender = Sender::new(config)?;
        let mut burst = || -> Outcome<Span> {
            let ids = sender.ids(SENDS);
            let (span, done) = Span::of(|| sender.send(&ids));
            done?;
            sender.acknowledge()?;
            Ok(span)
        };
        for _ in 0..16 * HISTORY / SENDS {
            burst()?;
        }
        let ours = || {
            let mut all = Span { wall_ns: 0.0, cpu_ns: 0.0 };
            for _ in 0..BURSTS {
                let Span { wall_ns, cpu_ns } = burst()?;
                all.wall_ns += wall_ns;
                all.cpu_ns += cpu_ns;
            }
            Ok(all.per(BURSTS * SENDS))
        };
        bench.compare(name, Some(aim_ns), Box::new(ours), |peer| {
            Ok(peer.run("send", PEER_OPS)?.per(PEER_OPS))
        })?;
    }
    Ok(())
}

/// The time of all 400, for each.
fn reverse(bench: &mut Bench<'_>) -> Outcome<()> {
    let mut messages = Senders::new()?.messages(BACKWARDS);
    messages.reverse();
    let ours = || {
        let mut channel = receiver()?;
        let span = time_receiving(&mut channel, &messages)?;
        if channel.counts().logged as u64 != BACKWARDS {
            return Err("not all of them were delivered".into());
        }
        Ok(span.per(BACKWARDS))
    };
    // The peer takes seconds for each.
    let repetitions = REPETITIONS_MIN;
    let mut bench = Bench { repetitions, peer: bench.peer, report: &mut *bench.report };
    bench.compare(REVERSE, None, Box::new(ours), |peer| {
        peer.run("open", 0)?;
        Ok(peer.run("reverse", BACKWARDS)?.per(BACKWARDS))
    })
}

fn bytes(bench: &mut Bench<'_>) -> Outcome<()> {
    let theirs = match bench.peer {
        Some(peer) => Some(peer.borrow_mut().bytes_per_message()?),
        None => None,
    };
    for (name, config) in [(BYTES, Config::lip()), (BYTES_1K, small_filter())] {
        let mut sender = Sender::new(config)?;
        let ids = sender.ids(201);
        sender.send(&ids)?;
        let ours = sender.bytes as f64;
        let nim = NIM.iter().find(|(of, _)| *of == name).map_or("", |(_, text)| *text);
        match theirs {
            Some(theirs) => bench.report.ratios.push(Ratio {
                name: name.to_owned(),
                value: theirs / ours,
                ours,
                peer: "@waku/sds",
                peers: theirs,
                unit: "bytes",
                note: format!("100 bytes of content, default parameters; {nim}"),
            }),
            None => bench.report.aims.push(Aim::new(name, ours, None, Unit::Bytes).with_note(nim)),
        }
    }
    Ok(())
}
