//! Blocks on their way to a device: what all are told, and what it has missed before it came.
//!
//! Both are written in pieces of at most [`BLOCKS_TOGETHER`] blocks, each with a deadline of its own,
//! so that a slow device needs little memory and is not taken for one that does not read. What all are
//! told is made once and shared. A device puts pieces in order by their instants.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, SendStream};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use validator::link::close::CloseCode;
use validator::link::message::BlockPush;
use validator::link::wire;

use crate::link::limits::{BLOCKS_TOGETHER, WRITE_TIMEOUT, transfer_patience};
use crate::link::session::{Admission, Session};

/// Bytes of a block in its frame, about.
const BLOCK_BYTES: u64 = 64;

/// Blocks in their frames, in pieces.
pub type Push = Arc<[Bytes]>;

/// Blocks in their frames, in pieces.
pub fn pieces(blocks: &[BlockPush]) -> Push {
    blocks.chunks(BLOCKS_TOGETHER).map(piece).collect()
}

fn piece(blocks: &[BlockPush]) -> Bytes {
    let mut frames = Vec::new();
    blocks.iter().for_each(|block| wire::push(&mut frames, 0, 0, block));
    frames.into()
}

/// Sends a device the blocks that are newer than its registry, once there is a place for it. A device
/// that does not read them is disconnected: it must begin again.
pub async fn catch_up(session: Arc<Session>, version: u64) {
    let link = &session.link;
    let _place = tokio::select! {
        place = link.fleet.catch_ups.acquire() => place,
        _ended = session.connection.closed() => return,
    };
    let admission = session.admission(&link.gateway.engine.registry());
    let Some(Admission { organization, .. }) = admission else { return };
    let registries = Arc::clone(&link.registries);
    let terminal = session.device.terminal;
    let look = move || {
        registries.note(organization, terminal, version);
        registries.blocks_since(organization, version)
    };
    let Ok(blocks) = tokio::task::spawn_blocking(look).await else { return };
    let send = async {
        for blocks in blocks.chunks(BLOCKS_TOGETHER) {
            // The writer ends with the connection, whatever that ends with.
            if session.missed.send(piece(blocks)).await.is_err() {
                return;
            }
        }
    };
    let bytes = u64::try_from(blocks.len()).unwrap_or(u64::MAX).saturating_mul(BLOCK_BYTES);
    if timeout(transfer_patience(bytes), send).await.is_err() {
        session.close(CloseCode::NotReading);
    }
}

/// Writes what is pushed to a device until its connection ends.
pub async fn serve(
    connection: Connection,
    mut pushes: Receiver<Push>,
    mut missed: Receiver<Bytes>,
) {
    let mut writer = Writer { connection, stream: None };
    loop {
        let written = tokio::select! {
            biased;
            Some(push) = pushes.recv() => writer.write_all(&push).await,
            Some(piece) = missed.recv() => writer.write(piece).await,
            else => return,
        };
        if written.is_err() {
            // Too late where the connection has ended.
            return writer.connection.close(CloseCode::NotReading.into(), b"");
        }
    }
}

/// The stream of pushes, opened with the first one.
struct Writer {
    connection: Connection,
    stream: Option<SendStream>,
}

/// The device does not take what it is sent.
struct NotReading;

impl Writer {
    async fn write_all(&mut self, push: &Push) -> Result<(), NotReading> {
        for piece in push.iter() {
            self.write(piece.clone()).await?;
        }
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), NotReading> {
        let write = async {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let opened = self.connection.open_uni().await;
                    self.stream.insert(opened.map_err(|_| NotReading)?)
                }
            };
            stream.write_chunk(piece).await.map_err(|_| NotReading)
        };
        timeout(WRITE_TIMEOUT, write).await.unwrap_or(Err(NotReading))
    }
}
