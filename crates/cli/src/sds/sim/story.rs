//! What goes on in a simulated group, and the record of it.

use super::member::{Member, Told};
use crate::progress::Progress;
use mainstay::sds::Reason;
use mainstay_base::Rng;
use mainstay_sim::{Happening, NodeId, Story, Time, World};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// How long a member is away.
const AWAY: Duration = Duration::from_secs(30);

/// The two kinds of alarms besides the numbers of messages.
const DIES: u64 = 1 << 40;
const COMES_BACK: u64 = 1 << 41;

/// Traffic is counted in steps of so many seconds, for the plot.
pub(super) const STEP_S: f64 = 10.0;

/// What is sent, in the order in which it is shown.
pub(super) const KINDS: [&str; 4] = ["content", "repair", "resend", "sync"];

/// Messages and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

pub(super) struct Delivery {
    /// From when it was said.
    pub(super) delay_s: f64,
}

/// Everything that was seen.
pub(super) struct Record {
    members: u32,
    pub(super) said: u32,
    pub(super) last_said_s: f64,
    pub(super) last_delivered_s: f64,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) twice: u64,
    pub(super) restarts: u32,
    /// By step of time.
    pub(super) traffic: BTreeMap<u64, [Traffic; 4]>,
}

impl Record {
    /// Deliveries that there have to be.
    pub(super) fn expected(&self) -> u64 {
        u64::from(self.said) * u64::from(self.members - 1)
    }

    /// How often something was sent that had been sent before.
    pub(super) fn copies(&self) -> u64 {
        self.totals()
            .iter()
            .filter(|(what, _)| matches!(*what, "repair" | "resend"))
            .map(|(_, traffic)| traffic.messages)
            .sum()
    }

    pub(super) fn totals(&self) -> [(&'static str, Traffic); 4] {
        let mut totals = KINDS.map(|what| (what, Traffic::default()));
        for step in self.traffic.values() {
            for ((_, total), traffic) in totals.iter_mut().zip(step) {
                total.messages += traffic.messages;
                total.bytes += traffic.bytes;
            }
        }
        totals
    }
}

/// Tells members what to do, and writes down what they do.
pub(super) struct Tale {
    rng: Rng,
    messages: u32,
    said_at: Vec<Option<f64>>,
    seen: HashSet<(u32, u32)>,
    record: Record,
    progress: Progress,
}

pub(super) fn seconds(time: Time) -> f64 {
    time.as_nanos() as f64 / 1e9
}

/// Whether all members have the same log.
pub(super) fn same_log(world: &World<Member>) -> bool {
    let log = |node: NodeId| -> Option<Vec<(u64, Vec<u8>)>> {
        let member = world.node(node)?;
        Some(member.channel().log().map(|entry| (entry.lamport, entry.id.to_vec())).collect())
    };
    let mut logs = world.nodes().map(log);
    let Some(Some(first)) = logs.next() else { return false };
    logs.all(|log| log.as_ref() == Some(&first))
}

impl Tale {
    pub(super) fn new(seed: u64, members: u32, messages: u32, progress: Progress) -> Self {
        let record = Record {
            members,
            said: 0,
            last_said_s: 0.0,
            last_delivered_s: 0.0,
            deliveries: Vec::new(),
            twice: 0,
            restarts: 0,
            traffic: BTreeMap::new(),
        };
        Self {
            // Of its own, so that what members do does not change what is said and who dies.
            rng: Rng::seeded(mainstay_base::mix64(seed)),
            messages,
            said_at: vec![None; messages as usize],
            seen: HashSet::new(),
            record,
            progress,
        }
    }

    /// Plans when what is said, and who dies when.
    pub(super) fn plan(&mut self, world: &mut World<Member>, every: Duration, churn: u8) {
        for number in 0..self.messages {
            world.alarm(every * number, number.into());
        }
        let mut members: Vec<u32> = (0..self.record.members).collect();
        let dying = u64::from(self.record.members) * u64::from(churn) / 100;
        let talking_ns = u64::try_from((every * self.messages).as_nanos()).unwrap_or(u64::MAX);
        for _ in 0..dying {
            let at = self.rng.below(members.len() as u64) as usize;
            let member = u64::from(members.swap_remove(at));
            let dies = Duration::from_nanos(self.rng.below(talking_ns.max(1)));
            world.alarm(dies, DIES | member);
            world.alarm(dies + AWAY, COMES_BACK | member);
        }
    }

    /// Whether everything was said, and everybody was told.
    pub(super) fn is_complete(&self) -> bool {
        self.record.said == self.messages
            && self.record.deliveries.len() as u64 == self.record.expected()
    }

    pub(super) fn into_record(self) -> Record {
        self.record
    }

    fn alarm(&mut self, world: &mut World<Member>, number: u64) {
        let member = |number: u64, kind: u64| NodeId((number & !kind) as u32);
        if number & DIES != 0 {
            world.kill(member(number, DIES));
        } else if number & COMES_BACK != 0 {
            self.record.restarts += 1;
            world.restart(member(number, COMES_BACK));
        } else {
            let there: Vec<NodeId> =
                world.nodes().filter(|&node| world.node(node).is_some()).collect();
            if there.is_empty() {
                // All are away: it is said when somebody is back.
                world.alarm(Duration::from_secs(1), number);
                return;
            }
            let writer = there[self.rng.below(there.len() as u64) as usize];
            world.command(writer, number as u32);
        }
    }

    fn told(&mut self, now_s: f64, node: NodeId, told: Told) -> Result<(), String> {
        let record = &mut self.record;
        match told {
            Told::Said { number } => {
                record.said += 1;
                record.last_said_s = now_s;
                self.said_at[number as usize] = Some(now_s);
            }
            Told::Delivered { number } => {
                let said_at = self.said_at.get(number as usize).copied().flatten();
                let said_at = said_at.ok_or_else(|| format!("{node} was told what nobody said"))?;
                if self.seen.insert((node.0, number)) {
                    record.deliveries.push(Delivery { delay_s: now_s - said_at });
                    record.last_delivered_s = now_s;
                    self.progress.advance(1);
                } else {
                    record.twice += 1;
                }
            }
            Told::Sent { reason, bytes } => {
                let kind = match reason {
                    Reason::Repair => 1,
                    Reason::Resend => 2,
                    Reason::Sync => 3,
                    _ => 0,
                };
                let step = record.traffic.entry((now_s / STEP_S) as u64).or_default();
                step[kind].messages += 1;
                step[kind].bytes += bytes as u64;
            }
            Told::Wrong(what) => return Err(format!("{node}: {what}")),
        }
        Ok(())
    }
}

impl Story<Member> for Tale {
    fn happens(&mut self, world: &mut World<Member>, what: Happening<Told>) -> Result<(), String> {
        match what {
            Happening::Alarm(number) => self.alarm(world, number),
            Happening::Report { node, report } => {
                return self.told(seconds(world.now()), node, report);
            }
            Happening::Ended(_) | Happening::Restarted(_) => {}
        }
        Ok(())
    }
}
