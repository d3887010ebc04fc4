//! What an import changes: one entry per line of a registry file.

use crate::directory::{Area, Category, Offer, Organization, Region, Service, Terminal};
use crate::holder::Holder;
use crate::ids::{AreaId, CategoryId, HolderId, OrganizationId, RegionCode, ServiceId, TerminalId};

/// One upsert, or with `None` one deletion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RegistryChange {
    /// An area.
    Area(AreaId, Option<Area>),
    /// A category.
    Category(CategoryId, Option<Category>),
    /// A holder.
    Holder(HolderId, Option<Holder>),
    /// An offer.
    Offer((OrganizationId, ServiceId), Option<Offer>),
    /// An organization.
    Organization(OrganizationId, Option<Organization>),
    /// A region.
    Region(RegionCode, Option<Region>),
    /// A service.
    Service(ServiceId, Option<Service>),
    /// A terminal.
    Terminal(TerminalId, Option<Terminal>),
}
