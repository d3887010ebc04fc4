//! Which devices come: terminals of carriers that have a certificate in the directory of `eligo pki`.

use std::path::Path;

use validator::link::identity::{Identity, IdentityError};

use crate::citizens::desks::carriers;
use crate::numbers::mix;
use crate::registry::Registry;

/// A device's place in the world.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Berth {
    /// Its terminal.
    pub terminal: u64,
    /// Its organization, by place.
    pub organization: u16,
}

/// Terminals of carriers with a certificate, in an order that the seed decides, so that each part of
/// the list has devices of every carrier.
pub fn berths(registry: &Registry, pki: &Path, seed: u64) -> Vec<Berth> {
    let carriers = carriers(registry);
    let mut berths = Vec::new();
    for terminal in &registry.directory.terminals {
        let place = terminal.organization.filter(|place| carriers.contains(place));
        let Some(organization) = place.filter(|_| terminal.is_active) else { continue };
        let certificate = pki.join("devices").join(format!("{}.pem", terminal.id));
        if certificate.is_file() {
            berths.push(Berth { terminal: terminal.id, organization });
        }
    }
    berths.sort_by_key(|berth| mix(seed ^ mix(berth.terminal)));
    berths
}

/// The identity of a device.
pub fn identity(pki: &Path, terminal: u64) -> Result<Identity, IdentityError> {
    let device = |kind: &str| pki.join("devices").join(format!("{terminal}.{kind}"));
    Identity::read(&pki.join("authority.pem"), &device("pem"), &device("key"))
}
