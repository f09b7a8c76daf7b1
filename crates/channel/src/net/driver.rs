//! Moves messages between the queues of a channel and a stream of QUIC.
//!
//! D1. One task reads and one writes; they share nothing but the channel's fate.
//! D2. Memory is bounded: what a direction holds beyond its queue is one batch that is being
//!     written, or one frame that is being read and what came with it.
//! D3. The clean end is a frame of its own: a stream that ends without it was lost.
//! D4. A peer that says nothing for too long is lost; but only while we listen.
//! D5. Messages are never handed over in less than a fixed number of bytes: what is shorter is filled
//!     up. So what waits at a peer whose user does not read is in few pieces, and the peer may let
//!     much be on its way ([`super::quic`]).

use super::{
    NetChannel, NetEnd, Settings,
    batch::{BATCH_BYTES, Batch},
    in_full,
    tasks::{Ended, Leaving, Left, Queues, Tasks, linger, lost},
};
use crate::{
    Bounds, Payload, Peer, Why,
    endpoint::Endpoint,
    frame::{Decoder, Kind, encode},
    handshake::Reason,
    limits::LINGER,
    queue::Queue,
};
use quinn::{RecvStream, SendStream};
use std::{
    future::poll_fn,
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{MissedTickBehavior, interval_at, timeout},
};

/// D5. About half a packet.
pub(super) const WRITE_LEN_MIN: usize = 640;

/// Makes a channel of a stream whose handshake is through. Must be called on the runtime.
pub(super) fn start(
    reader: RecvStream,
    writer: SendStream,
    decoder: Decoder,
    peer: Peer,
    message_len_theirs: usize,
    settings: &Settings,
) -> NetChannel {
    let bounds = settings.bounds;
    let message_len = bounds.message_len.min(message_len_theirs);
    let outgoing = Arc::new(Queue::new(Bounds { message_len, ..bounds }));
    let incoming = Arc::new(Queue::new(bounds));
    let left = Left::two();

    let (leaving, queues) = (Leaving(Arc::clone(&left)), Queues::of(&outgoing, &incoming));
    let (mut reader, mut decoder, silence) = (reader, decoder, settings.silence);
    decoder.allow(bounds.message_len);
    let reading = tokio::spawn(async move {
        let _leaving = leaving;
        let why = read(&mut reader, &mut decoder, &queues, silence).await;
        let is_lost = matches!(why, Ended::Lost(_));
        queues.end(why);
        if !is_lost {
            drain(&mut reader, decoder).await;
        }
    });
    let reader_handle = reading.abort_handle();

    let (leaving, queues) = (Leaving(Arc::clone(&left)), Queues::of(&outgoing, &incoming));
    let (mut writer, keep_alive) = (writer, settings.keep_alive);
    let writing = tokio::spawn(async move {
        let _leaving = leaving;
        let written = tokio::select! {
            biased;
            written = write(&mut writer, &queues.outgoing, keep_alive, message_len_theirs) => written,
            () = linger(&queues.outgoing) => Err(io::ErrorKind::TimedOut.into()),
        };
        if let Err(error) = written {
            // The reader knows better why: it may still find a clean end. Senders learn it now.
            let what = Why::Lost { what: in_full(error).to_string() };
            queues.outgoing.close_reader(what.clone(), what);
        } else if queues.outgoing.is_aborted() {
            // Hangs up, by dropping both halves.
            return reading.abort();
        } else {
            let _ = timeout(LINGER, say_close(&mut writer)).await;
        }
        let rest = reading.abort_handle();
        if timeout(LINGER, reading).await.is_err() {
            rest.abort();
        }
    });
    let tasks = Tasks { reader: reader_handle, writer: writing.abort_handle(), left };
    let endpoint = Endpoint { outgoing, incoming, peer, spins: None };
    NetChannel { endpoint: Arc::new(NetEnd { endpoint, tasks, direct: None }) }
}

async fn read(
    reader: &mut RecvStream,
    decoder: &mut Decoder,
    queues: &Queues,
    silence: Duration,
) -> Ended {
    // Looked at twice in the time of silence, so that it is noticed at most half of it late.
    let half = (silence / 2).max(Duration::from_millis(1));
    let mut ticks = interval_at(tokio::time::Instant::now() + half, half);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    // Whether there are messages of which no reader was told.
    let mut untold = false;
    loop {
        let next = decoder.next_frame();
        // What has come together is told together.
        if !matches!(next, Ok(Some(_))) && std::mem::take(&mut untold) {
            queues.incoming.wake_readers();
        }
        match next {
            Err(error) => return Ended::Lost(Why::Protocol(error)),
            Ok(Some(frame)) => match frame.kind {
                Kind::Message => {
                    let mut message = Some(Payload::One(frame.payload));
                    match queues.incoming.push_quietly(&mut message) {
                        Ok(true) => {
                            untold = true;
                            continue;
                        }
                        Ok(false) => {}
                        Err(_) => return Ended::Here,
                    }
                    // Whoever has to make room.
                    queues.incoming.wake_readers();
                    untold = false;
                    let pushed = poll_fn(|cx| queues.incoming.poll_push(cx, &mut message)).await;
                    if pushed.is_err() {
                        return Ended::Here;
                    }
                    // D4: meanwhile nobody listened.
                    heard = Instant::now();
                    ticks.reset();
                }
                Kind::Close => return Ended::ByPeer,
                Kind::KeepAlive => {}
                Kind::Refusal => return lost(&Reason::of_peer(&frame.payload).to_string()),
                kind => {
                    let error = crate::frame::FrameError::Unexpected { kind };
                    return Ended::Lost(Why::Protocol(error));
                }
            },
            Ok(None) => loop {
                tokio::select! {
                    biased;
                    read = reader.read_buf(decoder.space()) => match read {
                        Ok(0) => return lost("the peer hung up"),
                        Ok(_) => { heard = Instant::now(); break }
                        Err(error) => return lost(&in_full(error).to_string()),
                    },
                    _ = ticks.tick() => {
                        if heard.elapsed() >= silence {
                            return Ended::Lost(Why::Silent { silence });
                        }
                    }
                }
            },
        }
    }
}

/// Reads what nobody wants until the peer has hung up: hanging up on unread bytes would take away
/// from the peer what it has not read yet (RFC 1122, 4.2.2.13). The writer bounds the time.
async fn drain(reader: &mut RecvStream, decoder: Decoder) {
    drop(decoder);
    let mut waste = vec![0; 16 << 10];
    while matches!(reader.read(&mut waste).await, Ok(Some(_))) {}
}

/// Returns when the user closes or aborts, or the peer does.
async fn write(
    writer: &mut SendStream,
    outgoing: &Queue,
    keep_alive: Duration,
    message_len_theirs: usize,
) -> io::Result<()> {
    let mut ticks = interval_at(tokio::time::Instant::now() + keep_alive, keep_alive);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Batch::default();
    let mut idle = true;
    loop {
        tokio::select! {
            biased;
            popped = poll_fn(|cx| outgoing.poll_pop(cx)) => match popped {
                Ok(message) => batch.add(&message),
                Err(_) => return Ok(()),
            },
            _ = ticks.tick() => {
                if std::mem::replace(&mut idle, true) {
                    // D5: alone, and too short to be a piece that stays.
                    batch.sign(Kind::KeepAlive);
                    write_all(&mut batch, writer).await?;
                }
                continue;
            }
        }
        while batch.len() < BATCH_BYTES {
            match outgoing.pop() {
                Ok(Some(message)) => batch.add(&message),
                // An end is seen by the next wait.
                Ok(None) | Err(_) => break,
            }
        }
        batch.fill_up(WRITE_LEN_MIN, message_len_theirs);
        write_all(&mut batch, writer).await?;
        idle = false;
    }
}

/// Hands the pieces over as they are: they are not copied before they are encrypted.
async fn write_all(batch: &mut Batch, writer: &mut SendStream) -> io::Result<()> {
    writer.write_all_chunks(batch.pieces()).await?;
    batch.clear();
    Ok(())
}

async fn say_close(writer: &mut SendStream) -> io::Result<()> {
    writer.write_all(&encode(Kind::Close, b"")).await?;
    writer.flush().await?;
    writer.shutdown().await
}
