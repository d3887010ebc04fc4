//! Trips, claims and blocks as their callers see them.

use std::sync::{Arc, PoisonError, RwLockReadGuard};

use arc_swap::ArcSwap;
use tokio::sync::broadcast;

use crate::calendar::Timestamp;
use crate::command::Deadline;
use crate::ids::{Kopecks, OrganizationId};
use crate::registry::Registry;
use crate::supervisor::Caretaker;
use crate::trips::block::{BlockChange, Blocks};
use crate::trips::book::TripBook;
use crate::trips::claim::{ClaimError, ClaimId, ClaimOrder, ClaimState, ClaimSummary};
use crate::trips::clerk::{Clerk, UploadScope};
use crate::trips::desk::{Desk, Seat, Shelf};
use crate::trips::listing::{self, TripPage, TripQuery};
use crate::trips::registries::{HolderRegistries, NoRegistries};
use crate::trips::ruling::{Ruling, RulingOutcome};
use crate::trips::trip::{RecordedTrip, Trip, TripName, TripOutcome};

/// Imports whose blocks a subscriber may be behind; past it, it hears that it missed some and reads
/// [`Trips::blocks`].
const BLOCK_NEWS_MAX: usize = 64;

/// The blocks that one import began or ended.
pub type BlockNews = Arc<[BlockChange]>;

/// Trips, claims and blocks of an engine.
pub struct Trips {
    /// Where the clerk works.
    pub(crate) desk: Arc<Desk>,
    blocks: Arc<ArcSwap<Blocks>>,
    news: broadcast::Sender<BlockNews>,
    registries: Arc<ArcSwap<Box<dyn HolderRegistries>>>,
}

/// Whose claims are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClaimReader {
    /// A carrier sees its own.
    Carrier(OrganizationId),
    /// The ministry sees what was submitted.
    Ministry,
}

/// A line of a claim with its trip.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClaimLineView {
    /// The trip's name.
    pub name: TripName,
    /// What is claimed for it.
    pub amount: Kopecks,
    /// Why it is not paid for.
    pub refusal: Option<String>,
    /// The trip, as long as it is in memory.
    pub trip: Option<RecordedTrip>,
}

impl Trips {
    pub(crate) fn new(clerk: Clerk, blocks: Blocks) -> (Trips, Seat) {
        let (desk, seat) = Desk::new(clerk);
        let registries: Box<dyn HolderRegistries> = Box::new(NoRegistries);
        let trips = Trips {
            desk: Arc::new(desk),
            blocks: Arc::new(ArcSwap::from_pointee(blocks)),
            news: broadcast::Sender::new(BLOCK_NEWS_MAX),
            registries: Arc::new(ArcSwap::from_pointee(registries)),
        };
        (trips, seat)
    }

    /// Judges trips from now on by these holder registries; before, every version is unknown.
    pub fn judge_by(&self, registries: impl HolderRegistries) {
        self.registries.store(Arc::new(Box::new(registries)));
    }

    /// Records trips, up to [`crate::limits::UPLOAD_TRIPS_MAX`]; one outcome for each, in their order.
    /// What is not "unavailable" is durable.
    pub async fn upload(
        &self,
        scope: UploadScope,
        trips: Vec<Trip>,
        deadline: Deadline,
    ) -> Vec<TripOutcome> {
        self.desk.upload(scope, trips, deadline).await
    }

    /// Changes a claim; what is answered is durable.
    pub async fn order(
        &self,
        order: ClaimOrder,
        deadline: Deadline,
    ) -> Result<ClaimSummary, ClaimError> {
        self.desk.order(order, deadline).await
    }

    /// Decides on disputed trips, at most [`crate::limits::RULINGS_MAX`]; one outcome for each ruling,
    /// in their order. What is not "unavailable" is durable.
    pub async fn rule(&self, rulings: Vec<Ruling>, deadline: Deadline) -> Vec<RulingOutcome> {
        self.desk.rule(rulings, deadline).await
    }

    /// Claims, the newest first, from the `skipped`th on, and how many there are.
    pub fn claims(
        &self,
        reader: ClaimReader,
        skipped: usize,
        count: usize,
    ) -> (Vec<ClaimSummary>, usize) {
        let book = self.book();
        let seen =
            || book.claims().rev().map(|claim| claim.summary()).filter(|one| reader.sees(one));
        (seen().skip(skipped).take(count).collect(), seen().count())
    }

    /// A claim without its lines.
    pub fn claim(&self, reader: ClaimReader, id: ClaimId) -> Option<ClaimSummary> {
        let summary = self.book().claim(id)?.summary();
        reader.sees(&summary).then_some(summary)
    }

    /// Lines of a claim, in the order in which the trips happened, from the `skipped`th on.
    pub fn claim_lines(&self, id: ClaimId, skipped: usize, count: usize) -> Vec<ClaimLineView> {
        let book = self.book();
        let Some(claim) = book.claim(id) else { return Vec::new() };
        let lines = claim.lines.iter().skip(skipped).take(count);
        let view = lines.map(|line| ClaimLineView {
            name: line.name,
            amount: line.amount,
            refusal: claim.refusals.get(&line.name).cloned(),
            trip: book.slot(line.name).and_then(|slot| slot.recorded()),
        });
        view.collect()
    }

    /// A page of trips; takes some tens of milliseconds for millions of them. Dates are those of each
    /// carrier's clock in `registry`.
    pub fn list(&self, query: &TripQuery, registry: &Registry) -> TripPage {
        listing::page(self.desk.book(), query, registry)
    }

    /// How many trips are in memory.
    pub fn trip_count(&self) -> usize {
        self.book().trip_count()
    }

    /// Since when which cards are blocked.
    pub fn blocks(&self) -> Arc<Blocks> {
        self.blocks.load_full()
    }

    /// Hears of the blocks of every import from now on. A subscriber who is too slow hears that it
    /// missed some; it then reads [`Trips::blocks`].
    pub fn subscribe_blocks(&self) -> broadcast::Receiver<BlockNews> {
        self.news.subscribe()
    }

    pub(crate) fn shelf(&self, caretaker: &Arc<Caretaker>) -> Shelf {
        Shelf {
            caretaker: Arc::clone(caretaker),
            blocks: Arc::clone(&self.blocks),
            registries: Arc::clone(&self.registries),
        }
    }

    /// Publishes the blocks after an import at `at`, and tells subscribers what it changed.
    pub(crate) fn publish(&self, blocks: &Blocks, at: Timestamp) {
        let news: BlockNews = blocks.changes().filter(|change| change.at == at).collect();
        self.blocks.store(Arc::new(blocks.clone()));
        if !news.is_empty() {
            // Nobody may be listening.
            let _ = self.news.send(news);
        }
    }

    /// Publishes the blocks after a recovery, and tells subscribers all of them.
    pub(crate) fn publish_all(&self, blocks: &Blocks) {
        self.blocks.store(Arc::new(blocks.clone()));
        // Nobody may be listening.
        let _ = self.news.send(blocks.changes().collect());
    }

    fn book(&self) -> RwLockReadGuard<'_, TripBook> {
        self.desk.book().read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClaimReader {
    fn sees(self, claim: &ClaimSummary) -> bool {
        match self {
            ClaimReader::Carrier(organization) => claim.organization == organization,
            ClaimReader::Ministry => claim.state > ClaimState::Draft,
        }
    }
}
