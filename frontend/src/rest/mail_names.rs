//! What is told over HTTPS of the domains, by the host that is asked for: the policy of MTA-STS (RFC 8461 section 3.3), and
//! the servers that mail programs shall use (Mozilla's autoconfig, Microsoft's autodiscover).
//!
//! Invariant: DNS and this say the same. Policies and mail hosts are a name server's, whose MTA-STS id is made of the very text
//! that is served here.
//! Deliberately absent: reading what an autodiscover client sends. The host names the domain, and programs know their user's address.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Uri};
use postrider_api::pb;
use postrider_dns::zone::domain::{Policy, mta_sts_policy};
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::rest::problem::{Kind, Problem};

const MTA_STS: &str = "mta-sts.";
const AUTOCONFIG: &str = "autoconfig.";
const AUTODISCOVER: &str = "autodiscover.";
/// The host that mail programs connect to, below the domain.
const MAIL: &str = "mail";

/// What a name server's configuration says of domains and regions.
#[derive(Debug, Clone, Default)]
pub struct MailNames {
    /// What every domain says of itself, where it says nothing else.
    pub policy: Policy,
    /// What single domains say.
    pub domains: BTreeMap<String, Policy>,
    /// The mail host of each region, by the region's name.
    pub mail_hosts: BTreeMap<String, String>,
}

/// What the handlers need.
#[derive(Clone)]
struct Served {
    names: Arc<MailNames>,
    cluster: Arc<dyn Cluster>,
}

/// The paths, where there is something to say; they are no part of REST.
pub(crate) fn paths<S: Clone + Send + Sync + 'static>(
    names: Option<MailNames>,
    cluster: Arc<dyn Cluster>,
) -> Router<S> {
    let Some(names) = names else { return Router::new() };
    Router::new()
        .route("/.well-known/mta-sts.txt", get(mta_sts))
        // https://www.bucksch.org/1/projects/thunderbird/autoconfiguration/
        .route("/mail/config-v1.1.xml", get(autoconfig))
        .route("/.well-known/autoconfig/mail/config-v1.1.xml", get(autoconfig))
        // Programs write it in either case.
        .route("/autodiscover/autodiscover.xml", post(autodiscover).get(autodiscover))
        .route("/Autodiscover/Autodiscover.xml", post(autodiscover).get(autodiscover))
        .with_state(Served { names: Arc::new(names), cluster })
}

async fn mta_sts(State(served): State<Served>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let host = host(&uri, &headers).ok_or_else(nobodys)?;
    let map = served.cluster.map();
    let domain = served_domain(&map, host.strip_prefix(MTA_STS)).ok_or_else(nobodys)?;
    let regions = map.regions.iter().filter(|region| region.zone == domain.zone);
    let hosts = regions.filter_map(|region| served.names.mail_hosts.get(&region.name)).map(String::as_str);
    let text = mta_sts_policy(served.names.policy_of(&domain.name).mta_sts, hosts).ok_or_else(nobodys)?;
    Ok(answer("text/plain; charset=utf-8", text))
}

/// What Mozilla's programs add to the path.
#[derive(Debug, Default, Deserialize)]
struct AutoconfigQuery {
    emailaddress: Option<String>,
}

async fn autoconfig(State(served): State<Served>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    // What cannot be read names nobody.
    let query = Query::<AutoconfigQuery>::try_from_uri(&uri).ok();
    let address = query.and_then(|Query(query)| query.emailaddress).map(|address| address.to_ascii_lowercase());
    let of_address = address.as_deref().and_then(|address| address.rsplit_once('@')).map(|(_, domain)| domain);
    let host = host(&uri, &headers);
    let of_host = host.as_deref().map(|host| host.strip_prefix(AUTOCONFIG).unwrap_or(host));
    let map = served.cluster.map();
    let domain = served_domain(&map, of_host).or_else(|| served_domain(&map, of_address)).ok_or_else(nobodys)?;
    Ok(answer("text/xml; charset=utf-8", client_config(&domain.name, served.names.policy_of(&domain.name))))
}

async fn autodiscover(State(served): State<Served>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let host = host(&uri, &headers);
    let of_host = host.as_deref().map(|host| host.strip_prefix(AUTODISCOVER).unwrap_or(host));
    let map = served.cluster.map();
    let domain = served_domain(&map, of_host).ok_or_else(nobodys)?;
    Ok(answer("text/xml; charset=utf-8", outlook(&domain.name, served.names.policy_of(&domain.name))))
}

impl MailNames {
    fn policy_of(&self, domain: &str) -> &Policy {
        self.domains.get(domain).unwrap_or(&self.policy)
    }
}

fn nobodys() -> Problem {
    Problem::new(Kind::NotFound)
}

/// The host that was asked for, without its port: HTTP/2 has it in the URI (RFC 9113 section 8.3.1).
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let field = || headers.get(HOST).and_then(|value| value.to_str().ok());
    let named = uri.authority().map(http::uri::Authority::as_str).or_else(field)?;
    let host = named.rsplit_once(':').map_or(named, |(host, _)| host);
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

fn served_domain<'m>(map: &'m pb::ShardMap, name: Option<&str>) -> Option<&'m pb::Domain> {
    let name = name?;
    map.domains.iter().find(|domain| domain.name == name)
}

fn answer(content_type: &'static str, text: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(content_type))], Body::from(text)).into_response()
}

/// One server that programs may use.
struct Server {
    port: u16,
    tls_at_once: bool,
}

/// Those that take mail from programs; RFC 8314 section 3.3: TLS from the first byte is preferred.
fn submission(policy: &Policy) -> impl Iterator<Item = Server> {
    let at_once = Server { port: policy.submissions_port, tls_at_once: true };
    let later = Server { port: policy.submission_port, tls_at_once: false };
    [at_once, later].into_iter().filter(|server| server.port != 0)
}

/// A domain is lower-case A-labels, so nothing in it is markup.
fn client_config(domain: &str, policy: &Policy) -> String {
    let server = |element: &str, kind: &str, server: &Server| {
        let socket = if server.tls_at_once { "SSL" } else { "STARTTLS" };
        format!(
            "    <{element} type=\"{kind}\">\n      <hostname>{MAIL}.{domain}</hostname>\n      <port>{}</port>\n      \
             <socketType>{socket}</socketType>\n      <username>%EMAILADDRESS%</username>\n      \
             <authentication>password-cleartext</authentication>\n    </{element}>\n",
            server.port
        )
    };
    let imap = Server { port: policy.imaps_port, tls_at_once: true };
    let incoming = if imap.port == 0 { String::new() } else { server("incomingServer", "imap", &imap) };
    let outgoing: String = submission(policy).map(|submission| server("outgoingServer", "smtp", &submission)).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<clientConfig version=\"1.1\">\n  <emailProvider id=\"{domain}\">\n    \
         <domain>{domain}</domain>\n    <displayName>{domain}</displayName>\n    \
         <displayShortName>{domain}</displayShortName>\n{incoming}{outgoing}  </emailProvider>\n</clientConfig>\n"
    )
}

/// [MS-OXDSCLI] section 2.2.4: what Outlook asks for an account that is not Exchange's.
fn outlook(domain: &str, policy: &Policy) -> String {
    let protocol = |kind: &str, server: &Server| {
        let encryption = if server.tls_at_once { "SSL" } else { "TLS" };
        format!(
            "      <Protocol>\n        <Type>{kind}</Type>\n        <Server>{MAIL}.{domain}</Server>\n        \
             <Port>{}</Port>\n        <DomainRequired>off</DomainRequired>\n        <SPA>off</SPA>\n        \
             <SSL>on</SSL>\n        <Encryption>{encryption}</Encryption>\n        \
             <AuthRequired>on</AuthRequired>\n      </Protocol>\n",
            server.port
        )
    };
    let imap = Server { port: policy.imaps_port, tls_at_once: true };
    let imap = if imap.port == 0 { String::new() } else { protocol("IMAP", &imap) };
    let smtp = submission(policy).next().map(|server| protocol("SMTP", &server)).unwrap_or_default();
    let schema = "http://schemas.microsoft.com/exchange/autodiscover";
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Autodiscover xmlns=\"{schema}/responseschema/2006\">\n  \
         <Response xmlns=\"{schema}/outlook/responseschema/2006a\">\n    <Account>\n      \
         <AccountType>email</AccountType>\n      <Action>settings</Action>\n{imap}{smtp}    </Account>\n  \
         </Response>\n</Autodiscover>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_read_in_both_versions_of_http() {
        let of_field = |text: &'static str| {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(text))]);
            host(&Uri::from_static("/x"), &headers)
        };
        assert_eq!(of_field("MTA-STS.Example.org:8443").as_deref(), Some("mta-sts.example.org"));
        assert_eq!(of_field("mta-sts.example.org.").as_deref(), Some("mta-sts.example.org"));
        let uri = Uri::from_static("https://mta-sts.example.org/x");
        assert_eq!(host(&uri, &HeaderMap::new()).as_deref(), Some("mta-sts.example.org"));
        assert_eq!(host(&Uri::from_static("/x"), &HeaderMap::new()), None);
    }

    #[test]
    fn only_servers_that_are_there_are_told_of() {
        let policy = Policy { submission_port: 0, ..Policy::default() };
        let config = client_config("example.org", &policy);
        assert!(
            config.contains("<port>465</port>") && !config.contains("STARTTLS") && !config.contains("imap"),
            "{config}"
        );
        let policy = Policy { imaps_port: 993, submissions_port: 0, ..Policy::default() };
        let (config, settings) = (client_config("example.org", &policy), outlook("example.org", &policy));
        assert!(
            config.contains("<incomingServer type=\"imap\">") && config.contains("<socketType>STARTTLS"),
            "{config}"
        );
        assert!(
            settings.contains("<Port>993</Port>") && settings.contains("<Encryption>TLS</Encryption>"),
            "{settings}"
        );
    }
}
