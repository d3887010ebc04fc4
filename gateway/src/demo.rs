//! The demonstration: a generated registry, an acceptor of its own, and three requests to paste.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use engine::command::Check;
use engine::decide::Verdict;
use engine::ids::{CategoryId, HolderId, OrganizationId, ServiceId, TerminalId};
use serde_json::{Value, json};

use crate::command::CommandError;
use crate::generator;
use crate::server::RunningServer;

/// The acceptor that the demonstration adds; its numbers are above all generated ones.
const ORGANIZATION: OrganizationId = OrganizationId(4_000_000_000);
const TERMINAL: TerminalId = TerminalId(4_000_000_000);
const AREA: u32 = 4_000_000_000;
const CLIENT_ID: &str = "demo";
const CLIENT_SECRET: &str = "demo-secret";
/// The seed of the generated registry.
const SEED: u64 = 1;
/// Card holders that are tried until one has a benefit.
const CANDIDATES_MAX: usize = 1_000;

/// A generated registry with the acceptor of the demonstration in it.
pub struct DemoRegistry {
    /// The file.
    pub path: PathBuf,
    services: Vec<ServiceId>,
    client_codes: Vec<String>,
}

/// Generates a registry of `holders` holders below `directory`.
pub fn generate(directory: &Path, holders: u64) -> Result<DemoRegistry, CommandError> {
    let path = directory.join("registry.ndjson");
    let mut out = BufWriter::new(File::create(&path)?);
    generator::write(holders, SEED, &mut out)?;
    out.flush()?;
    let mut known = Known::default();
    for line in BufReader::new(File::open(&path)?).lines() {
        known.take(&line?);
        if known.client_codes.len() >= CANDIDATES_MAX {
            break;
        }
    }
    for line in known.additions() {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    let services = known.services.into_iter().map(ServiceId).collect();
    Ok(DemoRegistry { path, services, client_codes: known.client_codes })
}

/// What the demonstration needs to know of the generated registry; its directory comes first.
#[derive(Default)]
struct Known {
    region: Option<Value>,
    categories: Vec<u32>,
    services: Vec<u32>,
    client_codes: Vec<String>,
}

impl Known {
    fn take(&mut self, line: &str) {
        let Ok(entry) = serde_json::from_str::<Value>(line) else { return };
        let id = entry.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        match entry.get("kind").and_then(Value::as_str) {
            Some("region") => self.region = entry.get("code").cloned(),
            Some("category") => self.categories.extend(id),
            Some("service") => self.services.extend(id),
            Some("holder") => {
                let cards = entry.get("cards").and_then(Value::as_array).into_iter().flatten();
                let codes = cards.filter_map(|card| card.get("client_code")?.as_str());
                self.client_codes.extend(codes.map(str::to_string));
            }
            _ => {}
        }
    }

    /// The acceptor, which offers everything to everybody.
    fn additions(&self) -> Vec<String> {
        let (organization, terminal) = (ORGANIZATION.0, TERMINAL.0);
        let area = json!({
            "kind": "area", "id": AREA, "name": "Демонстрация", "region": self.region,
        });
        let acceptor = json!({
            "kind": "organization", "id": organization, "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET, "short_name": "Демонстрация", "connection": "T2V2",
            "state": "active", "area": AREA, "ip_allow": ["127.0.0.0/8", "::1/128"],
            "categories": self.categories, "history": true,
        });
        let desk = json!({ "kind": "terminal", "id": terminal, "organization": organization });
        let offers = self.services.iter().map(
            |service| json!({ "kind": "offer", "organization": organization, "service": service }),
        );
        [area, acceptor, desk].into_iter().chain(offers).map(|line| line.to_string()).collect()
    }
}

/// A check that will find a benefit.
struct Example {
    client_code: String,
    service: ServiceId,
    holder: HolderId,
    category: CategoryId,
}

/// Prints a token request, a check and a confirm that the server answers as foretold.
pub fn print(
    server: &RunningServer,
    scheme: &str,
    registry: &DemoRegistry,
) -> Result<(), CommandError> {
    let Some(example) = find_example(server, registry) else {
        let line = "no generated holder has a benefit; try more holders";
        return Err(CommandError::failure(line.to_string()));
    };
    let base = format!("{scheme}://{}", server.http_addr);
    let form = format!(
        "client_id={CLIENT_ID}&client_secret={CLIENT_SECRET}\
         &grant_type=client_credentials&scope=ECS.WebAPI+OrganizationAPI"
    );
    let check = format!(
        "{{\"serviceId\":{},\"organizationTerminalId\":{TERMINAL},\"clientCode\":\"{}\"}}",
        example.service, example.client_code
    );
    let confirm = format!(
        "{{\"clientId\":{},\"benefitCategoryId\":{},\"transactionId\":1,\
         \"price\":300,\"discountedPrice\":100}}",
        example.holder, example.category
    );
    let call = |path: &str, body: &str| {
        format!("curl -s {base}{path} -H \"Authorization: Bearer $TOKEN\" -d '{body}'")
    };
    let mut out = io::stdout().lock();
    writeln!(out, "\n# a token")?;
    writeln!(out, "curl -s {base}/connect/token -d '{form}'")?;
    writeln!(out, "\n# the same, kept for the calls below")?;
    let cut = "sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/'";
    writeln!(out, "TOKEN=$(curl -s {base}/connect/token -d '{form}' | {cut})")?;
    writeln!(out, "\n# a check; the first one opens transaction 1")?;
    writeln!(out, "{}", call("/api/CheckClientBenefits", &check))?;
    writeln!(out, "\n# its confirm; 200 without a body, however often it is repeated")?;
    writeln!(out, "{} -w '%{{http_code}}\\n'", call("/api/ConfirmTransaction", &confirm))?;
    out.flush()?;
    Ok(())
}

fn find_example(server: &RunningServer, registry: &DemoRegistry) -> Option<Example> {
    let engine = &server.engine;
    let known = engine.registry();
    for client_code in &registry.client_codes {
        let Ok(identifier) = engine.keys().identifiers.client_code(client_code) else { continue };
        let Some(holder) = known.holder_id(&identifier) else { continue };
        for service in &registry.services {
            let (organization, terminal, service) = (ORGANIZATION, TERMINAL, *service);
            let check = Check { organization, terminal, service, identifier };
            let explanation = engine.explain(&known, &check);
            let mut categories = explanation.categories.into_iter();
            let wins = categories.find(|(_, verdict)| *verdict == Verdict::Wins);
            if let Some((category, _)) = wins {
                let client_code = client_code.clone();
                return Some(Example { client_code, service, holder, category });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acceptor_offers_what_was_generated() {
        let mut known = Known::default();
        known.take("{\"kind\":\"region\",\"code\":\"14\"}");
        known.take("{\"kind\":\"category\",\"id\":10}");
        known.take("{\"kind\":\"service\",\"id\":7}");
        known.take("{\"kind\":\"holder\",\"id\":1,\"cards\":[{\"client_code\":\"A\"},{}]}");
        known.take("not json");
        assert_eq!(known.client_codes, ["A"]);
        let lines = known.additions();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].contains("\"region\":\"14\""));
        assert!(lines[1].contains("\"categories\":[10]"));
        assert!(lines[3].contains("\"service\":7"));
    }
}
