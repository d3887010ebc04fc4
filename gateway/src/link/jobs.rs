//! Requests whose answer takes longer than a look into memory: each is a task of its own, whose
//! frames the task of the stream writes.

use std::io::{self, Read};
use std::sync::Arc;

use engine::command::Deadline;
use engine::ids::OrganizationId;
use engine::trips::clerk::UploadScope;
use serde_bytes::ByteBuf;
use tokio::sync::mpsc::Sender;
use validator::link::message::{
    Ack, AckCode, Failure, FailureCode, RegistryAck, RegistryPart, TripBatch, TripResults,
};
use validator::link::wire;
use validator::trip::BATCH_TRIPS_MAX;

use crate::link::kit::Delivery;
use crate::link::limits::{PART_BYTES, transfer_patience};
use crate::link::session::{JobPlace, Session, TripBatchPlace};

/// Messages that are read on a thread which may take its time.
const READ_ELSEWHERE_BYTES: usize = 64 << 10;

/// Frames of an answer.
pub enum JobAnswer {
    /// The last ones, and the place that the job had until they are written, or nobody wants them.
    Last(Vec<u8>, JobPlace),
    /// More follow.
    Some(Vec<u8>),
}

/// A request that takes longer.
pub enum Job {
    /// A registry was installed.
    Installed(OrganizationId, RegistryAck),
    /// A registry is wanted.
    Pull(OrganizationId, u64),
    /// Trips are reported, still unread.
    Trips(OrganizationId, Vec<u8>, TripBatchPlace),
}

/// Where a job's answer goes, and until when it is wanted.
pub struct Errand {
    /// The connection.
    pub session: Arc<Session>,
    /// The request's.
    pub correlation: u32,
    /// Until when.
    pub deadline: Deadline,
    /// To the task of the stream. Who is gone wants no answer.
    pub answers: Sender<JobAnswer>,
}

impl Errand {
    /// Does the job.
    pub async fn run(self, (job, place): (Job, JobPlace)) {
        let mut last = Vec::new();
        match job {
            Job::Installed(organization, ack) => {
                let code = self.installed(organization, ack).await;
                wire::push(&mut last, self.correlation, 0, &Ack { code });
            }
            Job::Pull(organization, have) => {
                if self.pull(organization, have).await.is_err() {
                    self.fail(FailureCode::Unavailable, &mut last);
                }
            }
            Job::Trips(organization, bytes, batch_place) => {
                match self.trips(organization, bytes).await {
                    Ok(results) => wire::push(&mut last, self.correlation, 0, &results),
                    Err(code) => self.fail(code, &mut last),
                }
                drop(batch_place);
            }
        }
        let _gone = self.answers.send(JobAnswer::Last(last, place)).await;
    }

    async fn installed(&self, organization: OrganizationId, ack: RegistryAck) -> AckCode {
        let registries = Arc::clone(&self.session.link.registries);
        let terminal = self.session.device.terminal;
        let note = move || registries.installed(organization, terminal, &ack);
        tokio::task::spawn_blocking(note).await.unwrap_or(AckCode::Unavailable)
    }

    async fn trips(
        &self,
        organization: OrganizationId,
        bytes: Vec<u8>,
    ) -> Result<TripResults, FailureCode> {
        let link = &self.session.link;
        let until = self.deadline.0.into();
        let place = tokio::time::timeout_at(until, link.fleet.trip_batches.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(FailureCode::DeadlinePassed) };
        let is_large = bytes.len() > READ_ELSEWHERE_BYTES;
        let read = move || wire::decode::<TripBatch>(&bytes);
        let read = if is_large {
            let read = tokio::task::spawn_blocking(read).await;
            read.map_err(|_| FailureCode::Unavailable)?
        } else {
            read()
        };
        let TripBatch { trips } = read.map_err(|_| FailureCode::Malformed)?;
        if trips.len() > BATCH_TRIPS_MAX {
            return Err(FailureCode::Malformed);
        }
        let scope = UploadScope { organization, terminal: Some(self.session.device.terminal) };
        let submitted = link.trips.submit(scope, trips, self.deadline);
        match tokio::time::timeout_at(until, submitted).await {
            Ok(results) => Ok(TripResults { results }),
            Err(_elapsed) => Err(FailureCode::Unavailable),
        }
    }

    /// Sends offer and parts, at the pace at which the device takes them, as long as that is one.
    async fn pull(&self, organization: OrganizationId, have: u64) -> io::Result<()> {
        let link = &self.session.link;
        let until = self.deadline.0.into();
        let ended = |_| io::Error::other("the link has ended");
        // Its own first: a device that waits for itself takes nothing from the fleet.
        let own = tokio::time::timeout_at(until, self.session.pull.acquire()).await?;
        let _own = own.map_err(ended)?;
        let place = tokio::time::timeout_at(until, link.fleet.pulls.acquire()).await?;
        let _place = place.map_err(ended)?;
        let registries = Arc::clone(&link.registries);
        let pulled = tokio::task::spawn_blocking(move || registries.pull(organization, have));
        let delivery = pulled.await??;
        let patience = transfer_patience(delivery.offer.bytes);
        tokio::time::timeout(patience, self.deliver(delivery)).await?
    }

    async fn deliver(&self, mut delivery: Delivery) -> io::Result<()> {
        let lost = |_| io::Error::other("the device is gone");
        let mut frames = Vec::new();
        wire::push(&mut frames, self.correlation, 0, &delivery.offer);
        let mut left = delivery.offer.bytes;
        self.answers.send(JobAnswer::Some(frames)).await.map_err(lost)?;
        while left > 0 {
            let correlation = self.correlation;
            let size = usize::try_from(left).unwrap_or(PART_BYTES).min(PART_BYTES);
            let read = move || {
                let mut bytes = vec![0; size];
                delivery.bytes.read_exact(&mut bytes)?;
                let mut frames = Vec::new();
                let part = RegistryPart { bytes: ByteBuf::from(bytes) };
                wire::push(&mut frames, correlation, 0, &part);
                Ok::<_, io::Error>((frames, delivery))
            };
            let (frames, rest) = tokio::task::spawn_blocking(read).await??;
            delivery = rest;
            left -= u64::try_from(size).unwrap_or(left).min(left);
            self.answers.send(JobAnswer::Some(frames)).await.map_err(lost)?;
        }
        Ok(())
    }

    fn fail(&self, code: FailureCode, out: &mut Vec<u8>) {
        self.session.link.metrics.failed();
        wire::push(out, self.correlation, 0, &Failure { code });
    }
}
