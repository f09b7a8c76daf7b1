//! A cable that can be cut: what comes in at one end goes out at the other, until it does not.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::Result;

/// Where a follower calls, whoever leads.
pub(crate) struct Cable {
    address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Bytes that went to the follower.
    bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Where it leads to; none: it is cut.
    to: Option<SocketAddr>,
    /// Both ends of all that goes through it.
    streams: Vec<TcpStream>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cable {
    /// A cable that leads nowhere yet.
    pub(crate) fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner::default());
        let own = Arc::clone(&inner);
        // Ends with this process: there are a handful of them.
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                // Without a line to the other end the caller is hung up on.
                let _refused = connect(&own, caller);
            }
        });
        Ok(Self { address, inner })
    }

    /// Where its near end is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it.
    pub(crate) fn cut(&self) {
        let mut state = self.inner.state();
        state.to = None;
        for stream in state.streams.drain(..) {
            // It may be gone already.
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets it lead somewhere, from the next call on.
    pub(crate) fn lead_to(&self, address: SocketAddr) {
        self.cut();
        self.inner.state().to = Some(address);
    }

    /// How many bytes have gone to the one who calls.
    pub(crate) fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }
}

fn connect(inner: &Arc<Inner>, caller: TcpStream) -> Result<()> {
    let mut state = inner.state();
    let Some(to) = state.to else { return Ok(()) };
    let called = TcpStream::connect(to)?;
    state.streams.extend([caller.try_clone()?, called.try_clone()?]);
    let (up, down) = ((caller.try_clone()?, called.try_clone()?), (called, caller));
    let own = Arc::clone(inner);
    thread::spawn(move || pass(up.0, up.1, |_| {}));
    thread::spawn(move || {
        pass(down.0, down.1, |bytes| {
            own.bytes.fetch_add(bytes, Ordering::Relaxed);
        });
    });
    Ok(())
}

/// Passes on what comes, until one of the ends is gone.
fn pass(mut from: TcpStream, mut to: TcpStream, count: impl Fn(u64)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
        count(len as u64);
    }
    for end in [&from, &to] {
        // The other thread may have done it.
        let _gone = end.shutdown(Shutdown::Both);
    }
}
