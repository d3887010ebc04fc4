//! How both sides set QUIC up: small messages over mobile links.
//!
//! # Why
//! Windows bound what a peer may have in flight, hence the memory that it can take; they are far
//! above what checks need and let a registry or a night's trips flow at the speed of a mobile link.
//! Datagrams are off: a stream keeps order and repeats what is lost, and several frames share one
//! packet. Packets begin with 1,200 bytes, which every path carries, and probing finds more.

use std::time::Duration;

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// The name of the protocol in the handshake.
pub const ALPN: &[u8] = b"eligo";
/// The only version of the messages so far.
pub const VERSION: u16 = 1;
/// Seconds without a packet after which a side takes the connection for lost.
pub const IDLE_SECONDS: u64 = 60;
/// Seconds of silence after which a device shows that it is there.
pub const KEEP_ALIVE_SECONDS: u64 = 20;
/// Streams of a device that may be open at the same time.
pub const STREAMS_MAX: u32 = 16;

/// Bytes of one stream that may be under way unread.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes of one connection that may be under way unread.
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// Bytes written and not acknowledged yet.
const SEND_WINDOW_BYTES: u64 = 512 << 10;
/// Packets that are acknowledged together.
const ACKED_TOGETHER: u32 = 8;

const _: () = assert!(KEEP_ALIVE_SECONDS * 2 < IDLE_SECONDS);

/// The device's side.
pub fn device() -> TransportConfig {
    let mut transport = both(Duration::from_secs(IDLE_SECONDS));
    transport
        .keep_alive_interval(Some(Duration::from_secs(KEEP_ALIVE_SECONDS)))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1));
    transport
}

/// The server's side.
pub fn server(idle: Duration) -> TransportConfig {
    let mut transport = both(idle);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    transport
}

fn both(idle: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACKED_TOGETHER));
    transport
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        .ack_frequency_config(Some(acks))
        .datagram_receive_buffer_size(None);
    transport
}
