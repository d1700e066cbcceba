//! Accounts are made by frontends alone: one request of REST.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::Done;

/// How long a frontend may take: it hashes a password, and two shards write.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The most that an answer may weigh, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where REST is, and who asks there.
pub(crate) struct Frontends {
    /// `https://HOST` or `http://HOST:PORT`.
    pub(crate) urls: Vec<String>,
    /// The administrator's.
    pub(crate) token: Option<String>,
    /// Who signs certificates there, beside those that this machine trusts; PEM.
    pub(crate) authority: Option<Vec<u8>>,
}

/// Who signs up.
pub(crate) struct NewAccount<'n> {
    pub(crate) address: &'n str,
    pub(crate) password: &'n str,
    pub(crate) name: &'n str,
}

/// Why the next frontend is asked, or none.
enum Failed {
    /// Nothing was sent.
    Unreachable(String),
    /// Something was.
    Refused(Diagnostic),
}

impl Frontends {
    /// Makes an account at the first frontend that can be reached.
    pub(crate) async fn sign_up(&self, new: &NewAccount<'_>) -> Done<()> {
        if self.urls.is_empty() {
            let detail = "Accounts are made by frontends: name where one serves REST, frontends = [\"https://HOST\"], or POSTRIDER_FRONTENDS.";
            return Err(Diagnostic::error("No frontend is named", detail));
        }
        let mut unreachable = Vec::new();
        for url in &self.urls {
            match self.ask(url, new).await {
                Ok(()) => return Ok(()),
                Err(Failed::Refused(diagnostic)) => return Err(diagnostic),
                Err(Failed::Unreachable(why)) => unreachable.push(format!("{url}: {why}")),
            }
        }
        Err(Diagnostic::error("No frontend can be reached", unreachable.join("; ")))
    }

    async fn ask(&self, url: &str, new: &NewAccount<'_>) -> Result<(), Failed> {
        let unreachable = |why: &dyn std::fmt::Display| Failed::Unreachable(why.to_string());
        let base: Uri = url.parse::<Uri>().map_err(|error| unreachable(&error))?;
        let (Some(host), Some(scheme)) = (base.host(), base.scheme_str()) else {
            return Err(unreachable(&"https://HOST or http://HOST:PORT is wanted"));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = base.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let connect = tokio::time::timeout(ANSWER_MAX, TcpStream::connect((host, port))).await;
        let stream = connect.map_err(|error| unreachable(&error))?.map_err(|error| unreachable(&error))?;
        let request = self.request(&base, new).map_err(|error| unreachable(&error))?;
        let answered = match scheme {
            "http" => tokio::time::timeout(ANSWER_MAX, send(stream, request)).await,
            "https" => {
                let config = self.tls().map_err(|error| unreachable(&error))?;
                let name = ServerName::try_from(host.to_owned()).map_err(|error| unreachable(&error))?;
                let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
                tokio::time::timeout(ANSWER_MAX, send(stream.map_err(|error| unreachable(&error))?, request)).await
            }
            _ => return Err(unreachable(&"https or http is wanted")),
        };
        let unknown = |why: String| {
            let detail = format!(
                "{url}: {why}. Whether the account was made is not known: apply again, and import it where its address is taken then."
            );
            Failed::Refused(Diagnostic::error("A frontend gave no answer", detail))
        };
        match answered {
            Ok(Ok((StatusCode::CREATED, _))) => Ok(()),
            Ok(Ok((status, body))) => Err(Failed::Refused(refusal(status, &body))),
            Ok(Err(error)) => Err(unknown(error.to_string())),
            Err(error) => Err(unknown(error.to_string())),
        }
    }

    fn request(&self, base: &Uri, new: &NewAccount<'_>) -> Result<Request<Full<bytes::Bytes>>, hyper::http::Error> {
        let body = serde_json::json!({ "address": new.address, "password": new.password, "name": new.name });
        let host = base.authority().map(ToString::to_string).unwrap_or_default();
        let mut request = Request::post("/v1/accounts").header(HOST, host).header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::new(body.to_string().into()))
    }

    fn tls(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = &self.authority {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate?)?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<bytes::Bytes>>,
) -> anyhow::Result<(StatusCode, bytes::Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    Ok((status, body.map_err(|error| anyhow::anyhow!("read the answer: {error}"))?.to_bytes()))
}

/// In the frontend's words, with what to do.
fn refusal(status: StatusCode, body: &[u8]) -> Diagnostic {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let said = |field: &str| problem[field].as_str().unwrap_or_default().to_owned();
    let (title, detail) = (said("title"), said("detail"));
    let cure = match status {
        StatusCode::CONFLICT => "Somebody has the address: `terraform import` takes the account over.",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "Only the administrator makes accounts there: give admin_token, or POSTRIDER_ADMIN_TOKEN."
        }
        status if status.is_server_error() => "Apply again later.",
        _ => "Change the configuration accordingly.",
    };
    Diagnostic::error("The account was not made", format!("{status}: {title}. {detail}\n{cure}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frontends(urls: &[&str]) -> Frontends {
        Frontends { urls: urls.iter().map(|url| (*url).to_owned()).collect(), token: Some("t".into()), authority: None }
    }

    const NEW: NewAccount<'_> = NewAccount { address: "ada@postrider.example", password: "correct horse", name: "Ada" };

    #[tokio::test]
    async fn the_first_that_is_reached_is_asked_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = peer.read(&mut request).await.unwrap();
            let answer = "HTTP/1.1 409 Conflict\r\nContent-Length: 47\r\n\r\n{\"title\": \"taken\", \"detail\": \"it is taken now\"}";
            peer.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).to_lowercase()
        });
        let refused = frontends(&[&format!("http://{closed}"), &url]).sign_up(&NEW).await.unwrap_err();
        assert!(
            refused.detail.contains("it is taken now") && refused.detail.contains("terraform import"),
            "{refused:?}"
        );
        let asked = answering.await.unwrap();
        assert!(asked.starts_with("post /v1/accounts ") && asked.contains("authorization: bearer t"), "{asked}");
    }

    #[tokio::test]
    async fn what_is_no_url_is_said() {
        let refused = frontends(&["frontend"]).sign_up(&NEW).await.unwrap_err();
        assert!(refused.detail.contains("is wanted"), "{refused:?}");
        assert!(frontends(&[]).sign_up(&NEW).await.unwrap_err().detail.contains("POSTRIDER_FRONTENDS"));
    }
}
