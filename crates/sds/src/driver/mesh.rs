//! A group over connections from each member to each other one.

use std::{
    collections::HashSet,
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use tokio::sync::mpsc;

use super::{
    error::{Error, Result, fits},
    transport::{Heard, Transport},
};
use crate::limits::{LINKS_MAX, LINKS_PER_MEMBER_MAX, MESSAGE_LEN_MAX};

/// Connections that may wait to be taken in.
const WAITING_MAX: usize = 16;

/// A connection to one other member, which carries whole messages: a channel of Mainstay's
/// (`channels::ChannelLink`), or anything of that kind.
///
/// ```
/// use mainstay_sds::driver::{Link, Mesh, Transport};
/// use std::{io, task::{Context, Poll}};
/// use tokio::sync::mpsc;
///
/// struct Queues(mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>);
///
/// impl Link for Queues {
///     fn try_send(&mut self, message: &[u8]) -> io::Result<bool> {
///         match self.0.try_send(message.to_vec()) {
///             Ok(()) => Ok(true),
///             Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
///             Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
///         }
///     }
///
///     fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
///         let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
///         self.1.poll_recv(cx).map(|message| message.ok_or_else(closed))
///     }
/// }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let ((to_b, from_a), (to_a, from_b)) = (mpsc::channel(8), mpsc::channel(8));
/// let mut a = Mesh::new([Queues(to_b, from_b)]);
/// let mut b = Mesh::new([Queues(to_a, from_a)]);
/// a.broadcast(b"hello").await?;
/// let mut message = Vec::new();
/// b.receive(&mut message).await?;
/// assert_eq!(message, b"hello");
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
pub trait Link: Send {
    /// Sends a message if there is room for it; false if there is none, and it is lost.
    ///
    /// # Errors
    /// If nothing will ever be sent again.
    fn try_send(&mut self, message: &[u8]) -> io::Result<bool>;

    /// The next message, or a wake-up when there is one.
    ///
    /// # Errors
    /// If nothing will ever arrive again.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>>;

    /// Who is at the other end, by a number, if that is known. Where two members have several
    /// connections, because each has gone to the other or one has come back, messages go over the
    /// newest one only.
    fn member(&self) -> Option<u64> {
        None
    }
}

/// Connections to all other members. One that is full loses messages, and one that breaks is left
/// out from then on: a slow or dead member holds nobody up.
///
/// Example: see [`Link`], and [`Door`] for members that come and go.
#[derive(Debug)]
pub struct Mesh<L> {
    /// The newest last.
    links: Vec<L>,
    /// Where to look first, so that a member who talks a lot does not drown the others.
    next: usize,
    arrivals: Option<mpsc::Receiver<L>>,
    /// Somebody has come, and this was not told yet.
    has_newcomer: bool,
    /// The members that have got the message that is being sent.
    served: HashSet<u64>,
}

/// Lets connections into a mesh that is running. The mesh goes on without any connection as long
/// as there is a door.
///
/// ```
/// # use mainstay_sds::driver::{Link, Mesh, Transport};
/// # struct Silent(tokio::sync::mpsc::Sender<Vec<u8>>);
/// # impl Link for Silent {
/// #     fn try_send(&mut self, message: &[u8]) -> std::io::Result<bool> {
/// #         Ok(self.0.try_send(message.to_vec()).is_ok())
/// #     }
/// #     fn poll_receive(&mut self, _: &mut std::task::Context<'_>)
/// #         -> std::task::Poll<std::io::Result<Vec<u8>>> { std::task::Poll::Pending }
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let (to_bob, mut bob) = tokio::sync::mpsc::channel(1);
/// let (mut mesh, door) = Mesh::with_door();
/// mesh.broadcast(b"nobody hears this").await?;
/// door.admit(Silent(to_bob)).await?;
/// mesh.broadcast(b"hello").await?;
/// assert_eq!(bob.recv().await.unwrap(), b"hello");
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Door<L>(mpsc::Sender<L>);

impl<L> Clone for Door<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L: Link> Door<L> {
    /// Adds a connection. Beyond [`LINKS_MAX`] it is dropped at once; of more than
    /// [`LINKS_PER_MEMBER_MAX`] to one member the oldest is.
    ///
    /// # Errors
    /// [`Error::Ended`] if the mesh is gone.
    ///
    /// Example: see [`Door`].
    pub async fn admit(&self, link: L) -> Result<()> {
        self.0.send(link).await.map_err(|_| Error::Ended)
    }
}

impl<L: Link> Mesh<L> {
    /// A member with these connections, which ends with the last of them.
    ///
    /// Example: see [`Link`].
    #[must_use]
    pub fn new(links: impl IntoIterator<Item = L>) -> Self {
        let mut mesh = Self {
            links: Vec::new(),
            next: 0,
            arrivals: None,
            has_newcomer: false,
            served: HashSet::new(),
        };
        links.into_iter().for_each(|link| mesh.take_in(link));
        // All of them are new to each other.
        mesh.has_newcomer = false;
        mesh
    }

    /// A member without connections, and the door for those to come.
    ///
    /// Example: see [`Door`].
    #[must_use]
    pub fn with_door() -> (Self, Door<L>) {
        let (door, arrivals) = mpsc::channel(WAITING_MAX);
        (Self { arrivals: Some(arrivals), ..Self::new([]) }, Door(door))
    }

    /// How many connections there still are.
    ///
    /// ```
    /// # use mainstay_sds::driver::{Link, Mesh};
    /// # struct Never;
    /// # impl Link for Never {
    /// #     fn try_send(&mut self, _: &[u8]) -> std::io::Result<bool> { Ok(false) }
    /// #     fn poll_receive(&mut self, _: &mut std::task::Context<'_>)
    /// #         -> std::task::Poll<std::io::Result<Vec<u8>>> { std::task::Poll::Pending }
    /// # }
    /// assert_eq!(Mesh::new([Never, Never]).links(), 2);
    /// ```
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.len()
    }

    fn take_in(&mut self, link: L) {
        if let Some(member) = link.member() {
            let mut same =
                self.links.iter().enumerate().filter(|(_, l)| l.member() == Some(member));
            let oldest = same.next().map(|(at, _)| at);
            // With the oldest one and the new one, the others make the number.
            if let Some(oldest) = oldest.filter(|_| same.count() + 2 > LINKS_PER_MEMBER_MAX) {
                self.links.remove(oldest);
            }
        }
        if self.links.len() < LINKS_MAX {
            self.links.push(link);
            self.has_newcomer = true;
        }
    }

    fn poll_arrivals(&mut self, cx: &mut Context<'_>) {
        while let Some(arrivals) = &mut self.arrivals {
            match arrivals.poll_recv(cx) {
                Poll::Ready(Some(link)) => self.take_in(link),
                Poll::Ready(None) => self.arrivals = None,
                Poll::Pending => return,
            }
        }
    }

    /// The next message, or nothing when somebody has come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>>> {
        self.poll_arrivals(cx);
        if std::mem::take(&mut self.has_newcomer) {
            return Poll::Ready(Ok(None));
        }
        let mut looked_at = 0;
        while looked_at < self.links.len() {
            let at = self.next % self.links.len();
            match self.links[at].poll_receive(cx) {
                Poll::Ready(Ok(message)) => {
                    self.next = at + 1;
                    return Poll::Ready(Ok(Some(message)));
                }
                Poll::Ready(Err(_)) => {
                    self.links.remove(at);
                }
                Poll::Pending => {
                    self.next = at + 1;
                    looked_at += 1;
                }
            }
        }
        let is_over = self.links.is_empty() && self.arrivals.is_none();
        if is_over { Poll::Ready(Err(Error::Ended)) } else { Poll::Pending }
    }
}

impl<L: Link> Transport for Mesh<L> {
    fn message_len_max(&self) -> usize {
        MESSAGE_LEN_MAX
    }

    async fn broadcast(&mut self, message: &[u8]) -> Result<()> {
        fits(message.len(), MESSAGE_LEN_MAX)?;
        while let Some(Ok(link)) = self.arrivals.as_mut().map(mpsc::Receiver::try_recv) {
            self.take_in(link);
        }
        self.served.clear();
        for at in (0..self.links.len()).rev() {
            let member = self.links[at].member();
            if member.is_some_and(|member| self.served.contains(&member)) {
                continue;
            }
            // Whether there was room does not matter: what is lost is repaired.
            match self.links[at].try_send(message) {
                Ok(_) => self.served.extend(member),
                Err(_) => drop(self.links.remove(at)),
            }
        }
        Ok(())
    }

    async fn receive(&mut self, message: &mut Vec<u8>) -> Result<Heard> {
        match poll_fn(|cx| self.poll(cx)).await? {
            Some(arrived) => {
                *message = arrived;
                Ok(Heard::Message)
            }
            None => Ok(Heard::Newcomer),
        }
    }
}
