//! libp2p gossipsub: a broadcast over any network, among nodes that know some of the others.
//!
//! Connections are TCP with Noise and Yamux, as all libp2p implementations have them; messages are
//! signed by the node that publishes them, whatever their SDS sender says. There is no discovery: a
//! node dials those it is told of, again when it has lost all of them, and gossip reaches the rest
//! through them.
//!
//! A part of its own behind the feature `gossipsub`, because the handshake's cryptography compiles
//! C, which nothing else here does; and unlike the other transports it has a heartbeat of a second.

use std::time::Duration;

use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    futures::StreamExt,
    gossipsub::{self, Behaviour, ConfigBuilder, IdentTopic, MessageAuthenticity},
    multiaddr::Protocol,
    noise,
    swarm::SwarmEvent,
    tcp, yamux,
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{MissedTickBehavior, interval},
};

use super::{
    error::{Error, Result, fits},
    transport::{Heard, Transport},
};
use crate::limits::MESSAGE_LEN_MAX;

/// Messages that may wait on their way in or out; more are lost.
const WAITING_MAX: usize = 256;

/// What gossipsub puts around a message: topic, signature, key, numbers.
const AROUND_LEN_MAX: usize = 64 << 10;

/// How often a node that is alone dials again.
const DIAL_AGAIN: Duration = Duration::from_secs(2);

/// How long a connection without use is kept.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// Where a node listens, whom it dials, and what about.
///
/// Example: see [`Gossip`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GossipOptions {
    /// The topic; only nodes of the same one hear each other.
    pub topic: String,
    /// Addresses to listen at, like `/ip4/127.0.0.1/tcp/0`.
    pub listen: Vec<String>,
    /// Addresses of other nodes, like those that [`Gossip::addresses`] gives.
    pub dial: Vec<String>,
}

/// A member of a gossipsub topic.
///
/// ```
/// use mainstay_sds::driver::gossip::{Gossip, GossipOptions};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let here = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
/// let options = GossipOptions { topic: "room".to_owned(), listen: here, dial: Vec::new() };
/// let first = Gossip::join(options.clone()).await?;
/// let second = Gossip::join(GossipOptions { dial: first.addresses().to_vec(), ..options }).await?;
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Gossip {
    out: mpsc::Sender<Vec<u8>>,
    arrived: mpsc::Receiver<Arrived>,
    addresses: Vec<String>,
}

impl Gossip {
    /// Joins a topic, and returns when the node listens. Has to be called from a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Address`] or [`Error::Io`].
    ///
    /// Example: see [`Gossip`].
    pub async fn join(options: GossipOptions) -> Result<Self> {
        let listen = parsed(&options.listen)?;
        let dial = parsed(&options.dial)?;
        let topic = IdentTopic::new(options.topic);
        let mut swarm = swarm(&topic)?;
        for address in &listen {
            let failed = |source: libp2p::TransportError<std::io::Error>| {
                let action = format!("listen at {address}");
                Error::io(action)(std::io::Error::other(source.to_string()))
            };
            swarm.listen_on(address.clone()).map_err(failed)?;
        }
        let addresses = listening(&mut swarm, listen.len()).await?;
        let (out, to_send) = mpsc::channel(WAITING_MAX);
        let (to_hand_out, arrived) = mpsc::channel(WAITING_MAX);
        tokio::spawn(Running { swarm, topic, dial, to_send, to_hand_out }.run());
        Ok(Self { out, arrived, addresses })
    }

    /// Where others can reach this node.
    ///
    /// Example: see [`Gossip`].
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

impl Transport for Gossip {
    fn message_len_max(&self) -> usize {
        MESSAGE_LEN_MAX
    }

    async fn broadcast(&mut self, message: &[u8]) -> Result<()> {
        fits(message.len(), MESSAGE_LEN_MAX)?;
        match self.out.try_send(message.to_vec()) {
            // A network that is too slow loses messages.
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Error::Ended),
        }
    }

    async fn receive(&mut self, message: &mut Vec<u8>) -> Result<Heard> {
        match self.arrived.recv().await.ok_or(Error::Ended)? {
            Arrived::Message(arrived) => {
                *message = arrived;
                Ok(Heard::Message)
            }
            Arrived::Newcomer => Ok(Heard::Newcomer),
        }
    }
}

fn parsed(addresses: &[String]) -> Result<Vec<Multiaddr>> {
    let parse = |address: &String| {
        address.parse().map_err(|source: libp2p::multiaddr::Error| Error::Address {
            address: address.clone(),
            why: source.to_string(),
        })
    };
    addresses.iter().map(parse).collect()
}

fn swarm(topic: &IdentTopic) -> Result<Swarm<Behaviour>> {
    let failed = |why: String| Error::io("set up libp2p")(std::io::Error::other(why));
    let config = ConfigBuilder::default()
        .max_transmit_size(MESSAGE_LEN_MAX + AROUND_LEN_MAX)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| failed(error.to_string()))?
        .with_behaviour(|key| Ok(Behaviour::new(MessageAuthenticity::Signed(key.clone()), config)?))
        .map_err(|error| failed(error.to_string()))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_MAX))
        .build();
    swarm.behaviour_mut().subscribe(topic).map_err(|error| failed(error.to_string()))?;
    Ok(swarm)
}

/// Waits until the node listens at so many addresses, and returns them with its own name.
async fn listening(swarm: &mut Swarm<Behaviour>, count: usize) -> Result<Vec<String>> {
    let own: PeerId = *swarm.local_peer_id();
    let mut addresses = Vec::new();
    let mut listeners = std::collections::HashSet::new();
    while listeners.len() < count {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                listeners.insert(listener_id);
                addresses.push(address.with(Protocol::P2p(own)).to_string());
            }
            SwarmEvent::ListenerClosed { addresses, reason: Err(source), .. } => {
                return Err(Error::io(format!("listen at {addresses:?}"))(source));
            }
            _ => {}
        }
    }
    Ok(addresses)
}

/// What a member is told.
#[derive(Debug)]
enum Arrived {
    Message(Vec<u8>),
    Newcomer,
}

struct Running {
    swarm: Swarm<Behaviour>,
    topic: IdentTopic,
    dial: Vec<Multiaddr>,
    to_send: mpsc::Receiver<Vec<u8>>,
    to_hand_out: mpsc::Sender<Arrived>,
}

impl Running {
    /// Until the member is dropped.
    async fn run(mut self) {
        let mut alone = interval(DIAL_AGAIN);
        alone.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.to_send.recv() => match message {
                    Some(message) => self.publish(message),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.happened(event),
                _ = alone.tick(), if !self.dial.is_empty() => self.dial_if_alone(),
            }
        }
    }

    fn publish(&mut self, message: Vec<u8>) {
        // Without peers, or with peers that are busy, it counts as lost on the way. What was just
        // said need not be said again, and its length was checked.
        let _lost = self.swarm.behaviour_mut().publish(self.topic.clone(), message);
    }

    fn happened(&mut self, event: SwarmEvent<gossipsub::Event>) {
        let arrived = match event {
            SwarmEvent::Behaviour(gossipsub::Event::Message { message, .. }) => {
                Arrived::Message(message.data)
            }
            SwarmEvent::Behaviour(gossipsub::Event::Subscribed { topic, .. })
                if topic == self.topic.hash() =>
            {
                Arrived::Newcomer
            }
            _ => return,
        };
        // The node is behind: it loses what it cannot take.
        let _full = self.to_hand_out.try_send(arrived);
    }

    fn dial_if_alone(&mut self) {
        if self.swarm.connected_peers().next().is_none() {
            for address in self.dial.clone() {
                // Whoever is not there yet is dialled again.
                let _not_yet = self.swarm.dial(address);
            }
        }
    }
}
