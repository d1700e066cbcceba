//! Drafts: saved, saved again, sent, and taken away.

use bytes::Bytes;
use postrider_api::keyword::Keywords;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};
use postrider_shard::{DRAFTS, INBOX, SENT};

use crate::harness::{Machine, accept, mark, message, recipients, update, user};

fn save(of: u8, n: Option<u32>, replaces: &Bytes) -> Op {
    Op::SaveDraft(pb::SaveDraft {
        user_id: user(of).to_bytes(),
        message: n.map(|n| message(n, None, &[])),
        replaces: replaces.clone(),
    })
}

fn saved(machine: &mut Machine, op: Op) -> Option<Bytes> {
    match machine.apply(op) {
        Made::DraftSaved(saved) => saved.draft.map(|draft| draft.email_id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_draft_comes_in_the_place_of_another() {
    let mut machine = Machine::with_users(2);
    let first = saved(&mut machine, save(1, Some(1), &Bytes::new())).unwrap();
    let record = machine.message(1, &first).unwrap();
    assert_eq!(Keywords(record.keywords), Keywords::SEEN | Keywords::DRAFT);
    let second = saved(&mut machine, save(1, Some(2), &first)).unwrap();
    assert_eq!(machine.message(1, &first), None);
    assert_eq!(machine.messages(1, DRAFTS).len(), 1);
    assert_eq!(machine.refused(save(1, Some(3), &first)).0, Refusal::UnknownMessage);
    assert_eq!(machine.refused(save(2, Some(3), &second)).0, Refusal::UnknownMessage, "another's");
    machine.assert_verified();
    assert_eq!(saved(&mut machine, save(1, None, &second)), None);
    assert!(machine.messages(1, DRAFTS).is_empty());
    assert_eq!(machine.refused(save(1, None, &Bytes::new())).0, Refusal::Malformed);
    machine.assert_verified();
}

#[test]
fn what_is_no_draft_is_not_touched() {
    let mut machine = Machine::with_users(1);
    let received = machine.accepted(accept(&[1], message(1, None, &[]))).deliveries[0].email_id.clone();
    assert_eq!(machine.refused(save(1, Some(2), &received)).0, Refusal::UnknownMessage);
    // Nor with the keyword alone.
    machine.changed(update(1, vec![mark(&received, Keywords::DRAFT, Keywords::default())]));
    assert_eq!(machine.refused(save(1, None, &received)).0, Refusal::UnknownMessage);
    assert_eq!(machine.messages(1, INBOX).len(), 1);
}

#[test]
fn a_draft_goes_with_what_is_sent_of_it() {
    let mut machine = Machine::with_users(2);
    let draft = saved(&mut machine, save(1, Some(1), &Bytes::new())).unwrap();
    let send = |n: u32| {
        Op::Send(pb::Send {
            user_id: user(1).to_bytes(),
            mail_from: "user1@test.example".to_owned(),
            recipients: recipients(&[2]),
            message: Some(message(n, None, &[])),
            draft: draft.clone(),
            ..Default::default()
        })
    };
    assert!(matches!(machine.apply(send(2)), Made::Sent(_)));
    assert!(machine.messages(1, DRAFTS).is_empty());
    machine.assert_verified();
    // One that is gone is no obstacle.
    assert!(matches!(machine.apply(send(3)), Made::Sent(_)));
    assert_eq!((machine.messages(1, SENT).len(), machine.messages(2, INBOX).len()), (2, 2));
    machine.assert_verified();
}
