//! The load tester of eligo: says whether a deployment holds its peak hour, and proves it.
//!
//! It knows only the wire. What a right answer is, it derives by itself from the registry file that
//! the server imported ([`oracle`]), so a server cannot be right by agreeing with its own mistake.
//!
//! # Map
//! | module | what it is |
//! |---|---|
//! | [`scenario`] | the TOML file: target, arrivals, mix, objectives, faults |
//! | [`arrivals`] | when requests are due, ahead of the run and by a seed |
//! | [`registry`], [`oracle`] | the registry file in little memory; what each answer must be |
//! | [`workload`] | which request comes next; judges its answer by the oracle |
//! | [`request`], [`answer`] | what is asked and answered, free of any protocol |
//! | [`transport`] | the port to the server; [`http`] is the one behind it |
//! | [`generator`] | the loop: starts what is due, takes what arrives, counts what is missing |
//! | [`tally`], [`second`], [`recorder`] | what is counted, in total and by the second |
//! | [`endpoint`], [`client`] | one blocking HTTP client for everything that is not load |
//! | [`probe`], [`downtime`] | the availability that a caller beside the load sees |
//! | [`acknowledged`], [`audit`] | what was acknowledged, on disk; the history compared with it |
//! | [`faults`], [`target`] | what is done to the server on purpose; the server's own figures |
//! | [`objective`], [`verdict`] | limits and how they are judged |
//! | [`binomial`], [`burn`] | exact bounds of a share; how fast an error budget is used up |
//! | [`openslo`] | objectives from OpenSLO, and the alert rules that watch the same limits |
//! | [`run`] | everything that a run brought, as one JSON document |
//! | [`report`], [`live`] | the same for people and for other programs, after the run and during it |
//! | [`merge`], [`compare`], [`peak`] | several runs: parts of one, one against another, ever faster ones |
//!
//! # Time
//! Everything counts in nanoseconds from the start of the run ([`time::Nanos`]). A request is due at
//! the instant that [`arrivals`] names, whatever became of the ones before it (an open loop). Its
//! *response time* counts from that instant, its *service time* from when it was sent; the
//! *lateness* is how long after the instant the generator came to it. A request that was not sent or
//! not answered by the end is a miss and never disappears.

pub mod answer;
pub mod binomial;
pub mod burn;
pub mod client;
pub mod compare;
pub mod downtime;
pub mod endpoint;
pub mod faults;
pub mod histogram;
pub mod live;
pub mod merge;
pub mod objective;
pub mod openslo;
pub mod peak;
pub mod probe;
pub mod report;
pub mod request;
pub mod run;
pub mod second;
pub mod tally;
pub mod target;
pub mod time;
pub mod transport;
pub mod verdict;
pub mod workload;

#[cfg(test)]
mod fixture;
