//! `ctl user`: where a user's mailbox is.

use anyhow::{Context as _, bail};
use postrider_api::address::Address;
use postrider_api::audit;
use postrider_api::id::UserId;
use postrider_api::pb::AddressStatus;
use postrider_router::operate::primary_of;
use serde::Serialize;

use super::Verdict;
use super::session::{DEADLINE, Session};
use super::table::{join, or_dash};

#[derive(Serialize)]
struct User {
    user_id: String,
    address: String,
    zone: String,
    shard: u32,
    primary: Option<u64>,
    replicas: Vec<u64>,
}

pub(super) async fn run(session: &Session, address: &str) -> anyhow::Result<Verdict> {
    let address = Address::parse(address).with_context(|| format!("{address} is no address"))?;
    let look = async { session.router.look_up(&address, DEADLINE).await.context("ask the directory") };
    let found = session.audited("account.where", [audit::address(&address)], look).await?;
    let Some(record) = found else { bail!("nobody has the address {}", address.as_str()) };
    match record.status() {
        AddressStatus::Active => {}
        AddressStatus::Closed | AddressStatus::Quarantined => bail!("{} is being deleted", address.as_str()),
        AddressStatus::Reserved | AddressStatus::Unspecified => {
            bail!("{} is reserved by a sign-up that has not finished", address.as_str())
        }
    }
    let user_id = UserId::try_from(&record.user_id).context("read the directory's answer")?;
    let shard = session.shard(record.shard)?;
    let user = User {
        user_id: user_id.to_string(),
        address: record.address,
        zone: shard.zone,
        shard: record.shard,
        primary: primary_of(record.shard, &session.reports().await),
        replicas: shard.replicas,
    };
    if session.json {
        session.print_json(&user)?;
    } else {
        println!("user      {}", user.user_id);
        println!("address   {}", user.address);
        println!("zone      {}", user.zone);
        println!("shard     {}", user.shard);
        println!("primary   {}", or_dash(user.primary));
        println!("replicas  {}", join(&user.replicas));
    }
    Ok(Verdict::Good)
}
