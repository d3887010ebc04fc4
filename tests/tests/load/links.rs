//! Links that spoil answers, and what the verdict says of them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loadtest::run::Run;
use loadtest::verdict::{Outcome, Verdict};

use crate::stage::{Stage, check_missed, counts, outcome};

/// What a bad link does to answers.
#[derive(Clone, Copy)]
enum Link {
    /// Says that nothing more will come instead of carrying an answer, and goes on listening.
    HalfClosing,
    /// Turns grants into refusals.
    Lying,
    /// Says 503 itself.
    Refusing,
    /// Brings answers after the limit.
    Stalling,
}

/// A link to a server that spoils every fourth answer that grants a check.
fn spoil(server: SocketAddr, link: Link) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let granted = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (granted, server) = (Arc::clone(&granted), TcpStream::connect(server).unwrap());
            // Ends when one side does.
            std::thread::spawn(move || carry(client, server, link, &granted));
        }
    });
    address
}

fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    link: Link,
    granted: &Arc<AtomicUsize>,
) -> Option<()> {
    let (mut answers, mut back) = (server.try_clone().ok()?, client.try_clone().ok()?);
    let granted = Arc::clone(granted);
    std::thread::spawn(move || -> Option<()> {
        let mut buffer = [0; 1 << 16];
        loop {
            let count = answers.read(&mut buffer).ok().filter(|count| *count > 0)?;
            let mut text = String::from_utf8(buffer[..count].to_vec()).unwrap_or_default();
            let is_grant = text.contains("{\"resultCode\":0,") && !text.contains("\"results\"");
            if is_grant && granted.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
                match link {
                    Link::HalfClosing => return back.shutdown(Shutdown::Write).ok(),
                    Link::Lying => text = text.replace("\"resultCode\":0", "\"resultCode\":1"),
                    Link::Refusing => {
                        text = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned();
                    }
                    Link::Stalling => std::thread::sleep(Duration::from_millis(3_500)),
                }
            }
            back.write_all(text.as_bytes()).ok()?;
        }
    });
    let copied = std::io::copy(&mut client, &mut server).ok();
    // The server may have ended before.
    let _ = server.shutdown(Shutdown::Both);
    copied.map(drop)
}

fn check_link(link: Link) -> (Run, Verdict) {
    let stage = Stage::set();
    stage.run(spoil(stage.server.http, link), "duration_seconds = 4\ngive_up_seconds = 8")
}

#[test]
fn a_lying_link_is_a_wrong_answer() {
    let (run, verdict) = check_link(Link::Lying);
    assert!(counts(&run).1 > 0);
    assert!(!run.wrong_answers.is_empty());
    assert_eq!((outcome(&verdict, "wrong"), verdict.exit_code()), (Outcome::Fail, 1));
}

#[test]
fn a_refusing_link_is_not_an_answer() {
    let (run, verdict) = check_link(Link::Refusing);
    let (_, wrong, refused, _) = counts(&run);
    assert!(wrong == 0 && refused > 0, "{:?}", run.wrong_answers);
    check_missed(&verdict, "slow or unanswered checks");
}

#[test]
fn a_half_closing_link_leaves_requests_unanswered() {
    let (run, verdict) = check_link(Link::HalfClosing);
    let (_, wrong, _, unanswered) = counts(&run);
    assert!(wrong == 0 && unanswered > 0, "{:?}", run.wrong_answers);
    assert!(run.connections.broken > 0);
    assert!(run.audit.unwrap().is_clean());
    check_missed(&verdict, "slow or unanswered checks");
}

#[test]
fn a_stalling_link_is_slow() {
    let (run, verdict) = check_link(Link::Stalling);
    let slow: u64 = run.tallies.iter().map(|tallied| tallied.tally.slow).sum();
    assert!(slow > 0 && counts(&run).1 == 0, "{slow} {:?}", run.wrong_answers);
    check_missed(&verdict, "slow or unanswered checks");
}
