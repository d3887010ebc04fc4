//! What stands in for a wrong line of a registry file while the rest of the file is looked at, so
//! that lines which refer to what it speaks of are not blamed for it.

use crate::calendar::{UtcOffset, Validity};
use crate::directory::{
    Area, Category, Connection, Organization, OrganizationRole, OrganizationState, Region,
    SecretDigest, Service, ServiceKind,
};
use crate::ids::{AreaId, CategoryId, OrganizationId, RegionCode, ServiceId};
use crate::registry::change::RegistryChange;
use crate::registry::field;
use crate::registry::line::{self, NamedLine};

/// An entry of the kind and id that a wrong line names, if it does so and others may refer to it. It
/// says nothing more, and what it refers to itself does not exist.
pub fn stand_in(line: &[u8]) -> Option<RegistryChange> {
    let text = std::str::from_utf8(line).ok()?;
    let NamedLine { id, code } = line::read(text).ok()?;
    let id = field::small_id("id", id);
    let name = String::new();
    Some(match line::kind(text)? {
        "region" => {
            let region = Region { name, utc_offset: UtcOffset(0), prg_code: None };
            RegistryChange::Region(field::region("code", code).ok()?, Some(region))
        }
        "area" => {
            let area = Area { name, region: RegionCode(0) };
            RegistryChange::Area(AreaId(id.ok()?), Some(area))
        }
        "category" => {
            let validity = Validity::UNLIMITED;
            let category = Category { name, priority: 0, with_companion: false, validity };
            RegistryChange::Category(CategoryId(id.ok()?), Some(category))
        }
        "service" => {
            let service = Service { name, kind: ServiceKind::Visit, categories: Vec::new() };
            RegistryChange::Service(ServiceId(id.ok()?), Some(service))
        }
        "organization" => {
            let organization = Organization {
                client_id: name.clone(),
                secret: SecretDigest([0; 32]),
                short_name: name,
                connection: Connection::T3,
                state: OrganizationState::Submitted,
                area: AreaId(0),
                ip_allow: Vec::new(),
                categories: Vec::new(),
                history: false,
                role: OrganizationRole::Acceptor,
            };
            RegistryChange::Organization(OrganizationId(id.ok()?), Some(organization))
        }
        _ => return None,
    })
}
