//! What no proposer should send: refused with a sentence, and nothing is written. [`Machine::refused`] checks the latter.

use bytes::Bytes;
use postrider_api::id::{FolderId, ShardId};
use postrider_api::limit::{RECIPIENTS_MAX, REFERENCES_MAX, UPDATES_MAX};
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Refusal};
use postrider_shard::store::Txn;
use postrider_shard::{Broken, INBOX, QueryError, apply, query};
use prost::Message;

use crate::harness::{
    Machine, accept, create_account, create_folder, delete, deliver, hash, message, move_to, request, update, user,
};

/// What spoils a message, and a word that the refusal then names.
type Spoiled = (&'static str, fn(&mut pb::NewMessage));

#[test]
fn messages_out_of_shape() {
    let mut machine = Machine::with_users(1);
    let cases: Vec<Spoiled> = vec![
        ("body", |m| m.body = None),
        ("envelope", |m| m.envelope = None),
        ("body_id", |m| m.body.as_mut().unwrap().body_id = Bytes::from_static(b"short")),
        ("text_length", |m| m.body.as_mut().unwrap().text_length += 1),
        ("message_id_hash", |m| m.message_id_hash = Bytes::from_static(b"short")),
        ("reference_hashes", |m| m.reference_hashes = vec![Bytes::from_static(b"short")]),
        ("reference_hashes", |m| m.reference_hashes = vec![Bytes::from_static(&[1; 16]); REFERENCES_MAX + 1]),
        ("blob", |m| m.parts[0].blob = Bytes::from_static(b"short")),
        ("blob", |m| m.pieces[0].blob = Bytes::from_static(b"short")),
        ("parts", |m| m.parts = vec![pb::Part::default(); 1001]),
        ("subject", |m| m.envelope.as_mut().unwrap().subject = "x".repeat(1001)),
        ("preview", |m| m.preview = "x".repeat(257)),
        ("addresses", |m| m.envelope.as_mut().unwrap().cc = vec![pb::Mailbox::default(); 201]),
        ("name", |m| m.envelope.as_mut().unwrap().from[0].name = "x".repeat(256)),
        ("address", |m| {
            m.envelope.as_mut().unwrap().bcc = vec![pb::Mailbox { email: "x".repeat(255), name: String::new() }]
        }),
    ];
    for (word, spoil) in cases {
        let mut spoiled = message(1, None, &[]);
        spoil(&mut spoiled);
        let (refusal, detail) = machine.refused(accept(&[1], spoiled.clone()));
        assert_eq!(refusal, Refusal::Malformed);
        assert!(detail.contains(word), "{word}: {detail}");
        machine.refused(deliver(&[(1, request(1))], spoiled));
    }
    let without = Op::Accept(pb::Accept { message: None, ..Default::default() });
    assert_eq!(machine.refused(without).0, Refusal::Malformed);
}

#[test]
fn recipients_out_of_shape() {
    let mut machine = Machine::with_users(1);
    assert_eq!(machine.refused(accept(&[], message(1, None, &[]))).0, Refusal::Malformed);
    assert_eq!(machine.refused(accept(&[1; RECIPIENTS_MAX + 1], message(1, None, &[]))).0, Refusal::Malformed);
    assert_eq!(machine.refused(deliver(&[], message(1, None, &[]))).0, Refusal::Malformed);
    let mut short = accept(&[1], message(1, None, &[]));
    if let Op::Accept(accept) = &mut short {
        accept.recipients[0].user_id = Bytes::from_static(b"short");
    }
    let (refusal, detail) = machine.refused(short);
    assert_eq!(refusal, Refusal::Malformed);
    assert!(detail.contains("recipients.user_id"), "{detail}");
    machine.accepted(accept(&[1; RECIPIENTS_MAX], message(1, None, &[])));
}

#[test]
fn a_body_id_is_of_one_body() {
    let mut machine = Machine::with_users(1);
    machine.accepted(accept(&[1], message(1, None, &[])));
    let mut other = message(1, None, &[]);
    let body = other.body.as_mut().unwrap();
    body.text = Bytes::from_static(b"another");
    body.text_length = 7;
    assert_eq!(machine.refused(accept(&[1], other)).0, Refusal::Conflict);
}

#[test]
fn updates_all_or_nothing() {
    let mut machine = Machine::with_users(1);
    let id = machine.accepted(accept(&[1], message(1, Some(hash(1)), &[]))).deliveries[0].email_id.clone();
    let nothing = Bytes::from_static(&[9; 16]);
    let good = move_to(&id, FolderId(4));
    assert_eq!(machine.refused(update(1, vec![good.clone(), delete(&nothing)])).0, Refusal::UnknownMessage);
    assert_eq!(machine.refused(update(1, vec![move_to(&id, FolderId(99))])).0, Refusal::UnknownFolder);
    assert_eq!(machine.refused(update(1, vec![good.clone(), good.clone()])).0, Refusal::Malformed);
    assert_eq!(machine.refused(update(1, vec![])).0, Refusal::Malformed);
    assert_eq!(machine.refused(update(1, vec![good.clone(); UPDATES_MAX + 1])).0, Refusal::Malformed);
    let both = pb::MessageUpdate { delete: true, ..good.clone() };
    assert_eq!(machine.refused(update(1, vec![both])).0, Refusal::Malformed);
    assert_eq!(machine.refused(update(9, vec![good])).0, Refusal::UnknownUser);
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    machine.assert_verified();
}

#[test]
fn accounts() {
    let mut machine = Machine::with_users(1);
    assert_eq!(machine.refused(create_account(1, 5)).0, Refusal::AccountExists);
    let cases: Vec<fn(&mut pb::CreateAccount)> = vec![
        |c| c.address = String::new(),
        |c| c.address = "x".repeat(255),
        |c| c.name = "x".repeat(256),
        |c| c.password_hash = String::new(),
        |c| c.user_id = Bytes::new(),
    ];
    for spoil in cases {
        let mut spoiled = create_account(2, 5);
        if let Op::CreateAccount(command) = &mut spoiled {
            spoil(command);
        }
        assert_eq!(machine.refused(spoiled).0, Refusal::Malformed);
    }
    let long = Op::UpdateProfile(pb::UpdateProfile {
        user_id: user(1).to_bytes(),
        name: Some("New".to_owned()),
        signature: Some("x".repeat(10_000)),
    });
    assert_eq!(machine.refused(long).0, Refusal::Malformed);
    assert_eq!(machine.account(1).name, "User 1");
    machine.done(Op::UpdateProfile(pb::UpdateProfile {
        user_id: user(1).to_bytes(),
        name: None,
        signature: Some("Bye".to_owned()),
    }));
    let account = machine.account(1);
    assert_eq!((account.name.as_str(), account.signature.as_str()), ("User 1", "Bye"));
}

#[test]
fn a_command_needs_entropy_where_it_makes_ids() {
    let mut machine = Machine::with_users(1);
    let mut command = machine.command(accept(&[1], message(1, None, &[])));
    command.entropy = Bytes::from_static(b"too short");
    let Some(Made::Refused(refused)) = machine.run(command).outcome.result else { panic!("refused") };
    assert!(refused.detail.contains("entropy"), "{}", refused.detail);
}

/// P-12: what a newer build carries out, an older one must not answer with a refusal, nor remember one.
#[test]
fn an_op_that_this_build_does_not_know_stops_the_replica() {
    let machine = Machine::with_users(1);
    // As an older build reads it: the field of the op is none that it knows.
    let mut newer =
        pb::Command { request: Bytes::copy_from_slice(&request(1).0), ..Default::default() }.encode_to_vec();
    newer.extend_from_slice(&[0xf2, 0x3f, 0x00]);
    let command = pb::Command::decode(&newer[..]).unwrap();
    assert_eq!((command.op.is_none(), command.request.len()), (true, 16));
    let mut txn = Txn::new(&machine.store);
    let broken = apply(machine.shard, &mut txn, 77, &command);
    assert!(matches!(broken, Err(Broken::UnknownOp { index: 77 })), "{broken:?}");
    drop(txn);
}

/// P-12: what a shard has not been raised to is refused by every build alike, whatever it reads in it, and is not remembered.
#[test]
fn what_is_not_enabled_is_refused_by_every_build_alike() {
    let mut newer = Machine::with_users(1);
    let mut older = newer.clone();
    let requires = postrider_shard::format::VERSION_MAX + 1;
    let mut known = newer.command(create_folder(1, "Work"));
    (known.request, known.requires) = (Bytes::copy_from_slice(&request(1).0), requires);
    let unknown = pb::Command { op: None, ..known.clone() };
    let outcome = newer.run(known.clone()).outcome;
    let Some(Made::Refused(refused)) = &outcome.result else { panic!("{outcome:?}") };
    assert_eq!(refused.refusal(), Refusal::VersionNotEnabled);
    assert_eq!(older.run(unknown).outcome, outcome);
    assert_eq!(newer.digest(), older.digest());
    // Under the same request id, once the shard has been raised (here: once it asks for less).
    known.requires = 1;
    assert!(matches!(newer.run(known).outcome.result, Some(Made::FolderMade(_))));
}

#[test]
fn a_version_is_raised_and_never_falls() {
    let mut machine = Machine::with_users(1);
    let raise = |version| Op::RaiseVersion(pb::RaiseVersion { version });
    machine.done(raise(1));
    assert_eq!(machine.refused(raise(0)).0, Refusal::Conflict);
    for shard in [ShardId::PLACEMENT, ShardId::DIRECTORY_FIRST] {
        Machine::new(shard).done(raise(1));
    }
    // A build that does not know it stops, and has written nothing that it could misread.
    let command = machine.command(raise(postrider_shard::format::VERSION_MAX + 1));
    let broken = apply(machine.shard, &mut Txn::new(&machine.store), 77, &command);
    assert!(matches!(broken, Err(Broken::Newer { .. })), "{broken:?}");
}

#[test]
fn a_shard_takes_its_own_kind() {
    let mut mailbox = Machine::with_users(1);
    let reserve = Op::ReserveAddress(pb::ReserveAddress::default());
    assert_eq!(mailbox.refused(reserve).0, Refusal::Malformed);
    let mut directory = Machine::new(ShardId::DIRECTORY_FIRST);
    assert_eq!(directory.refused(create_account(1, 5)).0, Refusal::Malformed);
    let ask = pb::Query { query: Some(Ask::GetAccount(pb::GetAccount { user_id: user(1).to_bytes() })) };
    let answer = query(directory.shard, &directory.store, 0, &ask);
    assert!(matches!(answer, Err(QueryError::Malformed { .. })));
    let nothing = query(directory.shard, &directory.store, 0, &pb::Query { query: None });
    assert!(matches!(nothing, Err(QueryError::Malformed { .. })));
    let short = pb::Query { query: Some(Ask::GetAccount(pb::GetAccount { user_id: Bytes::new() })) };
    assert!(matches!(query(mailbox.shard, &mailbox.store, 0, &short), Err(QueryError::Malformed { .. })));
}
