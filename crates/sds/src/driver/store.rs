//! A store node as a task: hears everything that is said in its channels, keeps it, and answers
//! those who miss something, in this process or over TCP.
//!
//! Over TCP the questions and answers of [`query`](crate::query) follow each other. A question that
//! is too long or out of form ends its connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    error::{Error, Result},
    event::Lacking,
    node::until,
    transport::{Heard, Transport},
};
use crate::{
    archive::Archive,
    limits::QUESTION_LEN_MAX,
    query::{AnswerReader, Answered, Query, answer_frame},
    store_node::StoreNode,
    wire::{MessageView, Profile},
};

/// Questions that may wait.
const WAITING_MAX: usize = 64;

/// Connections that are served at a time; more wait.
const CONNECTIONS_MAX: usize = 64;

/// A connection without a question for so long is closed; a client waits as long for an answer.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long to wait after a failure to receive.
const PAUSE: Duration = Duration::from_millis(100);

struct Question {
    channel: String,
    query: Query,
    answer: oneshot::Sender<crate::Result<Vec<Vec<u8>>>>,
}

/// A running store node, from inside of its process. Clones are the same one; it ends when all are
/// gone and nobody is connected.
///
/// ```
/// use mainstay_sds::{Config, MemoryArchive, StoreNode, wire::Profile};
/// use mainstay_sds::driver::{Bus, Event, Node, Store};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let bus = Bus::new();
/// let mut kept = StoreNode::new(MemoryArchive::new())?;
/// kept.serve("room", Profile::Lip, 1_000_000)?;
/// let store = Store::spawn(kept, bus.join());
/// let (alice, _) = Node::new(b"alice", bus.join())?.spawn();
/// alice.join("room", Config::lip()).await?;
/// alice.send("room", b"said before bob came").await?;
///
/// let (bob, mut events) = Node::new(b"bob", bus.join())?.spawn();
/// let mut config = Config::lip();
/// config.fetch = true;
/// bob.join("room", config).await?;
/// alice.send("room", b"said when he was there").await?;
/// let mut delivered = Vec::new();
/// while delivered.len() < 2 {
///     match events.next().await {
///         Some(Event::Fetch(lacking)) => {
///             if let Some(message) = store.find(&lacking).await? {
///                 bob.receive(&message).await?;
///             }
///         }
///         Some(Event::Delivered(message)) => delivered.push(message.content),
///         _ => {}
///     }
/// }
/// assert_eq!(delivered, [&b"said before bob came"[..], b"said when he was there"]);
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    questions: mpsc::Sender<Asked>,
}

enum Asked {
    Question(Question),
    Statistics(oneshot::Sender<StoreStatistics>),
}

/// What a store node has made of what it heard.
///
/// ```
/// use mainstay_sds::{MemoryArchive, StoreNode, wire::Profile, driver::{Bus, Store, Transport}};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let bus = Bus::new();
/// let mut kept = StoreNode::new(MemoryArchive::new())?;
/// kept.serve("room", Profile::Lip, 1_000_000)?;
/// let store = Store::spawn(kept, bus.join());
/// bus.join().broadcast(b"noise").await?;
/// tokio::task::yield_now().await;
/// let statistics = store.statistics().await?;
/// assert_eq!((statistics.kept, statistics.refused, statistics.not_kept), (0, 1, 0));
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStatistics {
    /// Messages that were new and are kept.
    pub kept: u64,
    /// What was in no need of being kept: messages that were here already, and sync messages.
    pub known: u64,
    /// What was not taken: noise, and messages of channels that are not served.
    pub refused: u64,
    /// Messages that should have been kept and were not: their channel is full, or the archive
    /// failed.
    pub not_kept: u64,
    /// Why the last one of these was not.
    pub failure: Option<String>,
    /// How often nothing could be received.
    pub deaf: u64,
}

impl StoreStatistics {
    fn count(&mut self, observed: crate::Result<bool>) {
        match observed {
            Ok(true) => self.kept += 1,
            Ok(false) => self.known += 1,
            Err(error @ (crate::Error::Persistence { .. } | crate::Error::Limit { .. })) => {
                self.not_kept += 1;
                self.failure = Some(error.to_string());
            }
            Err(_) => self.refused += 1,
        }
    }
}

impl Store {
    /// Starts a store node, which hears what the transport brings.
    ///
    /// # Panics
    /// Without a tokio runtime.
    ///
    /// Example: see [`Store`].
    #[must_use]
    pub fn spawn<A: Archive + Send + Sync + 'static>(
        node: StoreNode<A>,
        transport: impl Transport + 'static,
    ) -> Self {
        let (questions, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(node, transport, asked));
        Self { questions }
    }

    /// The message that somebody lacks: by its hint if there is one and it is known, else by its id.
    ///
    /// # Errors
    /// [`Error::Ended`], and those of [`StoreNode::by_id`].
    ///
    /// Example: see [`Store`].
    pub async fn find(&self, lacking: &Lacking) -> Result<Option<Vec<u8>>> {
        for query in queries_of(lacking) {
            let found = self.ask(&lacking.channel, query).await?.pop();
            if found.as_deref().is_some_and(|found| is_of(lacking, found)) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// What the store node has kept so far, and what it could not keep.
    ///
    /// # Errors
    /// [`Error::Ended`].
    ///
    /// Example: see [`StoreStatistics`].
    pub async fn statistics(&self) -> Result<StoreStatistics> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Asked::Statistics(answer)).await.map_err(|_| Error::Ended)?;
        answered.await.map_err(|_| Error::Ended)
    }

    /// Messages in the order of the log, after the one of that Lamport time and id: as many as were
    /// asked for, or as fit into an answer.
    ///
    /// # Errors
    /// [`Error::Ended`], and those of [`StoreNode::after`].
    ///
    /// ```
    /// use mainstay_sds::{MemoryArchive, StoreNode, wire::Profile, driver::{Bus, Store}};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let mut kept = StoreNode::new(MemoryArchive::new())?;
    /// kept.serve("room", Profile::Lip, 1_000_000)?;
    /// let store = Store::spawn(kept, Bus::new().join());
    /// assert!(store.after("room", (0, b""), 100).await?.is_empty());
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn after(&self, channel: &str, last: (u64, &[u8]), max: u16) -> Result<Vec<Vec<u8>>> {
        self.ask(channel, Query::After { lamport: last.0, id: last.1.to_vec(), max }).await
    }

    async fn ask(&self, channel: &str, query: Query) -> Result<Vec<Vec<u8>>> {
        let (answer, answered) = oneshot::channel();
        let question = Question { channel: channel.to_owned(), query, answer };
        let asked = Asked::Question(question);
        self.questions.send(asked).await.map_err(|_| Error::Ended)?;
        Ok(answered.await.map_err(|_| Error::Ended)??)
    }

    /// Answers everybody who connects to the listener, until that fails. Whoever can connect can
    /// read all that is kept: put it where only the group can.
    ///
    /// # Errors
    /// [`Error::Io`] if nobody can connect any more.
    ///
    /// Example: see [`StoreClient`].
    pub async fn listen(&self, listener: TcpListener) -> Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = Arc::clone(&places).acquire_owned().await.map_err(|_| Error::Ended)?;
            let (stream, _) =
                listener.accept().await.map_err(Error::io("accept a connection to the store"))?;
            let store = self.clone();
            tokio::spawn(async move {
                // Whatever ends it is the client's business, who sees the connection end.
                let _ended = store.answer(stream).await;
                drop(place);
            });
        }
    }

    /// Answers one client until it leaves, is silent for too long, or asks out of form.
    async fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut question = Vec::new();
        loop {
            let len = timeout(IDLE_MAX, stream.read_u32_le()).await?? as usize;
            if len > QUESTION_LEN_MAX {
                return Ok(());
            }
            question.resize(len, 0);
            timeout(IDLE_MAX, stream.read_exact(&mut question)).await??;
            let Some((channel, query)) = Query::read(&question) else { return Ok(()) };
            let frame = match self.ask(channel, query).await {
                Ok(messages) => answer_frame(Some(&messages)),
                Err(Error::Sds(_)) => answer_frame(None),
                Err(_) => return Ok(()),
            };
            timeout(IDLE_MAX, stream.write_all(&frame)).await??;
        }
    }
}

async fn run<A: Archive + Send>(
    mut node: StoreNode<A>,
    mut transport: impl Transport,
    mut asked: mpsc::Receiver<Asked>,
) {
    let mut message = Vec::new();
    let mut statistics = StoreStatistics::default();
    let mut deaf_until = None;
    let mut hears = true;
    loop {
        tokio::select! {
            received = transport.receive(&mut message), if hears && deaf_until.is_none() => {
                match received {
                    Ok(Heard::Message) => statistics.count(node.observe(&message)),
                    // Who wants something asks for it.
                    Ok(Heard::Newcomer) => {}
                    // It can still answer.
                    Err(Error::Ended) => hears = false,
                    Err(_) => {
                        statistics.deaf += 1;
                        deaf_until = Some(Instant::now() + PAUSE);
                    }
                }
            },
            () = until(deaf_until), if deaf_until.is_some() => deaf_until = None,
            // Who does not wait any more does not miss the answer.
            question = asked.recv() => match question {
                Some(Asked::Question(Question { channel, query, answer })) => {
                    let _dropped = answer.send(node.answer(&channel, &query));
                }
                Some(Asked::Statistics(answer)) => {
                    let _dropped = answer.send(statistics.clone());
                }
                None => return,
            },
        }
    }
}

fn queries_of(lacking: &Lacking) -> impl Iterator<Item = Query> {
    let hint = (!lacking.hint.is_empty()).then(|| Query::Hint(lacking.hint.clone()));
    hint.into_iter().chain([Query::Id(lacking.id.clone())])
}

/// Whether it is the message that is lacking: by whose word a hint means what it means is not known.
fn is_of(lacking: &Lacking, message: &[u8]) -> bool {
    let profile = Profile::sniff(message);
    let read = profile.and_then(|profile| MessageView::parse(profile, message).ok());
    read.is_some_and(|message| message.id == lacking.id)
}

/// A store node elsewhere, reached over TCP.
///
/// ```
/// use mainstay_sds::{Channel, Config, MemoryArchive, Now, StoreNode, wire::Profile};
/// use mainstay_sds::driver::{Bus, Store, StoreClient};
/// use tokio::net::TcpListener;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut alice = Channel::new("room", b"alice", Config::lip())?;
/// alice.send(Now::zero(), b"m1", b"hello")?;
/// let mut kept = StoreNode::new(MemoryArchive::new())?;
/// kept.serve("room", Profile::Lip, 1_000_000)?;
/// kept.observe(&alice.copy_of(b"m1").unwrap())?;
///
/// let store = Store::spawn(kept, Bus::new().join());
/// let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
/// let address = listener.local_addr().unwrap();
/// tokio::spawn(async move { store.listen(listener).await });
///
/// let mut client = StoreClient::connect(address).await?;
/// assert_eq!(client.by_id("room", b"m1").await?, alice.copy_of(b"m1"));
/// assert_eq!(client.by_id("room", b"m2").await?, None);
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct StoreClient {
    /// None while a question has no answer: whoever gives up waiting for one, or is given none,
    /// must not take it for the next one's.
    stream: Option<BufReader<TcpStream>>,
    address: SocketAddr,
}

impl StoreClient {
    /// Connects to a store node.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// Example: see [`StoreClient`].
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let mut client = Self { stream: None, address };
        client.stream = Some(client.reach().await?);
        Ok(client)
    }

    async fn reach(&self) -> Result<BufReader<TcpStream>> {
        let failed = Error::io(format!("connect to the store node at {}", self.address));
        let reached = timeout(IDLE_MAX, TcpStream::connect(self.address)).await;
        let reached = reached.unwrap_or_else(|late| Err(late.into()));
        reached.map(BufReader::new).map_err(failed)
    }

    /// The message of that id, if the store node has it.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Refused`] if the store node does not serve the channel. After an
    /// error, and after a question that nobody waited for, it connects again by itself.
    ///
    /// Example: see [`StoreClient`].
    pub async fn by_id(&mut self, channel: &str, id: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.ask(channel, &Query::Id(id.to_vec())).await?.pop())
    }

    /// The message that somebody lacks: by its hint if there is one and it is known, else by its id.
    ///
    /// # Errors
    /// Those of [`by_id`](Self::by_id).
    ///
    /// Example: see [`Store`], whose `find` is the same.
    pub async fn find(&mut self, lacking: &Lacking) -> Result<Option<Vec<u8>>> {
        for query in queries_of(lacking) {
            let found = self.ask(&lacking.channel, &query).await?.pop();
            if found.as_deref().is_some_and(|found| is_of(lacking, found)) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Messages in the order of the log, after the one of that Lamport time and id.
    ///
    /// # Errors
    /// Those of [`by_id`](Self::by_id).
    ///
    /// Example: see [`Store::after`].
    pub async fn after(
        &mut self,
        channel: &str,
        last: (u64, &[u8]),
        max: u16,
    ) -> Result<Vec<Vec<u8>>> {
        self.ask(channel, &Query::After { lamport: last.0, id: last.1.to_vec(), max }).await
    }

    async fn ask(&mut self, channel: &str, query: &Query) -> Result<Vec<Vec<u8>>> {
        let address = self.address;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.reach().await?,
        };
        let answered = timeout(IDLE_MAX, exchange(&mut stream, channel, query)).await;
        let answered = answered.unwrap_or_else(|late| Err(late.into()));
        let answered = answered.map_err(Error::io(format!("ask the store node at {address}")))?;
        self.stream = Some(stream);
        answered.ok_or_else(|| Error::Refused { address, channel: channel.to_owned() })
    }
}

/// One question and its answer; none if it was refused.
async fn exchange(
    stream: &mut BufReader<TcpStream>,
    channel: &str,
    query: &Query,
) -> std::io::Result<Option<Vec<Vec<u8>>>> {
    stream.write_all(&query.frame(channel)).await?;
    let (mut reader, mut bytes) = (AnswerReader::new(), Vec::new());
    loop {
        bytes.resize(reader.wants(), 0);
        stream.read_exact(&mut bytes).await?;
        match reader.take(&bytes) {
            Answered::NotYet => {}
            Answered::Messages(messages) => return Ok(Some(messages)),
            Answered::Refused => return Ok(None),
            Answered::TooLong => {
                let what = "the answer is longer than any answer can be";
                return Err(std::io::Error::other(what));
            }
        }
    }
}
