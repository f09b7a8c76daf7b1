//! What the application does with a node.

use std::fmt;

use tokio::sync::{mpsc, oneshot};

use super::{
    error::{Error, Result},
    node::{Inside, Statistics},
};
use crate::{
    channel::{Channel, Counts, Sent},
    config::Config,
    nim_snapshot::NimSnapshot,
    output::Received,
    participant::Participant,
    time::Now,
};

/// Something to do in the node's task.
pub(super) type Command = Box<dyn FnOnce(&mut Inside, Now) + Send>;

/// A running node, from outside. Clones are the same node; when all are gone, and nobody takes
/// events, it ends.
///
/// Example: see [`driver`](super).
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// The id that a node gave to a message: 32 hexadecimal digits.
///
/// ```
/// use mainstay_sds::{Config, driver::{Bus, Node}};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
/// alice.join("room", Config::lip()).await?;
/// let (first, second) = (alice.send("room", b"hi").await?, alice.send("room", b"hi").await?);
/// assert_ne!(first.id, second.id, "the same content twice is two messages");
/// assert_eq!(first.id.as_bytes().len(), 32);
/// assert!(first.lamport < second.lamport);
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(pub(super) String);

impl MessageId {
    /// As it stands in messages.
    ///
    /// Example: see [`MessageId`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// What became of content that was sent.
///
/// Example: see [`MessageId`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Posted {
    /// The id it was given.
    pub id: MessageId,
    /// Its Lamport time: with the id, its place in the order that all share.
    pub lamport: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inside, Now) -> T + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let command: Command = Box::new(move |inside, now| {
            // Who does not wait any more does not miss the answer.
            let _dropped = answer.send(work(inside, now));
        });
        self.commands.send(command).await.map_err(|_| Error::Ended)?;
        answered.await.map_err(|_| Error::Ended)
    }

    /// Does something with the participant, in the node's task. What it does to a channel it has to
    /// say itself ([`Participant::touched`]).
    ///
    /// # Errors
    /// [`Error::Ended`].
    ///
    /// ```
    /// use mainstay_sds::driver::{Bus, Node};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
    /// assert_eq!(alice.run(|participant, _| participant.names().count()).await?, 0);
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Participant, Now) -> T + Send + 'static,
    ) -> Result<T> {
        self.ask(move |inside, now| work(&mut inside.participant, now)).await
    }

    /// Does something with a channel, in the node's task: whatever [`Channel`] can.
    ///
    /// # Errors
    /// [`Error::Ended`], or [`crate::Error::UnknownChannel`].
    ///
    /// ```
    /// use mainstay_sds::{Config, driver::{Bus, Node}};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
    /// alice.join("room", Config::lip()).await?;
    /// let posted = alice.send("room", b"hello").await?;
    /// let hinted = alice.with("room", move |channel, _| {
    ///     channel.set_retrieval_hint(posted.id.as_bytes(), b"at the store node")
    /// });
    /// assert!(hinted.await??);
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn with<T: Send + 'static>(
        &self,
        channel: &str,
        work: impl FnOnce(&mut Channel, Now) -> T + Send + 'static,
    ) -> Result<T> {
        let name = channel.to_owned();
        self.ask(move |inside, now| {
            let done = work(inside.participant.channel(now, &name)?, now);
            inside.participant.touched(&name);
            Ok(done)
        })
        .await?
    }

    /// Takes part in a channel from now on. If the node keeps changes and has some of it, the
    /// channel goes on where it was.
    ///
    /// A seed of 0 in the configuration is replaced by a random one.
    ///
    /// # Errors
    /// [`Error::Ended`], and those of [`Participant::load`] and
    /// [`Persistence::load`](crate::persist::Persistence::load).
    ///
    /// Example: see [`driver`](super).
    pub async fn join(&self, channel: &str, config: Config) -> Result<()> {
        let name = channel.to_owned();
        self.ask(move |inside, now| inside.join(now, &name, config)).await?
    }

    /// Takes part in a channel that `nim-sds` kept: see [`Channel::import_nim`]. A node that keeps
    /// changes keeps it from then on, and [`join`](Self::join) goes on with it after a restart.
    ///
    /// # Errors
    /// [`Error::Ended`], [`crate::Error::ChannelExists`] also if something of it is kept, and those
    /// of [`Channel::import_nim`].
    ///
    /// ```
    /// use mainstay_sds::{Config, NimSnapshot, driver::{Bus, Node}};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
    /// let snapshot = NimSnapshot::parse(&[0x0a, 0x04, 0x08, 0x01, 0x10, 0x2a])?;
    /// alice.import_nim("room", Config::nim(), snapshot).await?;
    /// assert_eq!(alice.counts("room").await?.lamport, 42);
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn import_nim(
        &self,
        channel: &str,
        config: Config,
        snapshot: NimSnapshot,
    ) -> Result<()> {
        let name = channel.to_owned();
        self.ask(move |inside, now| inside.import_nim(now, &name, config, &snapshot)).await?
    }

    /// Leaves a channel. What was kept of it is kept on.
    ///
    /// # Errors
    /// [`Error::Ended`], or [`crate::Error::UnknownChannel`].
    ///
    /// ```
    /// use mainstay_sds::{Config, driver::{Bus, Node}};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
    /// alice.join("room", Config::lip()).await?;
    /// alice.leave("room").await?;
    /// assert!(alice.send("room", b"hello").await.is_err());
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn leave(&self, channel: &str) -> Result<()> {
        let name = channel.to_owned();
        Ok(self.run(move |participant, _| participant.leave(&name)).await??)
    }

    /// Sends content to all in a channel, under an id of its own.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::TooLong`], and those of [`Channel::send`].
    ///
    /// Example: see [`driver`](super).
    pub async fn send(&self, channel: &str, content: &[u8]) -> Result<Posted> {
        let (name, content) = (channel.to_owned(), content.to_vec());
        self.ask(move |inside, now| {
            let id = inside.fresh_id(now);
            let Sent { lamport } = inside.send(now, &name, id.as_bytes(), &content)?;
            Ok(Posted { id, lamport })
        })
        .await?
    }

    /// The same under a given id.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    ///
    /// ```
    /// use mainstay_sds::{Config, driver::{Bus, Node}};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
    /// alice.join("room", Config::lip()).await?;
    /// alice.send_as("room", b"m1", b"hello").await?;
    /// assert!(alice.send_as("room", b"m1", b"once more").await.is_err());
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn send_as(&self, channel: &str, id: &[u8], content: &[u8]) -> Result<Sent> {
        let (name, id, content) = (channel.to_owned(), id.to_vec(), content.to_vec());
        self.ask(move |inside, now| inside.send(now, &name, &id, &content)).await?
    }

    /// Sends content to those who happen to hear it; it is neither kept nor repeated.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::TooLong`], and those of [`Channel::send_ephemeral`].
    ///
    /// ```
    /// use mainstay_sds::{Config, driver::{Bus, Node}};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
    /// alice.join("room", Config::lip()).await?;
    /// alice.send_ephemeral("room", b"is typing").await?;
    /// assert_eq!(alice.counts("room").await?.logged, 0);
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn send_ephemeral(&self, channel: &str, content: &[u8]) -> Result<MessageId> {
        let (name, content) = (channel.to_owned(), content.to_vec());
        self.ask(move |inside, now| {
            let id = inside.fresh_id(now);
            inside.send_ephemeral(now, &name, id.as_bytes(), &content)?;
            Ok(id)
        })
        .await?
    }

    /// Gives the node a message that came by another way: fetched from a store node, for example.
    ///
    /// # Errors
    /// [`Error::Ended`], and those of [`Participant::receive`].
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now, Received, driver::{Bus, Node}};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let mut bob = Channel::new("room", b"bob", Config::lip())?;
    /// bob.send(Now::zero(), b"m1", b"hello")?;
    /// let message = bob.copy_of(b"m1").unwrap();
    ///
    /// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
    /// alice.join("room", Config::lip()).await?;
    /// assert_eq!(alice.receive(&message).await?, Received::Delivered { released: 0 });
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn receive(&self, message: &[u8]) -> Result<Received> {
        let message = message.to_vec();
        Ok(self.run(move |participant, now| participant.receive(now, &message)).await??)
    }

    /// The application is done with all deliveries up to `number`: see [`Channel::confirm`].
    ///
    /// # Errors
    /// [`Error::Ended`], and those of [`Channel::confirm`].
    ///
    /// ```
    /// use mainstay_sds::{Config, driver::{Bus, Node}};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
    /// alice.join("room", Config::lip()).await?;
    /// assert!(alice.confirm("room", 1).await.is_err(), "nothing was delivered yet");
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn confirm(&self, channel: &str, number: u64) -> Result<()> {
        Ok(self.with(channel, move |channel, _| channel.confirm(number)).await??)
    }

    /// How much there is of everything that has a limit.
    ///
    /// # Errors
    /// [`Error::Ended`], or [`crate::Error::UnknownChannel`].
    ///
    /// Example: see [`send_ephemeral`](Self::send_ephemeral).
    pub async fn counts(&self, channel: &str) -> Result<Counts> {
        self.with(channel, |channel, _| channel.counts()).await
    }

    /// What the node has sent, received and refused.
    ///
    /// # Errors
    /// [`Error::Ended`].
    ///
    /// Example: see [`Statistics`].
    pub async fn statistics(&self) -> Result<Statistics> {
        self.ask(|inside, _| inside.statistics).await
    }

    /// Ends the node, for all its handles, after what is ready to be sent was sent.
    ///
    /// # Errors
    /// [`Error::Ended`] if it has ended before.
    ///
    /// ```
    /// use mainstay_sds::driver::{Bus, Node};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let (alice, mut events) = Node::new(b"alice", Bus::new().join())?.spawn();
    /// alice.end().await?;
    /// assert!(events.next().await.is_none());
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn end(&self) -> Result<()> {
        self.ask(|inside, _| inside.is_ending = true).await
    }
}
