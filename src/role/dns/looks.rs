//! Looks at the regions, one a second: do they serve?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use postrider_api::env::Clock;
use postrider_dns::choice::Chooser;
use postrider_dns::health::Seen;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

/// Between two looks. With [`LOOK_MAX`] and two failures in a row a region is out within five seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that takes longer has failed: no region is farther.
const LOOK_MAX: Duration = Duration::from_millis(1000);
/// What begins a greeting that means it (RFC 5321 section 4.2).
const GREETING: &[u8] = b"220";

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// A URL that answers 200.
    Http(String),
    /// An SMTP server that greets with 220.
    Smtp(String),
    /// A port that takes connections.
    Tcp(String),
}

impl Look {
    fn kind(&self) -> &'static str {
        match self {
            Look::Http(_) => "http",
            Look::Smtp(_) => "smtp",
            Look::Tcp(_) => "tcp",
        }
    }
}

/// Reads the looks of a region.
///
/// # Errors
/// When one is none.
pub(super) fn read(looks: &[String]) -> anyhow::Result<Vec<Look>> {
    let one = |text: &String| {
        Ok(match text.split_once("://") {
            Some(("http", _)) => {
                reqwest::Url::parse(text).with_context(|| format!("looks: {text}"))?;
                Look::Http(text.clone())
            }
            Some(("smtp", to)) if to.contains(':') => Look::Smtp(to.into()),
            Some(("tcp", to)) if to.contains(':') => Look::Tcp(to.into()),
            _ => bail!("looks: {text:?} is none of http://HOST:PORT/PATH, smtp://HOST:PORT, tcp://HOST:PORT"),
        })
    };
    looks.iter().map(one).collect()
}

/// Looks at one region until it is dropped, and reports each look.
pub(super) async fn watch(chooser: Arc<Chooser>, region: usize, looks: Vec<Look>, clock: Arc<dyn Clock>) {
    if looks.is_empty() {
        return;
    }
    let name = chooser.names()[region].clone();
    // A connection of its own each time: an old one may live while no new one is taken.
    let http = match reqwest::Client::builder().timeout(LOOK_MAX).pool_max_idle_per_host(0).build() {
        Ok(http) => http,
        Err(error) => {
            tracing::error!(%error, region = name, "nobody looks at the region");
            return;
        }
    };
    let mut turns = tokio::time::interval(LOOK_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let seen = seen(&http, &looks).await;
        if chooser.report(region, seen, clock.monotonic()) {
            if seen == Seen::Serves {
                tracing::info!(region = name, "the region serves, and is named again");
            } else {
                tracing::warn!(region = name, "the region does not serve, and is named no more");
            }
        }
    }
}

/// It serves while, of each kind, one succeeds; something is there when any does, or refuses in its own words.
async fn seen(http: &reqwest::Client, looks: &[Look]) -> Seen {
    let looked = join_all(looks.iter().map(|look| async move {
        let seen = tokio::time::timeout(LOOK_MAX, one(http, look)).await;
        (look.kind(), seen.unwrap_or(Seen::Nothing))
    }));
    let (mut by_kind, mut something) = (BTreeMap::<&str, bool>::new(), false);
    for (kind, seen) in looked.await {
        *by_kind.entry(kind).or_default() |= seen == Seen::Serves;
        something |= seen != Seen::Nothing;
    }
    match by_kind.into_values().all(|serves| serves) {
        true => Seen::Serves,
        false if something => Seen::Answers,
        false => Seen::Nothing,
    }
}

async fn one(http: &reqwest::Client, look: &Look) -> Seen {
    let serves = |serves: bool| if serves { Seen::Serves } else { Seen::Nothing };
    match look {
        Look::Http(url) => match http.get(url).send().await {
            Ok(answer) if answer.status() == 200 => Seen::Serves,
            Ok(_) => Seen::Answers,
            Err(_) => Seen::Nothing,
        },
        Look::Tcp(to) => serves(TcpStream::connect(to).await.is_ok()),
        Look::Smtp(to) => serves(greets(to).await.unwrap_or(false)),
    }
}

async fn greets(to: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(to).await?;
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).await?;
    // Whoever takes leave is not missed.
    let _ = stream.write_all(b"QUIT\r\n").await;
    Ok(greeting == GREETING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn looks_are_read_or_refused() {
        let texts = ["http://10.0.0.1:8080/readyz", "smtp://mx.example.org:25", "tcp://10.0.0.1:993"];
        let looks = read(&texts.map(str::to_owned)).unwrap();
        assert_eq!(looks.iter().map(Look::kind).collect::<Vec<_>>(), ["http", "smtp", "tcp"]);
        for bad in ["https://10.0.0.1/", "smtp://mx", "10.0.0.1:25", "http://"] {
            assert!(read(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_region_serves_while_one_of_each_kind_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"220 mx ESMTP\r\n").await.unwrap();
            }
        });
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let http = reqwest::Client::new();
        let smtp = Look::Smtp(address.clone());
        let nobody = Look::Http(format!("http://{gone}/readyz"));
        assert_eq!(seen(&http, &[smtp.clone(), Look::Smtp(gone.clone())]).await, Seen::Serves, "one of two");
        assert_eq!(seen(&http, &[smtp.clone(), Look::Tcp(address.clone())]).await, Seen::Serves);
        assert_eq!(seen(&http, &[smtp, nobody.clone()]).await, Seen::Answers, "none of its kind");
        assert_eq!(seen(&http, &[nobody, Look::Tcp(gone)]).await, Seen::Nothing);
    }
}
