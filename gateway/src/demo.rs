//! The demonstration: a generated registry and three requests to paste.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use engine::command::Check;
use engine::decide::Verdict;
use engine::ids::{CategoryId, HolderId, OrganizationId, ServiceId, TerminalId};

use crate::command::CommandError;
use crate::generator;
use crate::server::RunningServer;

/// The generated organization that the demonstration speaks as; it has connection type 1.
const ORGANIZATION: OrganizationId = OrganizationId(1);
/// The seed of the generated registry.
const SEED: u64 = 1;
/// Holders that are tried until one has a benefit.
const CANDIDATES_MAX: u64 = 1_000;

/// Generates a registry of `holders` holders below `directory`.
pub fn generate(directory: &Path, holders: u64) -> io::Result<PathBuf> {
    let path = directory.join("registry.ndjson");
    let mut out = BufWriter::new(File::create(&path)?);
    generator::write(holders, SEED, &mut out)?;
    out.flush()?;
    Ok(path)
}

/// A check that will find a benefit.
struct Example {
    client_code: String,
    service: ServiceId,
    holder: HolderId,
    category: CategoryId,
}

/// Prints a token request, a check and a confirm that the server answers as foretold.
pub fn print(server: &RunningServer, scheme: &str) -> Result<(), CommandError> {
    let Some(example) = find_example(server) else {
        let line = "no generated holder has a benefit; try more holders";
        return Err(CommandError::failure(line.to_string()));
    };
    let base = format!("{scheme}://{}", server.http_addr);
    let client = generator::credentials(ORGANIZATION.0, SEED);
    let form = format!(
        "client_id={}&client_secret={}\
         &grant_type=client_credentials&scope=ECS.WebAPI+OrganizationAPI",
        client.client_id, client.client_secret
    );
    let check = format!(
        "{{\"serviceId\":{},\"organizationTerminalId\":{},\"clientCode\":\"{}\"}}",
        example.service,
        terminal(),
        example.client_code
    );
    let confirm = format!(
        "{{\"clientId\":{},\"benefitCategoryId\":{},\"transactionId\":1,\
         \"price\":300,\"discountedPrice\":100}}",
        example.holder, example.category
    );
    let call = |path: &str, body: &str| {
        let shown = "-w '\\n%{http_code}\\n'";
        format!("curl -s {shown} {base}{path} -H \"Authorization: Bearer $TOKEN\" -d '{body}'")
    };
    let mut out = io::stdout().lock();
    writeln!(out, "\n# a token")?;
    writeln!(out, "curl -s -w '\\n' {base}/connect/token -d '{form}'")?;
    writeln!(out, "\n# the same, kept for the calls below")?;
    let cut = "sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/'";
    writeln!(out, "TOKEN=$(curl -s {base}/connect/token -d '{form}' | {cut})")?;
    writeln!(out, "\n# a check; the first one opens transaction 1")?;
    writeln!(out, "{}", call("/api/CheckClientBenefits", &check))?;
    writeln!(out, "\n# its confirm; 200 without a body, however often it is repeated")?;
    writeln!(out, "{}", call("/api/ConfirmTransaction", &confirm))?;
    out.flush()?;
    Ok(())
}

fn find_example(server: &RunningServer) -> Option<Example> {
    let engine = &server.engine;
    let registry = engine.registry();
    for client_code in (1..=CANDIDATES_MAX).map(generator::client_code) {
        let Ok(identifier) = engine.keys().identifiers.client_code(&client_code) else { continue };
        let Some(holder) = registry.holder_id(&identifier) else { continue };
        for service in generator::services_of(ORGANIZATION.0).map(ServiceId) {
            let (organization, terminal) = (ORGANIZATION, terminal());
            let check = Check { organization, terminal, service, identifier };
            let explanation = engine.explain(&registry, &check);
            let mut categories = explanation.categories.into_iter();
            let wins = categories.find(|(_, verdict)| *verdict == Verdict::Wins);
            if let Some((category, _)) = wins {
                return Some(Example { client_code, service, holder, category });
            }
        }
    }
    None
}

fn terminal() -> TerminalId {
    TerminalId(generator::first_terminal(ORGANIZATION.0))
}
