//! `ctl account`: what an operator may do with somebody's account. Each command stands in the audit log before it happens.

use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Subcommand, ValueEnum};
use postrider_api::env::{SystemEntropy, random};
use postrider_api::id::RequestId;
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, AccountState, answer::Answer, outcome::Result as Made, query::Query};
use postrider_frontend::account::password;
use postrider_frontend::category::name_of;
use postrider_operator::account::{self, done};
pub(super) use postrider_operator::account::{Account, find};
use postrider_router::operate::account_state;
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table};

/// How long `delete` waits for the last row to go. It goes on by itself.
const DELETION_WAIT_MAX: Duration = Duration::from_secs(60);
/// Random bytes of a password that is made here.
const PASSWORD_BYTES: usize = 15;

/// What to do with an account.
#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// The account's state, size and sessions.
    Show {
        /// The address.
        address: String,
    },
    /// Nobody logs in, and sessions open nothing, until it is resumed.
    Suspend {
        /// The address.
        address: String,
        /// Whether mail for it is still taken. Without, senders are told to try again later.
        #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
        receive: bool,
    },
    /// A suspended account is as it was before, and so is one that was slowed for what it sends.
    Resume {
        /// The address.
        address: String,
    },
    /// What the account's mail is, where neither a message nor the program that sends it says so.
    Category {
        /// The address.
        address: String,
        /// What.
        #[arg(value_enum)]
        category: Category,
    },
    /// The account and everything that it has goes. Nothing undoes it.
    Delete {
        /// The address.
        address: String,
        /// Do not wait until the last row is gone.
        #[arg(long)]
        no_wait: bool,
    },
    /// Another password. All sessions end.
    Password {
        /// The address.
        address: String,
        /// Read it from the first line of standard input; otherwise one is made and printed.
        #[arg(long)]
        stdin: bool,
    },
    /// Log-ins want a password alone again: for an owner who has lost authenticator and recovery codes. Be sure that it is him.
    ResetSecondFactor {
        /// The address.
        address: String,
    },
    /// Open sessions; end one of them, or all.
    Sessions {
        /// The address.
        address: String,
        /// End the session with this id.
        #[arg(long, value_name = "ID", conflicts_with = "end_all")]
        end: Option<String>,
        /// End every session.
        #[arg(long)]
        end_all: bool,
    },
}

/// What mail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Category {
    /// From people.
    Personal,
    /// From programs, to those who wait for it.
    Transactional,
    /// From programs, to many.
    Bulk,
}

impl From<Category> for pb::MailCategory {
    fn from(category: Category) -> Self {
        match category {
            Category::Personal => Self::Personal,
            Category::Transactional => Self::Transactional,
            Category::Bulk => Self::Bulk,
        }
    }
}

pub(super) async fn run(session: &Session, task: Task) -> anyhow::Result<Verdict> {
    match task {
        Task::Show { address } => show(session, &find(session, &address).await?).await,
        Task::Suspend { address, receive } => suspend(session, &find(session, &address).await?, receive).await,
        Task::Resume { address } => resume(session, &find(session, &address).await?).await,
        Task::Category { address, category } => {
            set_category(session, &find(session, &address).await?, category.into()).await
        }
        Task::Delete { address, no_wait } => delete(session, &find(session, &address).await?, no_wait).await,
        Task::Password { address, stdin } => change_password(session, &find(session, &address).await?, stdin).await,
        Task::ResetSecondFactor { address } => reset_second_factor(session, &find(session, &address).await?).await,
        Task::Sessions { address, end, end_all } => {
            sessions(session, &find(session, &address).await?, end.as_deref(), end_all).await
        }
    }
}

#[derive(Serialize)]
struct Shown {
    user_id: String,
    address: String,
    name: String,
    shard: u32,
    state: &'static str,
    receives: bool,
    /// Since when it is suspended or being deleted.
    since: Option<String>,
    /// Why, where it was suspended for what it sends.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    created: String,
    category: &'static str,
    messages: u64,
    used_bytes: u64,
    quota_bytes: u64,
    sessions: u32,
}

async fn show(session: &Session, account: &Account) -> anyhow::Result<Verdict> {
    let record = session.audited("account.show", account.targets(), record(session, account)).await?;
    let shown = Shown {
        user_id: account.user.to_string(),
        address: account.address.as_str().to_owned(),
        shard: account.shard.0,
        state: account_state(record.state()),
        receives: record.state() != AccountState::Deleting && !record.refuses_mail,
        since: (record.state_ms > 0).then(|| time(record.state_ms)),
        why: record.suspended_why.clone(),
        created: time(record.created_ms),
        category: name_of(record.category()),
        messages: record.messages,
        used_bytes: record.used_bytes,
        quota_bytes: record.quota_bytes,
        sessions: record.sessions,
        name: record.name,
    };
    if session.json {
        session.print_json(&shown)?;
    } else {
        println!("user      {}", shown.user_id);
        println!("address   {}", shown.address);
        println!("name      {}", shown.name);
        println!("shard     {}", shown.shard);
        let since = shown.since.map(|since| format!(" since {since}")).unwrap_or_default();
        let why = if shown.why.is_empty() { String::new() } else { format!(": {}", shown.why) };
        println!("state     {}{since}{why}", shown.state);
        println!("receives  {}", if shown.receives { "yes" } else { "no" });
        println!("created   {}", shown.created);
        println!("sends     {} mail", shown.category);
        println!("messages  {}", shown.messages);
        println!("bytes     {} of {}", shown.used_bytes, shown.quota_bytes);
        println!("sessions  {}", shown.sessions);
    }
    Ok(Verdict::Good)
}

async fn record(session: &Session, account: &Account) -> anyhow::Result<pb::AccountRecord> {
    let record = account::record(session, account).await?;
    record.with_context(|| format!("shard {} has no such account (any more)", account.shard))
}

#[derive(Serialize)]
struct Categorised {
    user_id: String,
    category: &'static str,
}

/// What was done, for programs.
#[derive(Serialize)]
struct Done {
    user_id: String,
    state: &'static str,
}

fn say(session: &Session, account: &Account, state: &'static str, sentence: &str) -> anyhow::Result<Verdict> {
    if session.json {
        session.print_json(&Done { user_id: account.user.to_string(), state })?;
    } else {
        println!("{} {sentence}", account.address.as_str());
    }
    Ok(Verdict::Good)
}

async fn suspend(session: &Session, account: &Account, receive: bool) -> anyhow::Result<Verdict> {
    account::suspend(session, account, receive).await?;
    let sentence = match receive {
        true => "is suspended, and still gets mail.",
        false => "is suspended; mail for it is put off.",
    };
    say(session, account, "suspended", sentence)
}

async fn resume(session: &Session, account: &Account) -> anyhow::Result<Verdict> {
    account::resume(session, account).await?;
    say(session, account, "active", "is active.")
}

async fn set_category(session: &Session, account: &Account, category: pb::MailCategory) -> anyhow::Result<Verdict> {
    account::set_category(session, account, category).await?;
    let category = name_of(category);
    if session.json {
        session.print_json(&Categorised { user_id: account.user.to_string(), category })?;
    } else {
        println!("{} sends {category} mail.", account.address.as_str());
    }
    Ok(Verdict::Good)
}

async fn delete(session: &Session, account: &Account, no_wait: bool) -> anyhow::Result<Verdict> {
    account::delete(session, account).await?;
    if !no_wait && is_gone_in_time(session, account).await? {
        return say(session, account, "deleted", "is deleted: it has nothing left.");
    }
    say(session, account, "deleting", "is deleted. What it has is being removed; that goes on by itself.")
}

/// Waits until the account's row, the last of it, is gone.
async fn is_gone_in_time(session: &Session, account: &Account) -> anyhow::Result<bool> {
    match tokio::time::timeout(DELETION_WAIT_MAX, account::until_gone(session, account)).await {
        Ok(gone) => gone.map(|()| true),
        Err(_) => Ok(false),
    }
}

#[derive(Serialize)]
struct Changed {
    user_id: String,
    /// Where it was made here.
    password: Option<String>,
}

async fn change_password(session: &Session, account: &Account, stdin: bool) -> anyhow::Result<Verdict> {
    let (new, made) = if stdin {
        (read_password()?, None)
    } else {
        let made = make_password();
        (made.clone(), Some(made))
    };
    password::check_rules(&new)?;
    let password_hash = password::hash_once(&new, &SystemEntropy).context("hash the password")?;
    account::change_password(session, account, password_hash).await?;
    if session.json {
        session.print_json(&Changed { user_id: account.user.to_string(), password: made })?;
        return Ok(Verdict::Good);
    }
    match made {
        Some(made) => println!("{} has the password {made}", account.address.as_str()),
        None => println!("{} has another password.", account.address.as_str()),
    }
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct Reset {
    user_id: String,
}

async fn reset_second_factor(session: &Session, account: &Account) -> anyhow::Result<Verdict> {
    // Without a proof of the owner's password: an operator has none.
    let op = Op::RemoveSecondFactor(pb::RemoveSecondFactor { user_id: account.user.to_bytes(), ..Default::default() });
    session.audited("account.second_factor", account.targets(), done(session, account.shard, op)).await?;
    if session.json {
        session.print_json(&Reset { user_id: account.user.to_string() })?;
    } else {
        println!("{} logs in with a password alone.", account.address.as_str());
    }
    Ok(Verdict::Good)
}

fn read_password() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("postrider: type the new password and return (it is shown as you type)");
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).context("read the password from standard input")?;
    let line = line.trim_end_matches(['\r', '\n']);
    ensure!(!line.is_empty(), "--stdin: the first line of standard input is empty");
    Ok(line.to_owned())
}

/// Digits and letters that are not mistaken for each other, five bits each.
fn make_password() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes = random::<{ PASSWORD_BYTES * 8 / 5 }>(&SystemEntropy);
    let letters: Vec<char> = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    letters.chunks(6).map(|chunk| chunk.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}

#[derive(Serialize)]
struct Line {
    id: String,
    created: String,
    expires: String,
    address: String,
    user_agent: String,
}

async fn sessions(session: &Session, account: &Account, end: Option<&str>, end_all: bool) -> anyhow::Result<Verdict> {
    if let Some(id) = end {
        let id: RequestId = id.parse().map_err(|_| anyhow::anyhow!("--end {id}: 32 hexadecimal digits are wanted"))?;
        let end = pb::EndSession { user_id: account.user.to_bytes(), session_id: id.to_bytes() };
        let end = done(session, account.shard, Op::EndSession(end));
        session.audited("account.session.end", account.targets(), end).await?;
        return say(session, account, "ended", "has lost the session.");
    }
    if end_all {
        session.audited("account.session.end_all", account.targets(), end_every(session, account)).await?;
        return say(session, account, "ended", "has no session any more.");
    }
    let open = session.audited("account.sessions", account.targets(), list(session, account)).await?;
    let lines: Vec<Line> = open.into_iter().map(line).collect();
    if session.json {
        session.print_json(&lines)?;
        return Ok(Verdict::Good);
    }
    let mut table = Table::new(&[
        ("id", Align::Left),
        ("created", Align::Left),
        ("expires", Align::Left),
        ("address", Align::Left),
        ("program", Align::Left),
    ]);
    for line in lines {
        table.row([line.id, line.created, line.expires, line.address, line.user_agent]);
    }
    table.print();
    Ok(Verdict::Good)
}

async fn list(session: &Session, account: &Account) -> anyhow::Result<Vec<pb::SessionLine>> {
    let list = Query::ListSessions(pb::ListSessions { user_id: account.user.to_bytes() });
    match session.ask(account.shard.0, list).await? {
        Answer::Sessions(sessions) => Ok(sessions.sessions),
        other => bail!("shard {} gave an answer to another question: {other:?}", account.shard),
    }
}

async fn end_every(session: &Session, account: &Account) -> anyhow::Result<()> {
    for open in list(session, account).await? {
        let end = pb::EndSession { user_id: account.user.to_bytes(), session_id: open.session_id };
        match session.propose(account.shard, Op::EndSession(end)).await? {
            Made::Done(_) => {}
            // It has ended by itself.
            Made::Refused(refused) if refused.refusal() == pb::Refusal::UnknownSession => {}
            other => bail!("shard {} ended no session: {other:?}", account.shard),
        }
    }
    Ok(())
}

fn line(line: pb::SessionLine) -> Line {
    let session = line.session.unwrap_or_default();
    Line {
        id: hex::encode(&line.session_id),
        created: time(session.created_ms),
        expires: time(session.expires_at_ms),
        address: session.peer,
        user_agent: session.user_agent,
    }
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_that_are_made_keep_the_rules() {
        let (one, other) = (make_password(), make_password());
        assert_ne!(one, other);
        assert_eq!(one.len(), 4 * 6 + 3, "{one}");
        assert!(password::check_rules(&one).is_ok());
    }
}
