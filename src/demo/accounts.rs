//! Sample accounts and sample mail, brought in the way everybody's are: sign-up over REST, mail over SMTP.
//!
//! Invariant: done once in a directory. What has been done is written down after each step, so that a demo which was
//! interrupted goes on where it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use postrider_api::env::Entropy;
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::ready::Account;
use super::samples::{PEOPLE, samples};
use super::secrets;
use crate::files::{self, Access};
use crate::smtp::{self, Sent};

/// How long a sign-up may take.
const SIGN_UP_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two tries of what a starting cluster refused.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Tries of what a starting cluster may refuse.
const TRIES_MAX: u32 = 60;

/// What has been done, as `samples.json` keeps it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Done {
    accounts: Vec<Person>,
    /// The samples before this one have been accepted.
    mail_next: usize,
    /// When the first was sent: the dates of all are counted from it.
    started_ms: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Person {
    address: String,
    password: String,
    signed_up: bool,
}

/// The samples of one cluster.
pub(crate) struct Samples<'a> {
    layout: &'a Layout,
    path: PathBuf,
    done: Done,
}

impl<'a> Samples<'a> {
    /// What has been done so far in this directory.
    pub(crate) fn open(layout: &'a Layout, secrets_dir: &Path) -> anyhow::Result<Self> {
        let path = secrets_dir.join("samples.json");
        let done = files::read_json(&path)?.unwrap_or_default();
        Ok(Self { layout, path, done })
    }

    /// Those who have signed up.
    pub(crate) fn accounts(&self) -> Vec<Account> {
        self.done
            .accounts
            .iter()
            .filter(|person| person.signed_up)
            .map(|person| Account { address: person.address.clone(), password: person.password.clone() })
            .collect()
    }

    /// Whether nothing is left to do.
    pub(crate) fn complete(&self) -> bool {
        !self.done.accounts.is_empty()
            && self.done.accounts.iter().all(|person| person.signed_up)
            && self.done.mail_next >= samples(0, self.layout.zones).len()
    }

    /// Signs up who has not.
    pub(crate) async fn sign_up(&mut self, entropy: &dyn Entropy) -> anyhow::Result<()> {
        if self.done.accounts.is_empty() {
            for (local, _, region) in PEOPLE {
                // Of a zone that this demo does not have.
                let Some(region) = self.layout.regions.get(*region) else { continue };
                let (address, password) = (format!("{local}@{}", region.zone.domain), secrets::password(entropy));
                self.done.accounts.push(Person { address, password, signed_up: false });
            }
            self.save()?;
        }
        let http = reqwest::Client::builder().timeout(SIGN_UP_DEADLINE).build().context("make an HTTP client")?;
        for (index, (_, name, region)) in PEOPLE.iter().enumerate() {
            let Some(person) = self.done.accounts.get(index) else { continue };
            if !person.signed_up {
                let url = format!("http://{}/v1/accounts", self.layout.regions[*region].rest());
                sign_up(&http, &url, &person.address, &person.password, name).await?;
                self.done.accounts[index].signed_up = true;
                self.save()?;
            }
        }
        Ok(())
    }

    /// Sends what has not been sent, each at another region.
    pub(crate) async fn send(&mut self, now_ms: i64) -> anyhow::Result<()> {
        if self.done.started_ms == 0 {
            self.done.started_ms = now_ms;
            self.save()?;
        }
        let samples = samples(self.done.started_ms, self.layout.zones);
        for (index, sample) in samples.iter().enumerate().skip(self.done.mail_next) {
            let region = &self.layout.regions[index % self.layout.regions.len()];
            let mut client = smtp::Client::connect(&region.smtp()).await?;
            match client.send(sample.from, &sample.recipients, &sample.message).await {
                Sent::Accepted(_) => {}
                Sent::Refused(why) | Sent::Unknown(why) => bail!("send sample {index} at {}: {why}", region.name),
            }
            self.done.mail_next = index + 1;
            self.save()?;
            client.quit().await?;
        }
        Ok(())
    }

    fn save(&self) -> anyhow::Result<()> {
        files::write_atomically(&self.path, &serde_json::to_vec_pretty(&self.done)?, Access::Secret)
    }
}

/// Signs up; that the address is taken means that an interrupted demo did it, for the password was written down before.
async fn sign_up(http: &reqwest::Client, url: &str, address: &str, password: &str, name: &str) -> anyhow::Result<()> {
    let body = serde_json::json!({ "address": address, "password": password, "name": name });
    for attempt in 1..=TRIES_MAX {
        match http.post(url).json(&body).send().await {
            Ok(answer) if answer.status() == reqwest::StatusCode::CREATED => return Ok(()),
            Ok(answer) if answer.status() == reqwest::StatusCode::CONFLICT => return Ok(()),
            Ok(answer) if answer.status().is_client_error() || attempt == TRIES_MAX => {
                let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
                bail!("sign up {address} at {url}: {status} {text}");
            }
            Err(error) if attempt == TRIES_MAX => {
                return Err(error).with_context(|| format!("sign up {address} at {url}"));
            }
            Ok(_) | Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
    bail!("sign up {address} at {url}: no answer")
}
