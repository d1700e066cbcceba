//! Application passwords.

use bytes::Bytes;
use postrider_api::limit::{APP_PASSWORD_NAME_BYTES_MAX, APP_PASSWORD_USE_MS, APP_PASSWORDS_MAX};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, AppScope, Refusal};

use crate::accounts::assert_gone;
use crate::harness::{Machine, user};

const SMTP: u32 = AppScope::SmtpSubmission as u32;
const IMAP: u32 = AppScope::Imap as u32;

fn keys(n: u8) -> pb::ScramKeys {
    pb::ScramKeys {
        salt: Bytes::from_static(&[9; 16]),
        iterations: 4096,
        stored_key: Bytes::copy_from_slice(&[n; 32]),
        server_key: Bytes::copy_from_slice(&[n; 32]),
    }
}

fn create(of: u8, name: &str, scopes: u32) -> pb::CreateAppPassword {
    pb::CreateAppPassword {
        user_id: user(of).to_bytes(),
        name: name.to_owned(),
        scopes,
        keys: Some(keys(of)),
        ..Default::default()
    }
}

fn made(machine: &mut Machine, command: pb::CreateAppPassword) -> Bytes {
    match machine.apply(Op::CreateAppPassword(command)) {
        Made::AppPasswordMade(made) => made.app_password_id,
        other => panic!("{other:?}"),
    }
}

fn delete(of: u8, id: &Bytes) -> Op {
    Op::DeleteAppPassword(pb::DeleteAppPassword { user_id: user(of).to_bytes(), app_password_id: id.clone() })
}

fn used(of: u8, id: &Bytes) -> Op {
    Op::UseAppPassword(pb::UseAppPassword { user_id: user(of).to_bytes(), app_password_id: id.clone() })
}

fn list(machine: &Machine, of: u8) -> Vec<pb::AppPassword> {
    match machine.ask(Ask::ListAppPasswords(pb::ListAppPasswords { user_id: user(of).to_bytes() })) {
        Answer::AppPasswords(all) => all.app_passwords,
        other => panic!("{other:?}"),
    }
}

fn credentials(machine: &Machine, of: u8, scopes: u32) -> Option<pb::Credentials> {
    match machine.ask(Ask::GetCredentials(pb::GetCredentials { user_id: user(of).to_bytes(), scopes })) {
        Answer::Credentials(credentials) => Some(credentials),
        Answer::NotFound(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn they_are_made_listed_without_keys_and_revoked() {
    let mut machine = Machine::with_users(2);
    let mail = made(&mut machine, create(1, "Thunderbird", SMTP | IMAP));
    machine.now += 1;
    let script = made(&mut machine, create(1, " cron ", SMTP));
    let listed = list(&machine, 1);
    let names: Vec<_> = listed.iter().map(|line| line.record.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(names, ["cron", "Thunderbird"], "the newest first, trimmed");
    assert!(listed.iter().all(|line| line.record.as_ref().unwrap().keys.is_none()));
    assert!(list(&machine, 2).is_empty());

    let of_imap = credentials(&machine, 1, IMAP).unwrap();
    assert_eq!((of_imap.address.as_str(), of_imap.suspended), ("user1@test.example", false));
    assert_eq!(of_imap.app_passwords.len(), 1);
    assert_eq!(of_imap.app_passwords[0].record.as_ref().unwrap().keys, Some(keys(1)));
    assert_eq!(credentials(&machine, 1, SMTP).unwrap().app_passwords.len(), 2);
    machine.assert_verified();

    assert_eq!(machine.refused(delete(2, &mail)).0, Refusal::UnknownAppPassword, "another's");
    machine.done(delete(1, &mail));
    assert_eq!(machine.refused(delete(1, &mail)).0, Refusal::UnknownAppPassword);
    assert_eq!(list(&machine, 1)[0].app_password_id, script);
    machine.assert_verified();
}

#[test]
fn its_use_is_noted_once_an_hour() {
    let mut machine = Machine::with_users(1);
    let id = made(&mut machine, create(1, "cron", SMTP));
    let last_used = |machine: &Machine| list(machine, 1)[0].record.as_ref().unwrap().last_used_ms;
    assert_eq!(last_used(&machine), 0);
    let first = machine.now;
    machine.done(used(1, &id));
    machine.now += APP_PASSWORD_USE_MS - 1;
    machine.done(used(1, &id));
    assert_eq!(last_used(&machine), first);
    machine.now += 1;
    machine.done(used(1, &id));
    assert_eq!(last_used(&machine), machine.now);
    machine.done(delete(1, &id));
    machine.done(used(1, &id));
    assert!(list(&machine, 1).is_empty(), "what was revoked does not come back");
}

#[test]
fn what_is_none_is_refused() {
    let mut machine = Machine::with_users(1);
    let with = |change: fn(&mut pb::CreateAppPassword)| {
        let mut command = create(1, "cron", SMTP);
        change(&mut command);
        Op::CreateAppPassword(command)
    };
    for (op, field) in [
        (with(|command| command.name.clear()), "name"),
        (with(|command| command.name = "x".repeat(APP_PASSWORD_NAME_BYTES_MAX + 1)), "name"),
        (with(|command| command.scopes = 0), "scopes"),
        (with(|command| command.scopes = 1 << 20), "scopes"),
        (with(|command| command.keys = None), "keys"),
        (with(|command| command.keys.as_mut().unwrap().salt = Bytes::new()), "keys.salt"),
        (with(|command| command.keys.as_mut().unwrap().iterations = 4095), "keys.iterations"),
        (with(|command| command.keys.as_mut().unwrap().stored_key = Bytes::from_static(b"short")), "keys.stored_key"),
    ] {
        let (refusal, detail) = machine.refused(op);
        assert_eq!(refusal, Refusal::Malformed, "{field}");
        assert!(detail.starts_with(field), "{detail}");
    }
    assert_eq!(machine.refused(Op::CreateAppPassword(create(9, "cron", SMTP))).0, Refusal::UnknownUser);
    made(&mut machine, create(1, "cron", SMTP));
    let mut salted = create(1, "other", SMTP);
    salted.keys.as_mut().unwrap().salt = Bytes::from_static(&[8; 16]);
    assert_eq!(machine.refused(Op::CreateAppPassword(salted)).0, Refusal::Conflict);
    for _ in 1..APP_PASSWORDS_MAX {
        made(&mut machine, create(1, "cron", SMTP));
    }
    assert_eq!(machine.refused(Op::CreateAppPassword(create(1, "cron", SMTP))).0, Refusal::AppPasswordsTooMany);
    machine.assert_verified();
}

#[test]
fn they_end_with_their_account() {
    let mut machine = Machine::with_users(1);
    made(&mut machine, create(1, "cron", SMTP));
    let user_id = user(1).to_bytes();
    machine.done(Op::SuspendAccount(pb::SuspendAccount { user_id: user_id.clone(), receive: true }));
    assert!(credentials(&machine, 1, SMTP).unwrap().suspended);
    assert_eq!(machine.refused(Op::CreateAppPassword(create(1, "another", SMTP))).0, Refusal::AccountSuspended);
    machine.done(Op::DeleteAccount(pb::DeleteAccount { user_id: user_id.clone(), ..Default::default() }));
    assert_eq!(credentials(&machine, 1, SMTP), None, "at once");
    while machine.apply(Op::DrainAccount(pb::DrainAccount { user_id: user_id.clone() }))
        != Made::AccountDraining(pb::AccountDraining { is_empty: true })
    {}
    machine.done(Op::FinishDeletion(pb::FinishDeletion { user_id }));
    assert_gone(&machine, 1);
    machine.assert_verified();
}
