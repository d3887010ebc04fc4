//! Which organizations ask what, by their places in the directory.

use std::collections::BTreeMap;

use crate::registry::Registry;
use crate::registry::directory::{ConnectionType, Offer, Organization};

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
    /// Where only some terminals and services are used: those of organizations, by their places.
    pub stands: BTreeMap<u16, Stand>,
}

/// The part of an organization that comes.
#[derive(Clone, Debug, Default)]
pub struct Stand {
    /// Terminals, by id.
    pub terminals: Vec<u64>,
    /// What is asked for there.
    pub offers: Vec<Offer>,
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

    /// Only validators: organizations that confirm what they checked by card, some of their
    /// terminals, and journeys.
    pub fn of_validators(registry: &Registry, terminals: &[u64]) -> Desks {
        let all = Desks::new(registry);
        let carriers = carriers(registry);
        let mut stands: BTreeMap<u16, Stand> = BTreeMap::new();
        for id in terminals {
            let terminal = registry.directory.terminal(*id).filter(|terminal| terminal.is_active);
            let place = terminal.and_then(|terminal| terminal.organization);
            let Some(place) = place.filter(|place| carriers.contains(place)) else { continue };
            stands.entry(place).or_default().terminals.push(*id);
        }
        for (place, stand) in &mut stands {
            let organization = registry.directory.organization(*place);
            stand.offers = organization.map(|one| journeys(registry, one)).unwrap_or_default();
        }
        let places: Vec<u16> = stands.keys().copied().collect();
        Desks {
            plastic: places.clone(),
            confirming: places.clone(),
            serving: places,
            history: all.history,
            stands,
            ..Desks::default()
        }
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

/// The organizations, by place, whose validators a fleet may be made of.
pub fn carriers(registry: &Registry) -> Vec<u16> {
    let desks = Desks::new(registry);
    let both = desks.plastic.into_iter().filter(|place| desks.confirming.contains(place));
    let has_journeys = |place: &u16| {
        let organization = registry.directory.organization(*place);
        organization.is_some_and(|one| !journeys(registry, one).is_empty())
    };
    both.filter(has_journeys).collect()
}

/// What of an organization's offers validators check.
fn journeys(registry: &Registry, organization: &Organization) -> Vec<Offer> {
    let is_journey = |offer: &&Offer| {
        let service = registry.directory.services.get(usize::from(offer.service));
        service.is_some_and(|service| service.is_transport)
    };
    organization.offers.iter().filter(is_journey).cloned().collect()
}
