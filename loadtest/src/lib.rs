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
//! | [`calendar`], [`numbers`] | local dates and periods; numbers by a seed |
//! | [`registry`], [`oracle`] | the registry file in little memory; what each answer must be |
//! | [`workload`] | the port to what chooses requests and judges answers; [`citizens`] is behind it |
//! | [`crowd`], [`places`], [`books`] | who comes; what is known of limited uses and of the history |
//! | [`request`], [`answer`] | what is asked and answered, free of any protocol |
//! | [`transport`] | the port to the server; [`http`] is the one behind it |
//! | [`fleet`] | validators on the link: another transport, and what devices do beside checks |
//! | [`clock`], [`poller`] | the machine's time, and waiting to the nanosecond |
//! | [`generator`] | the loop: starts what is due, takes what arrives, counts what is missing |
//! | [`tally`], [`second`], [`recorder`] | what is counted, in total and by the second |
//! | [`tokens`] | the organizations' tokens, renewed beside the run |
//! | [`endpoint`], [`client`] | one blocking HTTP client for everything that is not load |
//! | [`machine`] | what the generator uses of the machine, and what others take of it |
//! | [`selfcheck`], [`null`] | the proof of the tool, on the spot: a server that stalls and notes when it answered |
//! | [`probe`], [`downtime`] | the availability that a caller beside the load sees |
//! | [`acknowledged`], [`audit`] | what was acknowledged, on disk; the history compared with it |
//! | [`execution`] | one run: all of this beside each other |
//! | [`relay`] | a bad mobile link in front of the server |
//! | [`faults`], [`target`] | what is done to the server on purpose; the server's own figures |
//! | [`objective`], [`verdict`] | limits and how they are judged |
//! | [`binomial`], [`burn`] | exact bounds of a share; how fast an error budget is used up |
//! | [`views`], [`summary`] | the share in windows beside the month; what is printed in the end |
//! | [`openslo`] | objectives from OpenSLO, and the alert rules that watch the same limits |
//! | [`run`] | everything that a run brought, as one JSON document |
//! | [`report`], [`output`], [`live`] | the same for people and for other programs; the directory of a run; what is seen meanwhile |
//! | [`merge`], [`compare`], [`peak`] | several runs: parts of one, one against another, ever faster ones |
//! | [`command`] | the command line |
//!
//! # Time
//! Everything counts in nanoseconds from the start of the run ([`time::Nanos`]). A request is due at
//! the instant that [`arrivals`] names, whatever became of the ones before it (an open loop). Its
//! *response time* counts from that instant, its *service time* from when it was sent; the
//! *lateness* is how long after the instant the generator came to it. A request that was not sent or
//! not answered by the end is a miss and never disappears.

pub mod acknowledged;
pub mod answer;
pub mod arrivals;
pub mod audit;
pub mod binomial;
pub mod books;
pub mod burn;
pub mod calendar;
pub mod citizens;
pub mod client;
pub mod clock;
pub mod command;
pub mod compare;
pub mod crowd;
pub mod downtime;
pub mod endpoint;
pub mod execution;
pub mod faults;
pub mod fleet;
mod flights;
pub mod generator;
pub mod histogram;
pub mod http;
pub mod live;
pub mod machine;
pub mod merge;
pub mod null;
pub mod numbers;
pub mod objective;
pub mod openslo;
pub mod oracle;
pub mod output;
pub mod peak;
pub mod places;
pub mod poller;
pub mod probe;
pub mod recorder;
pub mod registry;
pub mod relay;
pub mod report;
pub mod request;
pub mod run;
pub mod scenario;
pub mod second;
pub mod selfcheck;
pub mod summary;
pub mod tally;
pub mod target;
pub mod time;
pub mod tokens;
pub mod transport;
pub mod verdict;
pub mod views;
pub mod workload;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod stall;
