//! Searching over REST, by kind of question, while mail keeps arriving in the same mailbox.
//!
//! The words are those of the mail itself, chosen by how many of the texts have them; so each question has hits, and as many as its kind says.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::accounts;
use super::corpus::Corpus;
use super::http::{self, Connection};
use super::load::{self, Outcome, Turns};
use super::percentile::Samples;
use super::report::SearchLine;
use super::smtp;
use super::target::Target;
use super::{Extent, SearchLoad, SmtpLoad};

/// Connections that fill the mailbox: each brings texts of its own.
const FILL_CONNECTIONS: usize = 64;
/// Connections that mail arrives by while it is searched.
const ARRIVAL_CONNECTIONS: usize = 4;
/// Mail goes on arriving until the questions are answered: a day is as good as for ever.
const ARRIVING: Extent = Extent { seconds: 24 * 60 * 60, count: None };
/// Words of each kind; more say nothing else.
const WORDS_MAX: usize = 40;
/// Letters of a word that are typed.
const PREFIX_LETTERS: usize = 3;

/// A kind of question, and its questions.
struct Kind {
    name: &'static str,
    /// Query strings.
    queries: Vec<String>,
}

/// What was seen of a kind.
#[derive(Default)]
struct Seen {
    latency: Samples,
    failed: u64,
    /// Of all answers together.
    hits: u64,
}

/// Fills a mailbox with `messages` and searches it; a line for each kind.
pub(crate) async fn measure(target: &Target, load: &SearchLoad, messages: usize) -> anyhow::Result<Vec<SearchLine>> {
    let accounts = match &load.mailbox {
        Some(address) => vec![accounts::log_in(target, address).await?],
        None => accounts::sign_up(target, 1).await.context("make an account")?,
    };
    let account = accounts.first().context("no account was made")?.clone();
    let mail = SmtpLoad {
        size: load.size,
        connections: vec![],
        recipients: 1,
        rate: None,
        accounts: 1,
        extent: Extent { seconds: 0, count: Some(messages as u64) },
        unpadded: true,
    };
    if load.mailbox.is_none() {
        eprintln!("filling the mailbox of {} with {messages} messages", account.address);
        let began = Instant::now();
        smtp::fill(target, &mail, &accounts, FILL_CONNECTIONS.min(messages)).await?;
        eprintln!("filled in {:.1} s", began.elapsed().as_secs_f64());
    }
    let corpus = tokio::task::spawn_blocking(Corpus::open).await.context("read the corpus")?;
    let kinds = Arc::new(kinds(&corpus.letters(load.size), messages));
    let host = match &load.region {
        Some(name) => {
            let region = target.ready().regions.iter().find(|region| region.name == *name);
            region.with_context(|| format!("no region {name}"))?.rest.trim_start_matches("http://").to_owned()
        }
        None => account.rest.clone(),
    };
    eprintln!("searching with {} connections, {} messages/s arriving", load.connections, load.arriving);
    let asking = ask(&host, &account.token, &target.ready().admin_token, &kinds, load);
    let over = Arc::new(AtomicBool::new(false));
    let asking = async {
        let asked = asking.await;
        over.store(true, Ordering::Relaxed);
        asked
    };
    let arriving = SmtpLoad { rate: NonZeroU32::new(load.arriving).map(NonZeroU32::get), extent: ARRIVING, ..mail };
    let arrive = async {
        match arriving.rate {
            Some(_) => smtp::arrive(target, &arriving, &accounts, ARRIVAL_CONNECTIONS, &over)
                .await
                .context("mail that arrives"),
            None => Ok(()),
        }
    };
    let ((seen, took), ()) = tokio::try_join!(asking, arrive)?;
    let lines = kinds.iter().zip(seen).map(|(kind, seen)| line(kind, seen, took, load, messages)).collect();
    Ok(lines)
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn line(kind: &Kind, mut seen: Seen, took: Duration, load: &SearchLoad, mailbox: usize) -> SearchLine {
    let answered = seen.latency.count();
    SearchLine {
        kind: kind.name,
        mailbox,
        connections: load.connections,
        answered,
        refused: seen.failed,
        hits: if answered == 0 { 0.0 } else { seen.hits as f64 / answered as f64 },
        per_second: answered as f64 / took.as_secs_f64(),
        p50_ms: seen.latency.percentile_ms(0.5),
        p99_ms: seen.latency.percentile_ms(0.99),
    }
}

/// Asks questions of all kinds in turn, and says how long that went on.
async fn ask(
    host: &str,
    token: &str,
    admin_token: &str,
    kinds: &Arc<Vec<Kind>>,
    load: &SearchLoad,
) -> anyhow::Result<(Vec<Seen>, Duration)> {
    let request = |query: &String| http::get_measured(host, &format!("/v1/search{query}"), token, admin_token);
    let requests: Vec<Vec<Vec<u8>>> = kinds.iter().map(|kind| kind.queries.iter().map(request).collect()).collect();
    let seen: Vec<Seen> = kinds.iter().map(|_| Seen::default()).collect();
    let (requests, seen) = (Arc::new(requests), Arc::new(Mutex::new(seen)));
    let (host, shared) = (host.to_owned(), Arc::clone(&seen));
    let connect = move |_, turns: Turns| {
        let (host, requests, seen) = (host.clone(), Arc::clone(&requests), Arc::clone(&shared));
        async move {
            let mut connection = Connection::open(&host).await?;
            while let Some(turn) = turns.take() {
                let turn = usize::try_from(turn).unwrap_or(0);
                let (kind, round) = (turn % requests.len(), turn / requests.len());
                let begin = Instant::now();
                let answer = connection.exchange(&requests[kind][round % requests[kind].len()]).await?;
                let took = begin.elapsed();
                let hits = if answer.status == 200 { Some(total(&answer.body)?) } else { None };
                let seen = &mut seen.lock().unwrap_or_else(PoisonError::into_inner)[kind];
                match hits {
                    Some(hits) => {
                        seen.latency.push(took);
                        seen.hits += hits;
                    }
                    None => seen.failed += 1,
                }
            }
            Ok(Outcome::default())
        }
    };
    let outcome = load::run(load.connections, load.extent.until(), None, connect).await?;
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((seen, outcome.took))
}

fn total(body: &[u8]) -> anyhow::Result<u64> {
    let page: serde_json::Value = serde_json::from_slice(body).context("read a page")?;
    page["total"]["count"].as_u64().context("a page has no total")
}

fn query(text: &str, more: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    format!("?q={}{more}", encoded.collect::<String>())
}

/// Questions of every kind that `texts` have words for, of a mailbox of so many messages.
fn kinds(texts: &[String], messages: usize) -> Vec<Kind> {
    let words = Words::of(texts);
    let (most, some, few) = (words.between(0.3, 1.0), words.between(0.02, 0.1), words.between(0.0, 0.005));
    let plain = |words: &[&str], more: &str| words.iter().map(|word| query(word, more)).collect();
    let pairs = |a: &[&str], b: &[&str], join: &str| {
        a.iter().zip(b.iter().cycle()).map(|(a, b)| query(&format!("{a}{join}{b}"), "")).collect()
    };
    let with =
        |words: &[&str], operator: &str| words.iter().map(|word| query(&format!("{operator} {word}"), "")).collect();
    let typed = some.iter().map(|word| query(&word[..PREFIX_LETTERS.min(word.len())], "&as_you_type=true"));
    let serials = (0..WORDS_MAX).map(|n| query(&format!("subject:{:020}", n * messages / WORDS_MAX), ""));
    let phrases = words.phrases.iter().take(WORDS_MAX).map(|phrase| query(&format!("\"{phrase}\""), ""));
    let all = [
        ("word of most", plain(&most, "")),
        ("word of some", plain(&some, "")),
        ("word of few", plain(&few, "")),
        ("word of one", serials.collect()),
        ("word of none", vec![query("xyzzyqwertz", "")]),
        ("two words", pairs(&most, &some, " ")),
        ("either of two", pairs(&few, &some, " OR ")),
        ("not", pairs(&some, &most, " -")),
        ("phrase", phrases.collect()),
        ("prefix", typed.collect()),
        ("unread", with(&some, "is:unread in:inbox")),
        ("of a day", with(&some, "from:bench newer_than:1d")),
        ("everything", vec![query("", "&is_read=false")]),
        ("by relevance", plain(&most, "&sort=relevance")),
    ];
    let kinds = all.into_iter().map(|(name, queries): (_, Vec<String>)| Kind { name, queries });
    kinds.filter(|kind| !kind.queries.is_empty()).collect()
}

/// The words of some texts, and in how many of them each is.
struct Words {
    texts: BTreeMap<String, usize>,
    /// Two words that stand next to each other, of each text one.
    phrases: BTreeSet<String>,
    count: usize,
}

impl Words {
    fn of(texts: &[String]) -> Self {
        let mut all = Self { texts: BTreeMap::new(), phrases: BTreeSet::new(), count: texts.len() };
        for text in texts {
            let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphabetic()).collect();
            let distinct: BTreeSet<String> =
                words.iter().filter(|word| is_word(word)).map(|w| w.to_lowercase()).collect();
            for word in distinct {
                *all.texts.entry(word).or_default() += 1;
            }
            let pair = text.lines().flat_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let pairs: Vec<String> = words
                    .windows(2)
                    .filter(|pair| pair.iter().all(|word| is_word(word)))
                    .map(|pair| pair.join(" "))
                    .collect();
                pairs
            });
            all.phrases.extend(pair.skip(2).take(1));
        }
        all
    }

    /// Those that so large a share of the texts have, spread over the alphabet.
    fn between(&self, least: f64, most: f64) -> Vec<&str> {
        #[allow(clippy::cast_precision_loss)] // a few hundred texts
        let share = |texts: usize| texts as f64 / self.count.max(1) as f64;
        let words: Vec<&str> = self
            .texts
            .iter()
            .filter(|(_, texts)| share(**texts) >= least && share(**texts) <= most)
            .map(|(word, _)| word.as_str())
            .collect();
        let step = words.len().div_ceil(WORDS_MAX).max(1);
        words.into_iter().step_by(step).collect()
    }
}

/// Of some length, of letters alone: what people search for.
fn is_word(word: &str) -> bool {
    (3..=15).contains(&word.len()) && word.bytes().all(|letter| letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_questions_of_its_frequency() {
        let texts: Vec<String> = (0..300)
            .map(|n| {
                let some = if n % 20 == 0 { "budget" } else { "nothing" };
                let few = if n == 7 { "unicorn" } else { "" };
                format!("the words of a mail that everybody writes\nwith {some} and {few}")
            })
            .collect();
        let words = Words::of(&texts);
        assert!(words.between(0.3, 1.0).contains(&"everybody"));
        assert_eq!(words.between(0.02, 0.1), ["budget"]);
        assert_eq!(words.between(0.0, 0.005), ["unicorn"]);
        let kinds = kinds(&texts, 1000);
        assert_eq!(kinds.len(), 14, "{:?}", kinds.iter().map(|kind| kind.name).collect::<Vec<_>>());
        assert!(kinds.iter().any(|kind| kind.queries.contains(&"?q=bud&as_you_type=true".to_owned())));
    }
}
