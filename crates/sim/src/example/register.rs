//! The register's node: it keeps a value for all, and serves its own clients.

use super::{
    Flaw,
    store::{Record, Store, Tag},
};
use crate::{Boot, Input, Node, NodeId, Now, Output, Payload, Time};
use mainstay_base::{Rng, mix64};
use std::{
    collections::{BTreeSet, VecDeque},
    io,
    time::Duration,
};

/// How long a question waits for its answers before it is asked again.
const ASKS_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a client wants.
///
/// Example: see [`Register`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// What is the value?
    Read,
    /// Let this be the value.
    Write(u64),
}

/// What a client is told.
///
/// Example: see [`Register`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// This was the value.
    Value(u64),
    /// It is the value, or was before a later one.
    Written,
}

/// What nodes tell each other, each with the number of the operation it belongs to.
///
/// Example: see [`Register`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    operation: u64,
    says: Says,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    /// What do you keep?
    Ask,
    /// This.
    Tell(Record),
    /// Keep this, unless you have something newer.
    Keep(Record),
    /// That, or something newer, is safe with me.
    Kept,
}

impl Payload for Packet {
    fn size_bytes(&self) -> usize {
        16
    }

    fn digest(&self) -> u64 {
        let (kind, record) = match self.says {
            Says::Ask => (1, Record::default()),
            Says::Tell(record) => (2, record),
            Says::Keep(record) => (3, record),
            Says::Kept => (4, Record::default()),
        };
        let Record { tag: Tag { counter, node, life }, value } = record;
        [self.operation, kind, counter, u64::from(node), life, value]
            .iter()
            .fold(0, |hash, word| mix64(hash ^ word))
    }

    fn damaged(&self, _: &mut Rng) -> Option<Self> {
        None
    }

    fn show(&self) -> String {
        match self.says {
            Says::Ask => "what do you keep?".into(),
            Says::Tell(record) => format!("I keep {} ({:?})", record.value, record.tag),
            Says::Keep(record) => format!("keep {} ({:?})", record.value, record.tag),
            Says::Kept => "kept".into(),
        }
    }
}

/// A node of the register.
///
/// ```
/// use mainstay_sim::{Boot, Happening, NodeId, Setup, World, example::{Answer, Register, Wish}};
/// use std::time::Duration;
/// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 3));
/// world.add_nodes(3);
/// let mut answers = Vec::new();
/// let mut story = |world: &mut World<Register>, what: Happening<Answer>| {
///     if let Happening::Report { report, .. } = what {
///         answers.push(report);
///         if answers.len() == 1 {
///             world.command(NodeId(2), Wish::Read);
///         }
///     }
///     Ok(())
/// };
/// world.command(NodeId(0), Wish::Write(5));
/// world.run(Duration::from_secs(1), &mut story)?;
/// assert_eq!(answers, [Answer::Written, Answer::Value(5)]);
/// # Ok::<(), mainstay_sim::Error>(())
/// ```
pub struct Register {
    id: NodeId,
    nodes: u32,
    flaw: Option<Flaw>,
    store: Option<Store>,
    /// Tells this life's tags and operations from those of every other.
    life: u64,
    operations: u64,
    wishes: VecDeque<Wish>,
    current: Option<Operation>,
    outputs: VecDeque<Output<Packet, Answer>>,
}

struct Operation {
    number: u64,
    wish: Wish,
    stage: Stage,
    answered: BTreeSet<NodeId>,
    answers: u32,
    newest: Record,
    asks_again: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asking,
    Keeping,
}

impl Register {
    /// A node of `nodes`, with what it kept in an earlier life.
    ///
    /// Example: see [`Register`].
    #[must_use]
    pub fn new(boot: Boot, nodes: u32) -> Self {
        Self::flawed(boot, nodes, None)
    }

    /// One that breaks a rule.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::{Flaw, Register}};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| {
    ///     Register::flawed(boot, 3, Some(Flaw::NeverSyncs))
    /// });
    /// world.add_nodes(3);
    /// ```
    #[must_use]
    pub fn flawed(mut boot: Boot, nodes: u32, flaw: Option<Flaw>) -> Self {
        let mut register = Self {
            id: boot.id,
            nodes,
            flaw,
            store: None,
            life: boot.rng.next_u64(),
            operations: 0,
            wishes: VecDeque::new(),
            current: None,
            outputs: VecDeque::new(),
        };
        register.operations = boot.rng.next_u64() >> 1;
        match Store::open(&boot.disk, flaw) {
            Ok(store) => register.store = Some(store),
            Err(error) => register.give_up(&error),
        }
        register
    }

    /// Nobody can say what the disk has now: only a new life that reads it can go on.
    fn give_up(&mut self, error: &io::Error) {
        self.outputs.push_back(Output::Exit(format!("the disk says: {error}")));
    }

    fn begin_next(&mut self, now: Time) {
        if self.current.is_some() {
            return;
        }
        let Some(wish) = self.wishes.pop_front() else { return };
        self.current = Some(Operation {
            number: 0,
            wish,
            stage: Stage::Asking,
            answered: BTreeSet::new(),
            answers: 0,
            newest: Record::default(),
            asks_again: None,
        });
        self.begin(Stage::Asking, now);
    }

    fn begin(&mut self, stage: Stage, now: Time) {
        if self.flaw != Some(Flaw::NumbersRepeat) {
            self.operations += 1;
        }
        let Some(operation) = &mut self.current else { return };
        operation.number = self.operations;
        operation.stage = stage;
        operation.answered.clear();
        operation.answers = 0;
        self.ask(now);
    }

    /// Asks all who have not answered.
    fn ask(&mut self, now: Time) {
        let Some(operation) = &mut self.current else { return };
        let says = match operation.stage {
            Stage::Asking => Says::Ask,
            Stage::Keeping => Says::Keep(operation.newest),
        };
        let message = Packet { operation: operation.number, says };
        let silent = (0..self.nodes).map(NodeId).filter(|n| !operation.answered.contains(n));
        self.outputs.extend(silent.map(|to| Output::Send { to, message }));
        let again = self.flaw != Some(Flaw::NeverAsksAgain);
        operation.asks_again = again.then(|| now + ASKS_AGAIN_AFTER);
    }

    fn receive(&mut self, from: NodeId, packet: Packet, now: Time) {
        let Some(store) = &mut self.store else { return };
        let reply =
            |says| Output::Send { to: from, message: Packet { operation: packet.operation, says } };
        match packet.says {
            Says::Ask => self.outputs.push_back(reply(Says::Tell(store.record()))),
            Says::Keep(record) => {
                let is_newer = record.tag > store.record().tag;
                let any = self.flaw == Some(Flaw::OlderReplacesNewer);
                if (is_newer || any)
                    && let Err(error) = store.keep(record)
                {
                    self.give_up(&error);
                    return;
                }
                self.outputs.push_back(reply(Says::Kept));
            }
            Says::Tell(record) => self.count(from, packet.operation, Some(record), now),
            Says::Kept => self.count(from, packet.operation, None, now),
        }
    }

    /// Counts an answer, if it belongs to what is being asked.
    fn count(&mut self, from: NodeId, number: u64, told: Option<Record>, now: Time) {
        let majority = match self.flaw {
            Some(Flaw::MinorityIsEnough) => self.nodes.div_ceil(2),
            _ => self.nodes / 2 + 1,
        };
        let Some(operation) = &mut self.current else { return };
        let expected =
            operation.stage == if told.is_some() { Stage::Asking } else { Stage::Keeping };
        if operation.number != number || !expected {
            return;
        }
        let is_first = operation.answered.insert(from);
        if is_first || self.flaw == Some(Flaw::CountsTwice) {
            operation.answers += 1;
        }
        if let Some(record) = told.filter(|record| record.tag > operation.newest.tag) {
            operation.newest = record;
        }
        if operation.answers < majority {
            return;
        }
        match operation.stage {
            Stage::Keeping => self.end(now),
            Stage::Asking => self.go_on(now),
        }
    }

    /// A majority has told.
    fn go_on(&mut self, now: Time) {
        let Some(operation) = &mut self.current else { return };
        if let Wish::Write(value) = operation.wish {
            let counter = operation.newest.tag.counter + 1;
            let tag = match self.flaw {
                Some(Flaw::TagsRepeat) => Tag { counter, ..Tag::default() },
                _ => Tag { counter, node: self.id.0, life: self.life },
            };
            operation.newest = Record { tag, value };
        } else if self.flaw == Some(Flaw::ReadsWithoutKeeping) {
            self.end(now);
            return;
        }
        self.begin(Stage::Keeping, now);
    }

    fn end(&mut self, now: Time) {
        let Some(operation) = self.current.take() else { return };
        let answer = match operation.wish {
            Wish::Read => Answer::Value(operation.newest.value),
            Wish::Write(_) => Answer::Written,
        };
        self.outputs.push_back(Output::Report(answer));
        self.begin_next(now);
    }
}

impl Node for Register {
    type Message = Packet;
    type Command = Wish;
    type Report = Answer;

    fn handle(&mut self, now: Now, input: Input<Packet, Wish>) {
        match input {
            Input::Message { from, message } => self.receive(from, message, now.monotonic),
            Input::Command(wish) => {
                self.wishes.push_back(wish);
                self.begin_next(now.monotonic);
            }
            Input::Tick => self.ask(now.monotonic),
            Input::Stream { .. } => {}
        }
    }

    fn poll(&mut self, _: Now) -> Option<Output<Packet, Answer>> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Time> {
        self.current.as_ref()?.asks_again
    }
}
