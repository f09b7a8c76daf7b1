//! A member of the cluster: it dials all others, and accepts whoever dials it.

use super::{
    Flaw,
    chat::{Chat, Leaves},
    link::{BOUNDS, Ended, Link},
    stranger::Stranger,
};
use mainstay_base::{Rng, mix64};
use mainstay_channel::{
    Channel, NodeId as Name,
    dial::{Action, Backoff, Dial, Event},
    frame::HEADER_LEN,
    handshake::{Local, Reason},
    limits::BACKOFF_MIN,
};
use mainstay_sim::{
    Boot, Input, Node, NodeId, Now, Output, StreamAction, StreamEvent, StreamId, Time,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// What a node reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Report {
    /// There is a channel now, to a node that says it has this name.
    Agreed { with: NodeId, says: Name },
    /// There is none, and this is why.
    Refused { with: NodeId, reason: Reason },
    /// The user of this end closes it now, after so many messages.
    Closes { tag: u64, sent: u64 },
    /// A channel has ended here; `clean` if its user was told that the peer has closed it.
    Ended { tag: u64, their_tag: Option<u64>, received: u64, clean: bool },
    /// Something that must hold does not.
    Wrong(String),
}

/// From now on: say little, and stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CalmDown;

pub(super) type Outputs = VecDeque<Output<Vec<u8>, Report>>;

/// Whoever is at a node.
pub(super) enum Person {
    Member(Box<Member>),
    Stranger(Stranger),
}

impl Node for Person {
    type Message = Vec<u8>;
    type Command = CalmDown;
    type Report = Report;

    fn handle(&mut self, now: Now, input: Input<Vec<u8>, CalmDown>) {
        match self {
            Self::Member(member) => member.handle(now.monotonic, input),
            Self::Stranger(stranger) => stranger.handle(now.monotonic, input),
        }
    }

    fn poll(&mut self, _: Now) -> Option<Output<Vec<u8>, Report>> {
        match self {
            Self::Member(member) => member.outputs.pop_front(),
            Self::Stranger(stranger) => stranger.outputs.pop_front(),
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Self::Member(member) => member.deadline(),
            Self::Stranger(stranger) => stranger.deadline(),
        }
    }
}

/// A member.
pub(super) struct Member {
    id: NodeId,
    restarts: u32,
    local: Local,
    flaw: Option<Flaw>,
    rng: Rng,
    /// The dialler counts in instants. Only differences matter, so any one will do.
    origin: Instant,
    calm: bool,
    peers: Vec<Peer>,
    connections: BTreeMap<StreamId, Connection>,
    dialled: u32,
    ends: u64,
    outputs: Outputs,
}

/// One that this member dials.
struct Peer {
    node: NodeId,
    dial: Dial,
    waits_until: Option<Time>,
    dialled_at: Option<Time>,
}

struct Connection {
    link: Link,
    with: NodeId,
    /// Of the dialler: which peer.
    peer: Option<usize>,
    chat: Option<Chat>,
    /// Its end was noted.
    ended: bool,
}

/// The name that a node has in its cluster.
pub(super) fn name_of(node: NodeId) -> Name {
    Name(u64::from(node.0) + 1)
}

/// An open connection, as the story sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OpenEnd {
    pub(super) tag: u64,
    pub(super) their_tag: Option<u64>,
    pub(super) received: u64,
}

impl Member {
    pub(super) fn new(boot: Boot, local: Local, members: u32, flaw: Option<Flaw>) -> Self {
        let others = (0..members).map(NodeId).filter(|node| *node != boot.id);
        let peers = others.map(|node| Peer {
            node,
            dial: Dial::new(Backoff::default()),
            waits_until: Some(boot.now.monotonic),
            dialled_at: None,
        });
        Self {
            id: boot.id,
            restarts: boot.restarts,
            local,
            flaw,
            rng: boot.rng,
            origin: Instant::now(),
            calm: false,
            peers: peers.collect(),
            connections: BTreeMap::new(),
            dialled: 0,
            ends: 0,
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn open_ends(&self) -> impl Iterator<Item = OpenEnd> {
        let open = self.connections.values().filter(|connection| connection.link.is_open());
        open.filter_map(|connection| connection.chat.as_ref()).map(|chat| OpenEnd {
            tag: chat.tag,
            their_tag: chat.their_tag,
            received: chat.received,
        })
    }

    fn handle(&mut self, now: Time, input: Input<Vec<u8>, CalmDown>) {
        match input {
            Input::Tick => self.tick(now),
            Input::Command(CalmDown) => self.calm_down(now),
            Input::Stream { stream, event } => self.stream(stream, event, now),
            Input::Message { .. } => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        let dials = self.peers.iter().filter_map(|peer| peer.waits_until);
        let links = self.connections.values().filter_map(|connection| {
            let chat = connection.chat.as_ref().map(Chat::deadline);
            [connection.link.deadline(), chat].into_iter().flatten().min()
        });
        dials.chain(links).min().filter(|deadline| *deadline != Time::NEVER)
    }

    fn tick(&mut self, now: Time) {
        for peer in 0..self.peers.len() {
            if self.peers[peer].waits_until.is_some_and(|until| until <= now) {
                self.dial(peer, Event::Tick, now);
            }
        }
        let streams: Vec<_> = self.connections.keys().copied().collect();
        for stream in streams {
            if let Some(connection) = self.connections.get_mut(&stream) {
                connection.link.tick(now);
                // Z1. A process that stood still may be late itself, but not after it has looked.
                if connection.link.is_overdue(now) {
                    let with = connection.with;
                    self.wrong(format!("{} has shaken hands with {with} too long", self.id));
                }
            }
            self.settle(stream, now);
        }
    }

    fn calm_down(&mut self, now: Time) {
        self.calm = true;
        let streams: Vec<_> = self.connections.keys().copied().collect();
        for stream in streams {
            let connection = self.connections.get_mut(&stream);
            if let Some(chat) = connection.and_then(|connection| connection.chat.as_mut()) {
                chat.calm_down(now);
            }
            self.settle(stream, now);
        }
    }

    fn stream(&mut self, stream: StreamId, event: StreamEvent, now: Time) {
        if let StreamEvent::Accepted { from, room } = event {
            let link = Link::accept(self.local.clone(), self.nonce(), room, now, self.flaw);
            let connection = Connection { link, with: from, peer: None, chat: None, ended: false };
            self.connections.insert(stream, connection);
        } else if let Some(connection) = self.connections.get_mut(&stream) {
            connection.link.handle(event, now);
        }
        self.settle(stream, now);
    }

    /// Tells the dialler of a peer what happened, and does what it says.
    fn dial(&mut self, peer: usize, event: Event, now: Time) {
        let at = self.origin + now.since(Time::START);
        let random = self.rng.next_u64();
        let action = self.peers[peer].dial.handle(at, event, random);
        let waits_until = match action {
            Action::WaitUntil(_) if self.flaw == Some(Flaw::DialsAtOnce) => {
                // As if the pause were over already.
                let over = at + Duration::from_secs(60);
                let _ = self.peers[peer].dial.handle(over, Event::Tick, random);
                self.connect(peer, now);
                None
            }
            Action::WaitUntil(until) => Some(Time::START + until.duration_since(self.origin)),
            Action::Dial => {
                self.connect(peer, now);
                None
            }
            Action::Nothing => None,
        };
        self.peers[peer].waits_until = waits_until;
    }

    fn connect(&mut self, peer: usize, now: Time) {
        let node = self.peers[peer].node;
        // Z6. The shortest pause is cut by up to a half.
        let before = self.peers[peer].dialled_at.replace(now);
        if before.is_some_and(|before| now.since(before) < BACKOFF_MIN / 2) {
            self.wrong(format!("{} dialled {node} twice within half a second", self.id));
        }
        self.dialled += 1;
        let stream = StreamId::outgoing(self.dialled);
        let nonce = self.nonce();
        let link = Link::dial(self.local.clone(), name_of(node), nonce, now, self.flaw);
        let connection =
            Connection { link, with: node, peer: Some(peer), chat: None, ended: false };
        self.connections.insert(stream, connection);
        let action = StreamAction::Connect { to: node };
        self.outputs.push_back(Output::Stream { stream, action });
    }

    /// Lets link and user do all they can, and notes what came of it.
    fn settle(&mut self, stream: StreamId, now: Time) {
        let Some(mut connection) = self.connections.remove(&stream) else { return };
        self.begin_chat(&mut connection, now);
        self.converse(&mut connection, now);
        while let Some(action) = connection.link.next_action() {
            self.outputs.push_back(Output::Stream { stream, action });
        }
        self.check_bounds(&connection);
        self.note_end(&mut connection, now);
        if connection.link.is_gone() && connection.chat.as_ref().is_some_and(Chat::waits) {
            self.wrong(format!("{} waits on a channel that has ended", self.id));
        }
        let over = connection.chat.as_ref().is_none_or(|chat| chat.is_over);
        if connection.link.is_gone() && over {
            self.report_end(&connection);
        } else {
            self.connections.insert(stream, connection);
        }
    }

    fn begin_chat(&mut self, connection: &mut Connection, now: Time) {
        if connection.chat.is_some() {
            return;
        }
        let Some((_, agreement)) = connection.link.channel() else { return };
        let says = agreement.node;
        self.outputs.push_back(Output::Report(Report::Agreed { with: connection.with, says }));
        self.ends += 1;
        let life = u64::from(self.id.0) << 48 | u64::from(self.restarts) << 32;
        let tag = life | self.ends;
        connection.chat = Some(Chat::new(tag, mix64(self.rng.next_u64()), now, self.calm));
        if let Some(peer) = connection.peer {
            self.dial(peer, Event::Connected, now);
        }
    }

    fn converse(&mut self, connection: &mut Connection, now: Time) {
        let Connection { link, chat, peer, .. } = connection;
        let Some(chat) = chat else { return };
        loop {
            let Some((channel, _)) = link.channel() else { return };
            let turn = chat.turn(channel, now);
            match turn.leaves {
                Some(Leaves::Closing) => {
                    let (tag, sent) = (chat.tag, chat.sent);
                    self.outputs.push_back(Output::Report(Report::Closes { tag, sent }));
                    channel.close();
                    chat.is_over = true;
                }
                Some(Leaves::Dropping) => {
                    link.drop_it();
                    chat.is_over = true;
                }
                None => {}
            }
            link.moves(now);
            if let Some(wrong) = turn.wrong {
                self.outputs.push_back(Output::Report(Report::Wrong(wrong)));
                return;
            }
            if !turn.progress {
                break;
            }
        }
        if let Some(peer) = *peer
            && chat.received > 0
        {
            self.peers[peer].dial.settle();
        }
    }

    /// Z4, Z5.
    fn check_bounds(&mut self, connection: &Connection) {
        /// The window of a stream, and what may be read at once.
        const WINDOW: usize = 64 << 10;
        let (unread, unwritten) = connection.link.held_bytes();
        let id = self.id;
        if unread > WINDOW + BOUNDS.message_len + HEADER_LEN {
            self.wrong(format!("{id} holds {unread} bytes that it has read ahead"));
        }
        if unwritten > 2 * BOUNDS.message_len {
            self.wrong(format!("{id} holds {unwritten} bytes that it has not written"));
        }
        if let Some((channel, _)) = connection.link.channel() {
            let statistics = channel.statistics();
            let most = statistics.messages_waiting.max(statistics.messages_unsent);
            if most > BOUNDS.messages as u64 {
                self.wrong(format!("{id}'s channel holds {most} messages"));
            }
        }
        if let Some((read, written)) = connection.link.bytes_of_a_stranger()
            && written > read
        {
            self.wrong(format!("{id} has sent {written} bytes to a stranger for {read}"));
        }
    }

    /// The dialler is told at once, the story when all is read.
    fn note_end(&mut self, connection: &mut Connection, now: Time) {
        let Some(ended) = connection.link.ended() else { return };
        if std::mem::replace(&mut connection.ended, true) {
            return;
        }
        if let Ended::Refused(refusal) = ended {
            let report = Report::Refused { with: connection.with, reason: refusal.reason };
            self.outputs.push_back(Output::Report(report));
        }
        if let Some(peer) = connection.peer {
            let event = if connection.chat.is_some() { Event::Lost } else { Event::Failed };
            self.dial(peer, event, now);
        }
    }

    fn report_end(&mut self, connection: &Connection) {
        let Some(chat) = &connection.chat else { return };
        self.outputs.push_back(Output::Report(Report::Ended {
            tag: chat.tag,
            their_tag: chat.their_tag,
            received: chat.received,
            clean: chat.was_closed_by_peer(connection.link.ended()),
        }));
    }

    fn wrong(&mut self, what: String) {
        self.outputs.push_back(Output::Report(Report::Wrong(what)));
    }

    fn nonce(&mut self) -> [u8; 32] {
        let mut nonce = [0; 32];
        for word in nonce.chunks_exact_mut(8) {
            word.copy_from_slice(&self.rng.next_u64().to_le_bytes());
        }
        nonce
    }
}
