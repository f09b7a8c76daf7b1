//! A group over connections from each member to each other one.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use super::{
    error::{Error, Result, fits},
    transport::Transport,
};
use crate::limits::MESSAGE_LEN_MAX;

/// A connection to one other member, which carries whole messages: a channel of Mainstay's, or
/// anything of that kind.
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
}

/// Connections to all other members. One that is full loses messages, and one that breaks is left
/// out from then on: a slow or dead member holds nobody up.
///
/// Example: see [`Link`].
#[derive(Debug)]
pub struct Mesh<L> {
    links: Vec<L>,
    /// Where to look first, so that a member who talks a lot does not drown the others.
    next: usize,
}

impl<L: Link> Mesh<L> {
    /// A member with these connections.
    ///
    /// Example: see [`Link`].
    #[must_use]
    pub fn new(links: impl IntoIterator<Item = L>) -> Self {
        Self { links: links.into_iter().collect(), next: 0 }
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>>> {
        let mut looked_at = 0;
        while looked_at < self.links.len() {
            let at = self.next % self.links.len();
            match self.links[at].poll_receive(cx) {
                Poll::Ready(Ok(message)) => {
                    self.next = at + 1;
                    return Poll::Ready(Ok(message));
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
        if self.links.is_empty() { Poll::Ready(Err(Error::Ended)) } else { Poll::Pending }
    }
}

impl<L: Link> Transport for Mesh<L> {
    fn message_len_max(&self) -> usize {
        MESSAGE_LEN_MAX
    }

    async fn broadcast(&mut self, message: &[u8]) -> Result<()> {
        fits(message.len(), MESSAGE_LEN_MAX)?;
        // Whether there was room does not matter: what is lost is repaired.
        self.links.retain_mut(|link| link.try_send(message).is_ok());
        Ok(())
    }

    async fn receive(&mut self, message: &mut Vec<u8>) -> Result<()> {
        *message = poll_fn(|cx| self.poll(cx)).await?;
        Ok(())
    }
}
