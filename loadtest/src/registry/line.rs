//! The lines of a registry file, as far as the load tester needs them. What the server would reject
//! is not looked for; unknown fields are skipped.

use std::borrow::Cow;

use serde::Deserialize;

use crate::calendar::Period;

/// Any line.
#[derive(Deserialize)]
pub(crate) struct Line<'a> {
    #[serde(borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(default)]
    pub(crate) deleted: bool,
}

#[derive(Deserialize)]
pub(crate) struct RegionLine<'a> {
    #[serde(borrow)]
    pub(crate) code: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) utc_offset: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(crate) struct AreaLine<'a> {
    pub(crate) id: u32,
    #[serde(borrow, default)]
    pub(crate) region: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(crate) struct CategoryLine<'a> {
    pub(crate) id: u32,
    #[serde(borrow, default)]
    pub(crate) name: Cow<'a, str>,
    #[serde(default)]
    pub(crate) priority: i64,
    pub(crate) valid_from: Option<Cow<'a, str>>,
    pub(crate) valid_to: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(crate) struct ServiceLine<'a> {
    pub(crate) id: u32,
    #[serde(borrow, default)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) service_kind: Option<Cow<'a, str>>,
    pub(crate) categories: Option<Vec<LinkLine>>,
}

#[derive(Deserialize)]
pub(crate) struct LinkLine {
    pub(crate) category: u32,
    pub(crate) priority: Option<i64>,
    pub(crate) discount_percent: Option<u8>,
    pub(crate) limit: Option<LimitLine>,
}

#[derive(Deserialize)]
pub(crate) struct LimitLine {
    pub(crate) count: u32,
    pub(crate) period: Period,
}

#[derive(Deserialize)]
pub(crate) struct OrganizationLine<'a> {
    pub(crate) id: u32,
    #[serde(borrow, default)]
    pub(crate) client_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) client_secret: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) connection: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) state: Cow<'a, str>,
    #[serde(default)]
    pub(crate) area: u32,
    pub(crate) categories: Option<Vec<u32>>,
    #[serde(default)]
    pub(crate) history: bool,
}

#[derive(Deserialize)]
pub(crate) struct OfferLine<'a> {
    pub(crate) organization: u32,
    pub(crate) service: u32,
    #[serde(borrow)]
    pub(crate) valid_from: Option<Cow<'a, str>>,
    pub(crate) valid_to: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(crate) struct TerminalLine<'a> {
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) organization: u32,
    #[serde(borrow)]
    pub(crate) state: Option<Cow<'a, str>>,
}

/// The id of a holder whose other fields do not matter.
#[derive(Deserialize)]
pub(crate) struct HolderIdLine {
    pub(crate) id: u64,
}

#[derive(Deserialize)]
pub(crate) struct HolderLine<'a> {
    pub(crate) id: u64,
    #[serde(borrow)]
    pub(crate) snils: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) status: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) deleted: bool,
    #[serde(borrow)]
    pub(crate) cards: Option<Vec<CardLine<'a>>>,
    #[serde(borrow)]
    pub(crate) categories: Option<Vec<RightLine<'a>>>,
}

#[derive(Deserialize)]
pub(crate) struct CardLine<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) card_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) expires: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) client_code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) number: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) series: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(crate) struct RightLine<'a> {
    pub(crate) category: u32,
    #[serde(borrow)]
    pub(crate) valid_from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) valid_to: Option<Cow<'a, str>>,
}
