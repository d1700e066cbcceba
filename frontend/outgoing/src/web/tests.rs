//! Against a server of the test, by names that a DNS of the test gives addresses.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::dns::said::Said;
use crate::route::AddressPolicy;

const LIMITS: FetchLimits = FetchLimits { bytes_max: 1000, redirects_max: 3, time_max: Duration::from_secs(10) };

/// A web server that answers by path, and remembers what it was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answer, heads) = (Arc::new(answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, heads) = (Arc::clone(&answer), Arc::clone(&heads));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    heads.lock().unwrap().push(head);
                    match answer(&path) {
                        Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                        // It never answers.
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn fetcher(dns: Said, allow_private: bool) -> Fetcher {
    Fetcher::new(Arc::new(dns), &[], AddressPolicy { allow_private })
}

async fn get(fetcher: &Fetcher, url: &str) -> Result<String, FetchError> {
    fetcher.get(url, "image/png", LIMITS).await.map(|body| String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn what_is_asked_names_nobody() {
    let server = Server::start(|_| Some(ok("an image"))).await;
    let fetcher = fetcher(Said::default().at("img.example", &["127.0.0.1"]), true);
    assert_eq!(get(&fetcher, &server.url("img.example", "/x?y=1#z")).await.unwrap(), "an image");
    let asked = server.asked().join("");
    let mut lines = asked.lines();
    assert_eq!(lines.next(), Some("GET /x?y=1 HTTP/1.1"));
    let names: Vec<_> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_ascii_lowercase()).collect();
    assert_eq!(names, ["host", "user-agent", "accept", "accept-encoding", "connection"]);
}

#[tokio::test]
async fn nothing_is_fetched_from_what_is_not_public() {
    let server = Server::start(|_| Some(ok("secret"))).await;
    let hosts = [
        ("loopback.example", "127.0.0.1"),
        ("private.example", "10.1.2.3"),
        ("carrier.example", "100.64.0.1"),
        ("link.example", "169.254.169.254"),
        ("here.example", "0.0.0.0"),
        ("v6.example", "::1"),
        ("link6.example", "fe80::1"),
        ("local6.example", "fd00::1"),
        ("mapped.example", "::ffff:127.0.0.1"),
        ("mapped-private.example", "::ffff:192.168.1.1"),
        ("translated.example", "64:ff9b::7f00:1"),
        ("6to4.example", "2002:7f00:1::"),
    ];
    let dns = hosts.into_iter().fold(Said::default(), |dns, (host, address)| dns.at(host, &[address]));
    let fetcher = fetcher(dns, false);
    for (host, address) in hosts {
        let error = get(&fetcher, &format!("http://{host}/")).await.unwrap_err();
        assert!(error.is_refusal(), "{address}: {error}");
    }
    for url in [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0/",
        "ftp://img.example/",
        "file:///etc/passwd",
        "gopher://img.example/",
        "http://img.example:22/",
        "https://img.example:8443/",
        "x",
        "data:image/png,x",
    ] {
        assert!(get(&fetcher, url).await.unwrap_err().is_refusal(), "{url}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn where_a_redirect_leads_is_looked_at_anew() {
    let server = Server::start(|path| {
        Some(match path {
            "/here" => ok("here"),
            "/away" => "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/here\r\n\r\n".to_owned(),
            "/file" => "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n".to_owned(),
            "/round" => "HTTP/1.1 307 Temporary Redirect\r\nLocation: /round\r\n\r\n".to_owned(),
            "/nowhere" => "HTTP/1.1 301 Moved\r\n\r\n".to_owned(),
            _ => "HTTP/1.1 308 Permanent Redirect\r\nLocation: here\r\n\r\n".to_owned(),
        })
    })
    .await;
    let fetcher = fetcher(Said::default().at("img.example", &["127.0.0.1"]), true);
    assert_eq!(get(&fetcher, &server.url("img.example", "/moved")).await.unwrap(), "here");
    for path in ["/away", "/file"] {
        assert!(get(&fetcher, &server.url("img.example", path)).await.unwrap_err().is_refusal(), "{path}");
    }
    for path in ["/round", "/nowhere"] {
        let error = get(&fetcher, &server.url("img.example", path)).await.unwrap_err();
        assert!(matches!(error, FetchError::Redirect(_)), "{path}: {error}");
    }
    let rounds = server.asked().iter().filter(|head| head.starts_with("GET /round")).count();
    assert_eq!(rounds, LIMITS.redirects_max + 1);
}

/// A DNS that says another address each time.
struct Rebinding(std::sync::atomic::AtomicUsize);

#[async_trait::async_trait]
impl crate::dns::Dns for Rebinding {
    async fn exchangers(
        &self,
        _: &crate::dns::Domain,
    ) -> Result<crate::dns::Answer<crate::dns::Exchanger>, crate::dns::DnsError> {
        Ok(crate::dns::Answer::none(true, false))
    }

    async fn addresses(
        &self,
        _: &crate::dns::Domain,
        family: crate::dns::Family,
    ) -> Result<crate::dns::Answer<std::net::IpAddr>, crate::dns::DnsError> {
        if family == crate::dns::Family::V6 {
            return Ok(crate::dns::Answer::none(true, false));
        }
        // Both are refused: a second question for the same connection would be a third one in all.
        let asked = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let address = if asked == 0 { [192, 0, 2, 1] } else { [127, 0, 0, 1] };
        Ok(crate::dns::Answer::of(vec![address.into()], false))
    }

    async fn tlsa(
        &self,
        _: &crate::dns::Domain,
        _: u16,
    ) -> Result<crate::dns::Answer<crate::dns::Tlsa>, crate::dns::DnsError> {
        Ok(crate::dns::Answer::none(true, false))
    }

    async fn txt(&self, _: &str) -> Result<crate::dns::Answer<String>, crate::dns::DnsError> {
        Ok(crate::dns::Answer::none(true, false))
    }
}

#[tokio::test]
async fn a_name_is_asked_for_once_for_each_connection() {
    let dns = Arc::new(Rebinding(std::sync::atomic::AtomicUsize::new(0)));
    let fetcher = Fetcher::new(Arc::clone(&dns) as _, &[], AddressPolicy::default());
    for _ in 0..2 {
        assert!(get(&fetcher, "http://img.example/").await.unwrap_err().is_refusal());
    }
    assert_eq!(dns.0.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time() {
    let server = Server::start(|path| match path {
        "/announced" => Some("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx".to_owned()),
        "/chunked" => Some(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            format!("200\r\n{}\r\n", "x".repeat(512)).repeat(4)
        )),
        "/broken" => Some("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx".to_owned()),
        "/head" => Some(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1_000_000))),
        "/gone" => Some("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n".to_owned()),
        "/noise" => Some("SSH-2.0-OpenSSH\r\n\r\n".to_owned()),
        _ => None,
    })
    .await;
    let fetcher = fetcher(Said::default().at("img.example", &["127.0.0.1"]), true);
    for path in ["/announced", "/chunked"] {
        let error = get(&fetcher, &server.url("img.example", path)).await.unwrap_err();
        assert!(matches!(error, FetchError::TooLarge(1000)), "{path}: {error}");
    }
    for path in ["/broken", "/head", "/noise"] {
        let error = get(&fetcher, &server.url("img.example", path)).await.unwrap_err();
        assert!(matches!(error, FetchError::Http(_)), "{path}: {error}");
    }
    assert!(matches!(get(&fetcher, &server.url("img.example", "/gone")).await.unwrap_err(), FetchError::Status(_)));
    let quick = FetchLimits { time_max: Duration::from_millis(50), ..LIMITS };
    let slow = fetcher.get(&server.url("img.example", "/never"), "image/png", quick).await;
    assert!(matches!(slow, Err(FetchError::TimedOut(_))));
}
