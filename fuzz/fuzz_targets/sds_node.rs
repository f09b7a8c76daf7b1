//! A store node over an archive that anybody may have written to, and what it hears: beside a model
//! that knows what has to be kept (N1, N2) and by which hints it is found (N3).

#![no_main]

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::world;
use mainstay_sds::{
    Archive, Error, MemoryArchive, Result, StoreNode,
    query::Query,
    wire::{HistoryEntry, Message, Profile},
};

#[derive(Arbitrary, Debug)]
struct Input {
    /// What the archive has before.
    records: Vec<Record>,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Record {
    /// Of this kind, whatever it is.
    Bytes(u8, Vec<u8>),
    Message(bool, Said),
}

#[derive(Arbitrary, Clone, Debug)]
struct Said {
    id: u8,
    room: bool,
    lamport: u8,
    kind: u8,
    hints: Vec<(u8, u8)>,
    filter: bool,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Hear(bool, Said),
    Noise(Vec<u8>),
    Hint(u8, u8),
    Reopen,
}

/// The channel that is served, and how many messages of it are kept.
const ROOM: &str = "room";
const MAX: usize = 4;

/// An archive that outlives its node.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<MemoryArchive>>);

impl Archive for Shared {
    fn append(&mut self, record: &[u8]) -> Result<u64> {
        self.0.borrow_mut().append(record)
    }

    fn read(&self, key: u64) -> Result<Vec<u8>> {
        self.0.borrow().read(key)
    }

    fn keys(&self) -> Result<Vec<u64>> {
        self.0.borrow().keys()
    }
}

fuzz_target!(|input: Input| {
    world::plant();
    let mut archive = Shared::default();
    for record in input.records.iter().take(16) {
        let bytes = match record {
            Record::Bytes(kind, bytes) => [&[*kind % 5], &bytes[..]].concat(),
            Record::Message(nim, said) => [vec![u8::from(*nim)], said.encode(*nim)].concat(),
        };
        let _key = archive.append(&bytes).expect("memory does not fail");
    }
    let mut run = Run { node: open(&archive), archive, own_hints: HashMap::new() };
    run.check();
    for step in input.steps.iter().take(100) {
        run.step(step);
        run.check();
    }
});

fn open(archive: &Shared) -> StoreNode<Shared> {
    let mut node = StoreNode::new(archive.clone()).expect("memory does not fail");
    node.serve(ROOM, Profile::Lip, MAX).expect("memory does not fail");
    node
}

fn id(number: u8) -> Vec<u8> {
    format!("m{}", number % 16).into_bytes()
}

fn hint(number: u8) -> Vec<u8> {
    format!("h{}", number % 8).into_bytes()
}

impl Said {
    fn message(&self) -> Message {
        let entry = |(of, by): &(u8, u8)| {
            let mut entry = HistoryEntry::of(&id(*of));
            entry.hint = hint(*by);
            entry
        };
        Message {
            id: id(self.id),
            sender: b"alice".to_vec(),
            channel: if self.room { ROOM } else { "other" }.into(),
            lamport: (self.kind % 4 != 1).then_some(u64::from(self.lamport)),
            causal: self.hints.iter().take(20).map(entry).collect(),
            filter: self.filter.then(|| vec![1; 24]),
            content: (self.kind % 4 != 2).then(|| vec![self.kind]),
            ..Message::default()
        }
    }

    fn encode(&self, nim: bool) -> Vec<u8> {
        self.message().encode(if nim { Profile::Nim } else { Profile::Lip })
    }
}

struct Run {
    archive: Shared,
    node: StoreNode<Shared>,
    /// What the application said.
    own_hints: HashMap<Vec<u8>, Vec<u8>>,
}

impl Run {
    fn step(&mut self, step: &Step) {
        let before = self.all();
        match step {
            Step::Hear(nim, said) => {
                let known = self.node.by_id(ROOM, &id(said.id)).expect("it is served").is_some();
                match self.node.observe(&said.encode(*nim)) {
                    Ok(true) => {
                        assert!(!known && said.room && !nim, "N1, N2: {said:?}");
                        assert_eq!(self.all().len(), before.len() + 1, "N1");
                        assert!(self.node.count(ROOM).expect("it is served") <= MAX, "N2");
                    }
                    Ok(false) => assert_eq!(self.all(), before, "N1"),
                    Err(Error::Limit { .. }) => {
                        assert!(self.node.count(ROOM).expect("it is served") >= MAX, "N2");
                    }
                    Err(_) => assert!(!said.room || *nim, "{said:?}"),
                }
            }
            Step::Noise(bytes) => drop(self.node.observe(bytes)),
            Step::Hint(by, of) => {
                self.node.set_hint(ROOM, &id(*of), &hint(*by)).expect("it is short");
                self.own_hints.insert(hint(*by), id(*of));
            }
            Step::Reopen => {
                self.node = open(&self.archive);
                assert_eq!(self.all(), before, "what was kept is there");
            }
        }
    }

    fn all(&self) -> Vec<Vec<u8>> {
        // An empty id at time 0 cannot be asked for what comes after.
        let all = Query::After { lamport: 0, id: Vec::new(), max: u16::MAX };
        self.node.answer(ROOM, &all).expect("memory does not fail")
    }

    fn check(&self) {
        let mut last = None;
        for bytes in self.all() {
            let message = Message::decode(Profile::Lip, &bytes).expect("it was kept");
            assert_eq!(message.channel, ROOM.as_bytes(), "N2");
            let key = (message.lamport.unwrap_or_default(), message.id.clone());
            assert!(last.as_ref().is_none_or(|last| *last < key), "in the order of the log");
            last = Some(key);
        }
        for (hint, id) in &self.own_hints {
            let found = self.node.by_hint(ROOM, hint).expect("memory does not fail");
            assert_eq!(found, self.node.by_id(ROOM, id).expect("memory does not fail"), "N3");
        }
    }
}
