//! Tokens that expire while a run goes on, as foreseen and at once.

use std::ops::ControlFlow;
use std::process::Command;

use loadtest::calendar::Wall;
use loadtest::execution::Watch;
use loadtest::registry::Registry;
use loadtest::run::Run;
use loadtest::second::Second;
use loadtest::time::Nanos;
use loadtest::tokens::ACCEPTOR_SCOPE;
use tests::server::binary;

use crate::stage::{Stage, counts};

const TOKEN_SECONDS: u64 = 2;

/// Sets the server's clock ahead by half of a token's life whenever every token was renewed since.
struct Aging<'a> {
    stage: &'a Stage,
    now: Wall,
    /// Tokens that were given out at the beginning, and until the clock was set.
    askers: u64,
    issued: u64,
    halves: u32,
}

impl Aging<'_> {
    fn issued(stage: &Stage) -> u64 {
        let metrics = stage.server.metrics();
        let name = "eligo_requests_total{carrier=\"none\",method=\"token\",outcome=\"done\"} ";
        let count = metrics.lines().find_map(|line| line.strip_prefix(name));
        count.unwrap().parse().unwrap()
    }
}

impl Watch for Aging<'_> {
    fn second(&mut self, _second: &Second) -> ControlFlow<()> {
        let issued = Aging::issued(self.stage);
        // They are renewed in turn, and a turn is in use before the next one begins; the probe has a
        // token of its own.
        if issued < self.issued + 3 * self.askers {
            return ControlFlow::Continue(());
        }
        if self.halves == 3 {
            return ControlFlow::Break(());
        }
        self.now = self.now.plus(Nanos::from_seconds(TOKEN_SECONDS / 2));
        self.stage.server.set_clock(&self.now.to_string());
        (self.issued, self.halves) = (issued, self.halves + 1);
        ControlFlow::Continue(())
    }

    fn wants_standing(&self) -> bool {
        false
    }

    fn standing(&mut self, _run: &Run) {}
}

/// Sets the server's clock ahead by more than a token's life, once.
struct Expiry<'a> {
    stage: &'a Stage,
    expired: Wall,
    is_over: bool,
}

impl Watch for Expiry<'_> {
    fn second(&mut self, second: &Second) -> ControlFlow<()> {
        if second.second >= 2 && !std::mem::replace(&mut self.is_over, true) {
            self.stage.server.set_clock(&self.expired.to_string());
        }
        ControlFlow::Continue(())
    }

    fn wants_standing(&self) -> bool {
        false
    }

    fn standing(&mut self, _run: &Run) {}
}

/// Every token dies at once, long before its renewal is due.
#[test]
fn tokens_that_the_server_refuses_are_renewed_at_once() {
    let today = Wall::now().to_string();
    let (date, _) = today.split_once('T').unwrap();
    let noon = Wall::parse(&format!("{date}T12:00:00Z")).unwrap();
    let mut command = Command::new(binary());
    command.env("ELIGO_TOKEN_LIFETIME_SECONDS", "60");
    command.env("ELIGO_CLOCK", format!("manual:{noon}"));
    let stage = Stage::set_by(command);
    let scenario = stage.scenario(stage.server.http, "duration_seconds = 10");
    let scenario = scenario.replace("[target]\n", &format!("[target]\nnow = \"{noon}\"\n"));
    let expired = noon.plus(Nanos::from_seconds(120));
    let mut expiry = Expiry { stage: &stage, expired, is_over: false };
    let (run, _) = stage.run_and_watch(&scenario, &mut expiry);
    let (right, wrong, refused, _) = counts(&run);
    assert_eq!(wrong, 0, "{:?}", run.wrong_answers);
    assert!(refused > 0 && right > 500, "{right} {refused}");
    // An organization that seldom asks may learn of it in the last second only.
    let last = run.seconds.iter().rfind(|second| second.due > 0).unwrap();
    assert!(last.refused * 10 <= last.due, "the tokens were not renewed: {last:?}");
    assert!(run.audit.unwrap().is_clean(), "{:?}", run.audit);
}

#[test]
fn tokens_that_expire_during_a_run_are_renewed_before() {
    let now = Wall::now();
    let mut command = Command::new(binary());
    command.env("ELIGO_TOKEN_LIFETIME_SECONDS", TOKEN_SECONDS.to_string());
    command.env("ELIGO_CLOCK", format!("manual:{now}"));
    let stage = Stage::set_by(command);
    let registry = Registry::load(&stage.registry, 1, 1).unwrap();
    let mut organizations = registry.directory.organizations.iter();
    let organization = organizations.find(|one| one.is_known && one.connection.is_some()).unwrap();
    let secret = &organization.secret.0;
    let first = stage.server.token(&organization.client_id, secret, ACCEPTOR_SCOPE);
    let asked = stage.server.client().call(&first, "/api/GetOrganizationServices", "{}");
    assert_eq!(asked.status, 200, "{asked:?}");
    let scenario = stage.scenario(stage.server.http, "duration_seconds = 300");
    let frozen = format!("[target]\nnow = \"{now}\"\n");
    let scenario = scenario.replace("[target]\n", &frozen);
    let askers = registry.directory.organizations.iter();
    let askers = askers.filter(|one| one.is_known).count() as u64;
    let issued = Aging::issued(&stage);
    let mut aging = Aging { stage: &stage, now, askers, issued, halves: 0 };
    let (run, _) = stage.run_and_watch(&scenario, &mut aging);
    assert_eq!(aging.halves, 3, "the tokens were not renewed");
    let asked = stage.server.client().call(&first, "/api/GetOrganizationServices", "{}");
    assert_eq!(asked.status, 401, "the first tokens have expired: {asked:?}");
    let (right, wrong, refused, unanswered) = counts(&run);
    assert_eq!((wrong, refused, unanswered), (0, 0, 0), "{:?}", run.wrong_answers);
    assert!(right > 500, "{right}");
    assert!(run.audit.unwrap().is_clean(), "{:?}", run.audit);
}
