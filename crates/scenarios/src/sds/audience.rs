//! The applications behind the participants, and whoever checks.
//!
//! An application keeps what it has processed together with the number of the delivery, as one that
//! wants each message exactly once does, and confirms after that. It outlives its participant.
//!
//! * Each message is processed once, by each application, in the order of the numbers, whatever dies
//!   when. What comes again comes with the number it had.
//! * No message is processed before those it depends on.
//! * In the end all have the same messages of honest members, in the same order, and all that any
//!   application has seen or sent.

use super::{
    content_of,
    member::{Someone, Told, Wish},
};
use mainstay_base::Rng;
use mainstay_sim::{Chance, Happening, NodeId, Story, World};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// One application.
#[derive(Default)]
struct Application {
    processed: Vec<String>,
    seen: BTreeSet<String>,
    sent: BTreeSet<String>,
}

/// How messages are written.
pub(super) struct Writing {
    pub(super) rng: Rng,
    /// Who writes.
    pub(super) writers: u64,
    pub(super) pause: Duration,
    /// How many messages in all.
    pub(super) count: u64,
    /// Each writer leaves after its message with a chance of so many in a million.
    pub(super) leave_ppm: u32,
    /// Whether somebody types all the time, to the end.
    pub(super) typing: bool,
}

pub(super) struct Audience {
    applications: Vec<Application>,
    writing: Writing,
    written: u64,
    typed: u64,
    pub(super) left: BTreeSet<NodeId>,
    hostile: BTreeSet<NodeId>,
    /// What each honest message depends on.
    causal: BTreeMap<String, Vec<String>>,
    pub(super) copies: u64,
    pub(super) syncs: u64,
    healed: bool,
    pub(super) agreed: bool,
    pub(super) why_not: String,
    confirms: bool,
}

/// Alarms: the next message; a look whether all agree.
const WRITE: u64 = 0;
const LOOK: u64 = 1;
const TYPE: u64 = 2;
/// A writer leaves a second after its message; its number is added.
const LEAVE: u64 = 1 << 32;

const LOOK_EVERY: Duration = Duration::from_secs(20);
const TYPE_EVERY: Duration = Duration::from_secs(4);

impl Audience {
    pub(super) fn new(size: usize, hostile: usize, writing: Writing, confirms: bool) -> Self {
        Self {
            applications: (0..size).map(|_| Application::default()).collect(),
            writing,
            written: 0,
            typed: 0,
            left: BTreeSet::new(),
            hostile: (size - hostile..size).map(|node| NodeId(node as u32)).collect(),
            causal: BTreeMap::new(),
            copies: 0,
            syncs: 0,
            healed: false,
            agreed: false,
            why_not: String::new(),
            confirms,
        }
    }

    pub(super) fn start(&self, world: &mut World<Someone>) {
        world.alarm(self.writing.pause, WRITE);
        if self.writing.typing {
            world.alarm(TYPE_EVERY, TYPE);
        }
    }

    /// All is mended: nobody makes trouble any more, and everybody finds the network again.
    pub(super) fn heal(&mut self, world: &mut World<Someone>, announce: bool) {
        self.healed = true;
        for node in world.nodes().collect::<Vec<_>>() {
            if self.hostile.contains(&node) {
                world.command(node, Wish::Behave);
            } else if self.left.contains(&node) {
                world.command(node, Wish::Leave);
            } else if announce {
                world.command(node, Wish::Announce);
            }
        }
        world.alarm(LOOK_EVERY, LOOK);
    }

    pub(super) fn written(&self) -> u64 {
        self.causal.len() as u64
    }

    pub(super) fn processed(&self) -> u64 {
        self.applications.iter().map(|one| one.processed.len() as u64).sum()
    }

    fn write(&mut self, world: &mut World<Someone>) {
        let rng = &mut self.writing.rng;
        let node = NodeId(rng.below(self.writing.writers) as u32);
        if !self.left.contains(&node) && world.node(node).is_some() {
            let id = format!("h{}-{}", node.0, self.written);
            world.command(node, Wish::Send(id));
            if rng.chance(self.writing.leave_ppm) {
                world.alarm(Duration::from_secs(1), LEAVE + u64::from(node.0));
            }
        }
        self.written += 1;
        if self.written < self.writing.count {
            let pause = self.writing.pause / 2 + rng.within(self.writing.pause);
            world.alarm(pause, WRITE);
        }
    }

    fn told(&mut self, world: &mut World<Someone>, node: NodeId, told: Told) -> Result<(), String> {
        match told {
            Told::Sent { id, causal } => {
                self.applications[node.index()].sent.insert(id.clone());
                if self.causal.insert(id.clone(), causal).is_some() {
                    return Err(format!("two messages are called {id}"));
                }
                Ok(())
            }
            Told::Delivered { number, id, content } => {
                self.process(world, node, number, id, &content)
            }
            Told::Copy => {
                self.copies += 1;
                Ok(())
            }
            Told::Sync => {
                self.syncs += 1;
                Ok(())
            }
        }
    }

    fn process(
        &mut self,
        world: &mut World<Someone>,
        node: NodeId,
        number: u64,
        id: String,
        content: &[u8],
    ) -> Result<(), String> {
        let application = &mut self.applications[node.index()];
        let done = application.processed.len() as u64;
        if number <= done {
            let was = &application.processed[number as usize - 1];
            if *was != id {
                return Err(format!("{node}: delivery {number} was {was} and is {id} now"));
            }
        } else if number > done + 1 {
            return Err(format!(
                "{node}: delivery {number} ({id}) comes after {done}: one is lost"
            ));
        } else {
            if !application.seen.insert(id.clone()) {
                return Err(format!("{node}: {id} is delivered twice"));
            }
            if let Some(writer) = id.strip_prefix('h').and_then(|rest| rest.split_once('-')) {
                let sender = format!("p{}", writer.0);
                if content != content_of(&id, sender.as_bytes()) {
                    return Err(format!("{node}: {id} has other content than was sent"));
                }
            }
            // Of a message whose sender died before it told us, nothing is known.
            for parent in self.causal.get(&id).into_iter().flatten() {
                let known = application.seen.contains(parent) || application.sent.contains(parent);
                // Its own messages of an earlier life come back to it as deliveries.
                if parent.starts_with('h')
                    && !known
                    && !parent.starts_with(&format!("h{}-", node.0))
                {
                    return Err(format!("{node}: {id} is delivered before {parent}"));
                }
            }
            application.processed.push(id);
        }
        if self.confirms {
            world.command(node, Wish::Confirm(number.max(done)));
        }
        Ok(())
    }

    /// Whether all that stayed have the same log, and all that anybody knows of is in it.
    fn look(&mut self, world: &World<Someone>) {
        let stays = |node: &NodeId| !self.left.contains(node) && !self.hostile.contains(node);
        let mut first: Option<(NodeId, Vec<String>)> = None;
        for node in world.nodes().filter(stays) {
            let Some(Someone::Member(member)) = world.node(node) else {
                self.why_not = format!("{node} is not there");
                return;
            };
            let log = member.channel.log().map(|entry| entry.id);
            let honest = |id: &&[u8]| id.first() == Some(&b'h');
            let log: Vec<String> =
                log.filter(honest).map(|id| String::from_utf8_lossy(id).into_owned()).collect();
            match &first {
                None => first = Some((node, log)),
                Some((other, theirs)) if *theirs != log => {
                    let counts = member.channel.counts();
                    let why = differ(*other, theirs, node, &log);
                    self.why_not = format!("{why}; {node} has {counts:?}");
                    return;
                }
                Some(_) => {}
            }
        }
        let Some((node, log)) = first else { return };
        let log: BTreeSet<&String> = log.iter().collect();
        for other in world.nodes().filter(stays) {
            let application = &self.applications[other.index()];
            let known = application.seen.iter().chain(&application.sent);
            for id in known.filter(|id| id.starts_with('h')) {
                if !log.contains(id) {
                    self.why_not = format!("{other} knows {id}, which {node} and all others miss");
                    return;
                }
            }
        }
        self.agreed = true;
    }
}

/// Where two logs part.
fn differ(one: NodeId, ours: &[String], other: NodeId, theirs: &[String]) -> String {
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    format!(
        "{one} has {} messages and {other} {}; at {at} they have {:?} and {:?}",
        ours.len(),
        theirs.len(),
        ours.get(at),
        theirs.get(at)
    )
}

impl Story<Someone> for Audience {
    fn happens(&mut self, world: &mut World<Someone>, what: Happening<Told>) -> Result<(), String> {
        match what {
            Happening::Report { node, report } => self.told(world, node, report)?,
            Happening::Alarm(WRITE) => self.write(world),
            Happening::Alarm(TYPE) => {
                self.typed += 1;
                world.command(NodeId(0), Wish::Type(self.typed));
                world.alarm(TYPE_EVERY, TYPE);
            }
            Happening::Alarm(LOOK) => {
                self.look(world);
                if !self.agreed {
                    world.alarm(LOOK_EVERY, LOOK);
                }
            }
            Happening::Alarm(number) => {
                let node = NodeId((number - LEAVE) as u32);
                self.left.insert(node);
                world.command(node, Wish::Leave);
            }
            Happening::Restarted(node) => {
                if self.left.contains(&node) {
                    world.command(node, Wish::Leave);
                } else if self.healed && self.hostile.contains(&node) {
                    world.command(node, Wish::Behave);
                } else if self.confirms {
                    let done = self.applications[node.index()].processed.len() as u64;
                    world.command(node, Wish::Confirm(done));
                    world.command(node, Wish::Announce);
                }
            }
            Happening::Ended(_) => {}
        }
        Ok(())
    }
}
