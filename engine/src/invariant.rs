//! The promises of eligo, by number. Tests, metrics and comments speak of them by these numbers.
//!
//! | no. | what always holds | where it is kept | where it is tried |
//! |---|---|---|---|
//! | 1 | An acknowledged confirm is in the log exactly once, with its amounts, for ever | [`crate::committer`]: answers go out after [`crate::journal::Journal::append`] returned | `simulation`, `crash` |
//! | 2 | An acknowledged cancel is never confirmed, and nothing of it names the holder | [`crate::plan`], [`crate::ledger`] | `simulation`, `crash` |
//! | 3 | A transaction id is never given out twice, not even after a crash | [`crate::ledger::Ledger::reserve_ids`]: only ids below a durable reservation | `simulation`, `crash` |
//! | 4 | Confirmed and held uses of a limit never exceed its count | [`crate::ledger::Ledger::claim`] takes a place under one lock | `properties`, `simulation` |
//! | 5 | A check sees one revision of the registry, whole | [`crate::registry::Registry`] is immutable; [`crate::partition::Partition::publish`] swaps it | `properties`, `simulation` |
//! | 6 | Applying an event again, or over a state that already has it, changes nothing | [`crate::ledger::Ledger::apply`] | `properties` |
//! | 7 | A snapshot becomes the newest only when every event that it holds is durable | [`crate::checkpoint::parts`]: the seal | `simulation` |
//! | 8 | State changes only by applying an event, live and in recovery by the same code | [`crate::ledger::Ledger::apply`], [`crate::import::apply_parts`] | `simulation` |
//! | 9 | A repeated call gets the first answer | [`crate::plan`] | `acceptance`, `simulation` |
//! | 10 | After a write or sync error nothing is acknowledged before recovery | [`crate::partition::Partition::fail`] | `engine`, `simulation`, `journal` |
//! | 11 | No SNILS, card number, secret or token reaches the journal, a snapshot, a log or a metric | [`crate::identifier`]: only keyed digests leave it | `hostile` |
//! | 12 | An acknowledged trip is in the log exactly once, with how it stood, and a repeat of it is a duplicate | [`crate::trips::clerk`]: planned against the book and its own group, answered after the append | `trips`, `simulation` |
//! | 13 | A trip is in at most one claim | [`crate::trips::book::TripBook::apply_claim`] | `trips`, `simulation` |
//! | 14 | The sums of a claim are those of its lines, to the kopeck | [`crate::trips::claim::Claim::take`], [`crate::trips::claim::Claim::refuse`] | `trips`, `simulation` |
//! | 15 | Neither the order nor the repetition of uploads changes what is accepted or claimed | [`crate::trips::judge`] looks at one trip, [`crate::trips::evaluation`] at the sorted whole | `trips` |
//! | 16 | No ruling on a disputed trip changes a claim that was handed in, and an acknowledged one is in the log | [`crate::trips::ruling::RulingPlan::take`], [`crate::trips::clerk`] | `trip_book`, `simulation` |
