//! A handshake on a stream of bytes.

use super::{Settings, in_full, tell};
use crate::{
    Bytes, Error, Result,
    frame::{Decoder, FrameError},
    handshake::{Agreement, Handshake, HandshakeError, Reason, Refusal, Step, Vouch},
    limits::HANDSHAKE_LEN_MAX,
};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// What came of it, when it is through: the decoder may have bytes of the first message already.
pub(super) type Met = (Agreement, Decoder);

/// How long a refusal may take to be sent.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The end that was dialled.
pub(super) async fn accept<R, W>(
    reader: &mut R,
    writer: &mut W,
    settings: &Settings,
    vouch: Option<Vouch>,
    address: &str,
) -> Result<Met>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let handshake = vouched(Handshake::accept(settings.said(), nonce(address)?), vouch);
    converse(reader, writer, handshake, None, settings.handshake_time, address).await
}

/// The end that dials.
pub(super) async fn dial<R, W>(
    reader: &mut R,
    writer: &mut W,
    settings: &Settings,
    vouch: Option<Vouch>,
    address: &str,
) -> Result<Met>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (handshake, hello) = Handshake::dial(settings.said(), None, nonce(address)?);
    let handshake = vouched(handshake, vouch);
    converse(reader, writer, handshake, Some(hello), settings.handshake_time, address).await
}

fn vouched(handshake: Handshake, vouch: Option<Vouch>) -> Handshake {
    match vouch {
        Some(vouch) => handshake.vouched(vouch),
        None => handshake,
    }
}

fn nonce(address: &str) -> Result<[u8; 32]> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| Error::Network {
        address: address.to_owned(),
        action: "get random numbers",
        source: io::Error::other(error.to_string()),
        hint: "check that getrandom(2) is allowed",
    })?;
    Ok(nonce)
}

async fn converse<R, W>(
    reader: &mut R,
    writer: &mut W,
    mut handshake: Handshake,
    first: Option<Bytes>,
    time: Duration,
    address: &str,
) -> Result<Met>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let talk = async {
        let mut decoder = Decoder::new(HANDSHAKE_LEN_MAX);
        if let Some(first) = first {
            say(writer, &first).await.map_err(|source| hung_up(address, source))?;
        }
        // Little is read at once: a stranger is worth no more memory.
        let mut bytes = [0; 2 * HANDSHAKE_LEN_MAX];
        loop {
            while let Some(frame) = decoder.next_frame().map_err(|e| foreign(address, e))? {
                match handshake.handle(&frame) {
                    Step::Send(answer) => {
                        say(writer, &answer).await.map_err(|e| hung_up(address, e))?;
                    }
                    Step::Done(agreement, answer) => {
                        if let Some(answer) = answer {
                            say(writer, &answer).await.map_err(|e| hung_up(address, e))?;
                        }
                        return Ok((agreement, decoder));
                    }
                    Step::Refused(refusal, answer) => {
                        last_words(writer, answer).await;
                        return Err(refused(address, &refusal));
                    }
                }
            }
            match reader.read(&mut bytes).await {
                Ok(0) => {
                    return Err(Error::Handshake {
                        address: address.to_owned(),
                        source: HandshakeError::HungUp,
                    });
                }
                Ok(len) => decoder.feed(&bytes[..len]),
                Err(source) => return Err(hung_up(address, source)),
            }
        }
    };
    if let Ok(ended) = timeout(time, talk).await {
        return ended;
    }
    if let Step::Refused(_, answer) = handshake.refuse(Reason::Late) {
        last_words(writer, answer).await;
    }
    Err(refused(address, &Refusal { by_peer: false, reason: Reason::Late }))
}

async fn say(writer: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    writer.write_all(frame).await?;
    writer.flush().await
}

async fn last_words(writer: &mut (impl AsyncWrite + Unpin), frame: Option<Bytes>) {
    let words = async {
        if let Some(frame) = frame {
            let _ = say(writer, &frame).await;
        }
        let _ = writer.shutdown().await;
    };
    let _ = timeout(LAST_WORDS, words).await;
}

fn refused(address: &str, refusal: &Refusal) -> Error {
    let by = if refusal.by_peer { "by the peer" } else { "here" };
    if let Some(untold) = tell::turn() {
        tracing::warn!(address, by, reason = %refusal.reason, untold, "a handshake was refused");
    }
    Error::Refused { address: address.to_owned(), by, reason: refusal.reason }
}

fn foreign(address: &str, error: FrameError) -> Error {
    if let Some(untold) = tell::turn() {
        tracing::warn!(address, %error, untold, "something else than a mainstay node");
    }
    Error::Handshake { address: address.to_owned(), source: error.into() }
}

fn hung_up(address: &str, source: io::Error) -> Error {
    let source = in_full(source);
    Error::Network {
        address: address.to_owned(),
        action: "shake hands",
        source,
        hint: "look into the log of the peer",
    }
}
