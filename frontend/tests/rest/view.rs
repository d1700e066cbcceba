//! What a sender wrote, shown; and the images that it shows, by addresses of ours.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use postrider_frontend::account::SignUpPolicy;
use postrider_outgoing::dns::{Answer, Dns, DnsError, Domain, Exchanger, Family, Tlsa};
use postrider_outgoing::route::AddressPolicy;
use postrider_outgoing::web::Fetcher;
use postrider_sanitize::audit;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::world::{Front, Person, World, text};

/// The smallest PNG that is one.
pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\x05\0\x01\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82";

/// Names of a test.
pub(crate) struct Names(HashMap<String, IpAddr>);

impl Names {
    pub(crate) fn new(names: &[(&str, [u8; 4])]) -> Arc<Self> {
        Arc::new(Self(names.iter().map(|(name, address)| ((*name).to_owned(), (*address).into())).collect()))
    }
}

#[async_trait]
impl Dns for Names {
    async fn exchangers(&self, _: &Domain) -> Result<Answer<Exchanger>, DnsError> {
        Ok(Answer::none(true, false))
    }

    async fn addresses(&self, host: &Domain, family: Family) -> Result<Answer<IpAddr>, DnsError> {
        let known = self.0.get(host.as_str()).filter(|address| address.is_ipv4() == (family == Family::V4));
        Ok(known.map_or(Answer::none(true, false), |address| Answer::of(vec![*address], false)))
    }

    async fn tlsa(&self, _: &Domain, _: u16) -> Result<Answer<Tlsa>, DnsError> {
        Ok(Answer::none(true, false))
    }

    async fn txt(&self, _: &str) -> Result<Answer<String>, DnsError> {
        Ok(Answer::none(true, false))
    }
}

/// A web server that gives what lies at a path, and remembers what it was asked.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub(crate) async fn start(files: Vec<(&'static str, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (files, heads) = (Arc::new(files), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (files, heads) = (Arc::clone(&files), Arc::clone(&heads));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    heads.lock().push(head);
                    let file = files.iter().find(|(known, _)| *known == path).map(|(_, file)| file.as_slice());
                    let answer = match file {
                        Some(file) => {
                            // What it calls its files counts for nothing.
                            let length = file.len();
                            let head = format!(
                                "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {length}\r\nSet-Cookie: a=b\r\n\r\n"
                            );
                            [head.as_bytes(), file].concat()
                        }
                        None => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                    };
                    drop(stream.write_all(&answer).await);
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

/// A world whose messages show images of a test's hosts.
pub(crate) async fn world_with(dns: Arc<Names>, allow_private: bool) -> World {
    let fetcher = Some(Fetcher::new(dns, &[], AddressPolicy { allow_private }));
    World::behind(Front { fetcher, ..Front::default() }, SignUpPolicy::Open).await
}

pub(crate) fn html_mail(html: &str) -> String {
    format!(
        "From: a@elsewhere.example\r\nSubject: html\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        lines(html.as_bytes())
    )
}

fn lines(content: &[u8]) -> String {
    let lines = STANDARD.encode(content).into_bytes();
    lines.chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\r\n")
}

/// HTML with a part that it shows by its Content-ID.
pub(crate) fn with_part(html: &str, kind: &str, part: &[u8]) -> String {
    format!(
        "From: a@elsewhere.example\r\nSubject: related\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n{html}\r\n--b\r\n\
         Content-Type: {kind}\r\nContent-ID: <logo@here>\r\nContent-Disposition: inline\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        lines(part)
    )
}

/// The document of a view, which is harmless.
async fn document(person: &Person, message: impl std::fmt::Display, query: &str) -> String {
    let answer = person.client.get(&format!("/v1/messages/{message}/view{query}")).await;
    assert_eq!(answer.status, 200, "{:?}", answer.bytes);
    let document = String::from_utf8(answer.bytes.to_vec()).unwrap();
    let wrongs = audit(&document, &|url| url.starts_with("/v1/proxy/"));
    assert!(wrongs.is_empty(), "{wrongs:?} in {document}");
    document
}

/// The addresses that a document gives its images.
fn addresses(document: &str) -> Vec<String> {
    let pieces = document.split("src=\"").skip(1);
    pieces.map(|piece| piece.split('"').next().unwrap().replace("&amp;", "&")).collect()
}

#[tokio::test]
async fn a_message_is_a_document_in_which_nothing_runs() {
    let world = World::new().await;
    let ada = world.person().await;
    let html = "<body onload=x><script>alert(1)</script><p>Hello <b>there</b></p><img src=https://img.example/1.png>\
                <img src=https://t.example/o.gif width=1 height=1><a href=https://a.example/>link</a>";
    let message = world.deliver(&ada, html_mail(html)).await;
    let answer = ada.client.get(&format!("/v1/messages/{message}/view")).await;
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("sandbox allow-popups") && !policy.contains("allow-scripts"), "{policy}");
    assert!(policy.contains("default-src 'none'") && !policy.contains("allow-same-origin"), "{policy}");
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("postrider-blocked"), Some("images=2, images-unseen=1, scripts=2"));
    assert_eq!(answer.header("postrider-trackers"), Some("\"t.example\";kind=pixel"));
    let shown = document(&ada, message, "").await;
    assert!(shown.contains("<p>Hello <b>there</b></p>") && shown.contains("data-image=\"blocked\""), "{shown}");
    assert!(document(&ada, message, "?theme=dark").await.contains("data-paper=\"dark\""));
    // Nothing is fetched here: what is asked to be shown is not.
    assert!(addresses(&document(&ada, message, "?images=show").await).is_empty());
    // As the page has it in its frame: it may look in, and still nothing runs.
    let answer = ada.client.get(&format!("/v1/messages/{message}/view?origin=page")).await;
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("sandbox allow-same-origin") && !policy.contains("allow-scripts"), "{policy}");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'self'"), "{policy}");
    let told = String::from_utf8(answer.bytes.to_vec()).unwrap();
    assert!(
        told.contains("<meta name=\"postrider-blocked\" content=\"images=2, images-unseen=1, scripts=2\">"),
        "{told}"
    );
    let trackers = "<meta name=\"postrider-trackers\" content=\"&quot;t.example&quot;;kind=pixel\">";
    assert!(told.contains(trackers) && !shown.contains("<meta name=\"postrider"), "{told}");
    for query in ["?images=all", "?theme=blue", "?origin=any", "?x=1"] {
        let answer = ada.client.get(&format!("/v1/messages/{message}/view{query}")).await;
        assert_eq!(answer.problem(), "invalid_query", "{query}");
    }
}

#[tokio::test]
async fn text_is_shown_too() {
    let world = World::new().await;
    let ada = world.person().await;
    let plain = world.deliver(&ada, text("plain")).await;
    assert!(document(&ada, plain, "?theme=dark").await.contains("Hello, plain."));
    let flowed = "From: a@elsewhere.example\r\nSubject: x\r\nContent-Type: text/plain; format=flowed\r\n\r\n\
                  > one \r\n> line\r\nhttps://a.example/ <b>\r\n";
    let flowed = world.deliver(&ada, flowed).await;
    let shown = document(&ada, flowed, "").await;
    assert!(shown.contains("<blockquote>one line<br></blockquote>"), "{shown}");
    assert!(shown.contains("href=\"https://a.example/\"") && shown.contains("&lt;b&gt;"), "{shown}");
}

#[tokio::test]
async fn images_of_the_message_are_shown_by_an_address_that_ends_with_the_session() {
    let world = World::new().await;
    let ada = world.person().await;
    let bob = world.person().await;
    let message = world.deliver(&ada, with_part("<img src=\"cid:logo@here\">", "image/png", PNG)).await;
    let shown = document(&ada, message, "").await;
    let [address] = &addresses(&shown)[..] else { panic!("{shown}") };
    assert!(address.starts_with("/v1/proxy/part?grant="));
    // As a frame asks for it: without a token.
    let image = world.client.get(address).await;
    assert_eq!((image.status.as_u16(), &image.bytes[..]), (200, PNG));
    assert_eq!(image.header("content-type"), Some("image/png"));
    assert!(image.header("content-security-policy").unwrap().contains("sandbox"));
    assert_eq!(addresses(&document(&ada, message, "").await), std::slice::from_ref(address), "a browser asks once");
    assert_eq!(world.client.get(&address.replace("/part?", "/image?")).await.problem(), "not_found");
    for wrong in ["", "x", &"A".repeat(200), &address["/v1/proxy/part?grant=".len() + 1..]] {
        assert_eq!(world.client.get(&format!("/v1/proxy/part?grant={wrong}")).await.problem(), "not_found", "{wrong}");
    }
    assert_eq!(bob.client.get(&format!("/v1/messages/{message}/view")).await.problem(), "not_found");
    ada.client.delete("/v1/sessions/current").await;
    assert_eq!(world.client.get(address).await.problem(), "unauthenticated");
}

#[tokio::test]
async fn a_part_that_is_no_grid_of_pixels_is_no_image() {
    let world = World::new().await;
    let ada = world.person().await;
    for (kind, part) in [
        ("image/svg+xml", &b"<svg xmlns='http://www.w3.org/2000/svg'/>"[..]),
        ("image/png", b"<html>"),
        ("image/png", b""),
    ] {
        let message = world.deliver(&ada, with_part("<img src=\"cid:logo@here\">", kind, part)).await;
        let shown = document(&ada, message, "").await;
        for address in addresses(&shown) {
            assert_eq!(world.client.get(&address).await.problem(), "image_unavailable", "{kind}");
        }
    }
    let missing = world.deliver(&ada, html_mail("<img src=\"cid:other@here\">")).await;
    let answer = ada.client.get(&format!("/v1/messages/{missing}/view")).await;
    assert_eq!(answer.header("postrider-blocked"), Some("images-unusable=1"));
}

#[tokio::test]
async fn images_of_the_network_are_fetched_without_telling_of_the_reader() {
    let web = Web::start(vec![
        ("/a.png", PNG.to_vec()),
        ("/svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>".to_vec()),
        ("/large.png", [PNG, &vec![0; 6 * 1024 * 1024]].concat()),
    ])
    .await;
    let world = world_with(Names::new(&[("img.example", [127, 0, 0, 1])]), true).await;
    let (ada, bob) = (world.person().await, world.person().await);
    let image = |path: &str| format!("<img src=\"{}\">", web.url("img.example", path));
    let html =
        [image("/a.png?for=ada"), image("/a.png"), image("/svg.png"), image("/large.png"), image("/gone.png")].concat();
    let message = world.deliver(&ada, html_mail(&html)).await;
    assert!(addresses(&document(&ada, message, "?images=block").await).is_empty());
    assert!(web.asked().is_empty(), "nothing is fetched until somebody asks");
    let shown = addresses(&document(&ada, message, "?images=show").await);
    assert_eq!(shown.len(), 5);
    assert!(web.asked().is_empty(), "nor before it is shown");
    let answer = world.client.get(&shown[1]).await;
    assert_eq!((answer.status.as_u16(), &answer.bytes[..]), (200, PNG));
    assert_eq!(answer.header("content-type"), Some("image/png"));
    assert!(answer.header("set-cookie").is_none());
    world.client.get(&shown[1]).await;
    assert_eq!(web.asked().len(), 1, "what was fetched is kept");
    let head = web.asked()[0].to_ascii_lowercase();
    for named in ["cookie", "referer", "forwarded", "authorization", "via", "grant", "person"] {
        assert!(!head.contains(named), "{named} in {head}");
    }
    for address in &shown[2..] {
        assert_eq!(world.client.get(address).await.problem(), "image_unavailable");
    }
    let asked = web.asked().len();
    world.client.get(&shown[2]).await;
    assert_eq!(web.asked().len(), asked, "that there is none is kept as well");
    // What one reader has fetched says nothing to another.
    let to_bob = world.deliver(&bob, html_mail(&image("/a.png"))).await;
    let of_bob = addresses(&document(&bob, to_bob, "?images=show").await);
    world.client.get(&of_bob[0]).await;
    assert_eq!(web.asked().len(), asked + 1);
}

#[tokio::test]
async fn nothing_around_this_service_is_reached_by_a_message() {
    let web = Web::start(vec![("/a.png", PNG.to_vec())]).await;
    let names = [
        ("inside.example", [127, 0, 0, 1]),
        ("carrier.example", [100, 64, 0, 1]),
        ("meta.example", [169, 254, 169, 254]),
    ];
    let world = world_with(Names::new(&names), false).await;
    let ada = world.person().await;
    let port = web.address.port();
    let urls = [
        web.url("inside.example", "/a.png"),
        "http://inside.example/a.png".to_owned(),
        "https://carrier.example/a.png".to_owned(),
        "http://meta.example/latest/meta-data".to_owned(),
        format!("http://127.0.0.1:{port}/a.png"),
        format!("http://[::ffff:127.0.0.1]:{port}/a.png"),
        format!("http://localhost:{port}/a.png"),
        format!("http://0x7f000001:{port}/a.png"),
    ];
    let html: String = urls.iter().map(|url| format!("<img src=\"{url}\">")).collect();
    let message = world.deliver(&ada, html_mail(&html)).await;
    let shown = addresses(&document(&ada, message, "?images=show").await);
    assert_eq!(shown.len(), urls.len());
    for (address, url) in shown.iter().zip(&urls) {
        let answer = world.client.get(address).await;
        assert_eq!(answer.problem(), "image_unavailable", "{url}");
        assert_eq!(answer.json().get("detail"), None, "why is not told");
    }
    assert!(web.asked().is_empty());
}

/// Longest that a real message may take to be shown here, without optimization and beside other tests.
const SHOWN_IN_MAX: std::time::Duration = std::time::Duration::from_secs(20);

#[tokio::test]
async fn real_mail_is_shown_within_bounds() {
    let Some(folder) = suites() else { return };
    let world = World::new().await;
    let ada = world.person().await;
    let (mut shown, mut written, mut slowest) = (0, 0, std::time::Duration::ZERO);
    for archive in ["easy-ham-1", "torture"] {
        for raw in messages(&folder.join("mail").join(format!("{archive}.tar.zst"))) {
            let is_html = raw.windows(9).any(|word| word.eq_ignore_ascii_case(b"text/html"));
            if !is_html {
                continue;
            }
            let length = raw.len();
            let message = world.deliver(&ada, raw).await;
            let started = std::time::Instant::now();
            let document = document(&ada, message, "?theme=dark").await;
            let took = started.elapsed();
            assert!(took < SHOWN_IN_MAX, "{took:?} for {length} bytes");
            // Style sheets and lists add something to each message, escapes and destinations to each link.
            assert!(document.len() < 4 * length + 16 * 1024, "{} of {length} bytes", document.len());
            (shown, written, slowest) = (shown + 1, written + document.len(), slowest.max(took));
        }
    }
    eprintln!("{shown} messages with HTML, {written} bytes of documents, the slowest in {slowest:?}");
    assert!(shown >= 30, "{shown}");
}

/// Where the suites are; a plain word where they are not.
fn suites() -> Option<std::path::PathBuf> {
    let folder =
        std::env::var_os("POSTRIDER_SUITES").map_or_else(|| "../../shared/suites".into(), std::path::PathBuf::from);
    if !folder.is_dir() {
        eprintln!("SKIPPED: no test suites at {} (set POSTRIDER_SUITES)", folder.display());
        return None;
    }
    Some(folder)
}

/// The messages of an archive, unpacked by the system's `tar`.
fn messages(archive: &std::path::Path) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let mut decoder = zstd::Decoder::new(std::fs::File::open(archive).unwrap()).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut tar = std::process::Command::new("tar")
        .args(["-x", "--no-same-owner", "-C"])
        .arg(folder.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::copy(&mut decoder, &mut tar.stdin.take().unwrap()).unwrap();
    assert!(tar.wait().unwrap().success());
    let (mut found, mut folders) = (Vec::new(), vec![folder.path().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false if entry.path().extension().is_some_and(|ending| ending == "jsonl") => {}
                false => found.push(std::fs::read(entry.path()).unwrap()),
            }
        }
    }
    found
}
