//! A server whose streams end while their connection goes on.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway::pki::trust::Trust;
use quinn::crypto::rustls::QuicServerConfig;
use serde_bytes::ByteArray;
use tests::agent::Shelved;
use tests::carrier::{V1, run};
use tests::devices::{Depot, PATIENCE, RawStream};
use validator::link::message::{Hello, Kind, Rules, Welcome};
use validator::link::wire;

/// Nothing is answered any more on such a connection, and the device took its link for up.
#[test]
fn a_device_whose_streams_end_connects_again() {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::make(directory.path(), &[V1]);
    let tls = Trust::open(depot.pki()).unwrap().server_config().unwrap();
    let config = QuicServerConfig::try_from(tls).unwrap();
    let data_dir = directory.path().join("device");
    run(async {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = quinn::ServerConfig::with_crypto(Arc::new(config));
        let endpoint = quinn::Endpoint::server(config, local).unwrap();
        let shelved = Shelved { terminal: V1, data_dir, check_ms: 300 };
        let _agent = shelved.start(&depot, endpoint.local_addr().unwrap(), 0);
        let mut connections = Vec::new();
        for _ in 0..3 {
            let connection = tokio::time::timeout(PATIENCE, greet(&endpoint)).await;
            connections.push(connection.expect("the device did not connect again"));
        }
    });
}

/// Takes the next connection, welcomes the device, and ends its stream.
async fn greet(endpoint: &quinn::Endpoint) -> quinn::Connection {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let mut stream = RawStream::accept(&connection).await;
    let (header, hello) = stream.next().await.unwrap();
    assert_eq!(header.kind, Kind::Hello as u16);
    let hello: Hello = wire::decode(&hello).unwrap();
    let welcome = Welcome {
        version: hello.version_max,
        clock_ms: hello.clock_ms,
        organization: 10,
        registry_version: 0,
        card_key: ByteArray::new([0; 16]),
        signers: Vec::new(),
        rules: Rules { passback_seconds: 0, grace_hours: 0 },
        in_flight_max: 64,
    };
    let mut message = Vec::new();
    wire::encode(&welcome, &mut message);
    stream.frame(Kind::Welcome as u16, header.correlation, &message).await;
    connection
}
