//! Which organizations ask what, by their places in the directory.

use crate::registry::Registry;
use crate::registry::directory::{ConnectionType, Organization};

/// Organizations by what they can do.
#[derive(Clone, Debug, Default)]
pub struct Desks {
    /// Serve cards: connection types 1 and 3.
    pub plastic: Vec<u16>,
    /// Serve insurance numbers: connection type 2.
    pub snils: Vec<u16>,
    /// Serve, and confirm what they checked: connection types 1 and 2.
    pub confirming: Vec<u16>,
    /// Serve, and record by checking: connection type 3.
    pub recording: Vec<u16>,
    /// All that serve.
    pub serving: Vec<u16>,
    /// Have a token, but may not check.
    pub idle: Vec<u16>,
    /// May ask for the history.
    pub history: Vec<u16>,
}

impl Desks {
    /// Sorts the organizations.
    pub fn new(registry: &Registry) -> Desks {
        let mut desks = Desks::default();
        for (place, organization) in (0..).zip(&registry.directory.organizations) {
            desks.add(place, organization);
        }
        desks
    }

    fn add(&mut self, place: u16, organization: &Organization) {
        if !organization.is_known {
            return;
        }
        if organization.history && organization.serves {
            self.history.push(place);
        }
        let Some(connection) = organization.connection else { return };
        if organization.terminals.is_empty() || organization.offers.is_empty() {
            return;
        }
        if !organization.serves {
            return self.idle.push(place);
        }
        self.serving.push(place);
        match connection {
            ConnectionType::One | ConnectionType::Three => self.plastic.push(place),
            ConnectionType::Two => self.snils.push(place),
        }
        match connection {
            ConnectionType::One | ConnectionType::Two => self.confirming.push(place),
            ConnectionType::Three => self.recording.push(place),
        }
    }
}
