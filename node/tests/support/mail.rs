//! People and their mail.

use bytes::Bytes;
use postrider_api::address::{Address, hash_of};
use postrider_api::env::{SystemEntropy, random};
use postrider_api::id::{BodyId, ShardId, UserId, ZoneId};
use postrider_api::limit::QUOTA_BYTES_DEFAULT;
use postrider_api::pb::{self, answer, command::Op, outcome, query};
use postrider_router::{ReadMode, Router};

use super::{GENEROUS, MAILBOX};

/// The number of the one zone.
pub const ZONE: ZoneId = ZoneId(1);

pub fn bytes<const N: usize>() -> [u8; N] {
    random(&*SystemEntropy::shared())
}

pub fn command(op: Op) -> pb::Command {
    pb::Command { op: Some(op), ..Default::default() }
}

/// Signs somebody up in `shard`: reserve, create, activate.
pub async fn sign_up(router: &Router, name: &str, shard: ShardId) -> UserId {
    let address = Address::parse(&format!("{name}@postrider.example")).unwrap();
    let user = UserId::new(ZONE, address.slot(), bytes());
    // A router that connected in the cluster's first moment follows the map from before the shards were registered.
    super::eventually("the map names the directory", || async {
        router.directory_shard(ZONE, address.slot()).is_some()
    })
    .await;
    let directory = router.directory_shard(ZONE, address.slot()).unwrap();
    let reserve = pb::ReserveAddress { address: address.as_str().to_owned(), user_id: user.to_bytes(), shard: shard.0 };
    let reserved = router.propose(directory, None, command(Op::ReserveAddress(reserve)), GENEROUS).await.unwrap();
    assert!(matches!(reserved.result, Some(outcome::Result::Reserved(_))), "{reserved:?}");
    let create = pb::CreateAccount {
        user_id: user.to_bytes(),
        address: address.as_str().to_owned(),
        name: name.to_owned(),
        password_hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo".to_owned(),
        quota_bytes: QUOTA_BYTES_DEFAULT,
        home_region: "seoul".to_owned(),
    };
    done(router.propose(shard, None, command(Op::CreateAccount(create)), GENEROUS).await.unwrap());
    let address_hash = hash_of(address.as_str()).to_vec().into();
    let activate = pb::ActivateAddress { address_hash, user_id: user.to_bytes() };
    done(router.propose(directory, None, command(Op::ActivateAddress(activate)), GENEROUS).await.unwrap());
    user
}

pub fn done(outcome: pb::Outcome) {
    assert!(!matches!(outcome.result, Some(outcome::Result::Refused(_)) | None), "{outcome:?}");
}

pub fn message(subject: &str) -> pb::NewMessage {
    let text = format!("Subject: {subject}\r\n\r\nHello.\r\n");
    let length = text.len() as u64;
    let mailbox = pb::Mailbox { name: String::new(), email: "ada@elsewhere.example".to_owned() };
    pb::NewMessage {
        envelope: Some(pb::Envelope { from: vec![mailbox], subject: subject.to_owned(), ..Default::default() }),
        preview: "Hello.".to_owned(),
        size: length,
        pieces: vec![pb::Piece { literal_length: length, raw_length: length, ..Default::default() }],
        body: Some(pb::Body {
            body_id: BodyId(bytes()).to_bytes(),
            compression: pb::Compression::None.into(),
            text: Bytes::from(text),
            text_length: length,
        }),
        ..Default::default()
    }
}

pub fn accept(recipients: &[UserId], subject: &str) -> pb::Command {
    let recipients = recipients
        .iter()
        .map(|user| pb::Recipient {
            user_id: user.to_bytes(),
            address: "someone@postrider.example".to_owned(),
            ..Default::default()
        })
        .collect();
    command(Op::Accept(pb::Accept {
        mail_from: "ada@elsewhere.example".to_owned(),
        recipients,
        message: Some(message(subject)),
        ..Default::default()
    }))
}

/// Has one message accepted, and says which modseq it has.
pub async fn receive(router: &Router, user: UserId, subject: &str) -> u64 {
    let outcome = router.propose(MAILBOX, None, accept(&[user], subject), GENEROUS).await.unwrap();
    match outcome.result {
        Some(outcome::Result::Accepted(accepted)) => accepted.deliveries[0].modseq,
        other => panic!("{other:?}"),
    }
}

pub fn inbox(user: UserId) -> query::Query {
    query::Query::ListMessages(pb::ListMessages {
        user_id: user.to_bytes(),
        folder_id: postrider_shard::INBOX.0,
        limit: 200,
        ..Default::default()
    })
}

/// Subjects in the inbox, oldest first.
pub async fn subjects(router: &Router, user: UserId, mode: ReadMode) -> (Vec<String>, Option<u64>) {
    let answered = router.query(MAILBOX, None, inbox(user), mode, 0, GENEROUS).await.unwrap();
    let Some(answer::Answer::Messages(page)) = answered.answer.answer else { panic!("{answered:?}") };
    let subjects = page.rows.into_iter().rev().map(|row| row.subject).collect();
    (subjects, answered.stale_ms)
}
