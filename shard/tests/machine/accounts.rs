//! Accounts have a life: passwords, sessions, suspension, and an end that leaves nothing.

use bytes::Bytes;
use postrider_api::address::hash_of;
use postrider_api::id::ShardId;
use postrider_api::keyword::Keywords;
use postrider_api::limit::{ADDRESS_QUARANTINE_MS, DRAIN_ROWS_MAX};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, AccountState, AddressStatus, Refusal, Settlement};
use postrider_api::request::{password_digest, session_id};
use postrider_shard::key::{Key, Table};
use postrider_shard::{INBOX, JUNK, Standing, session_standing, verify};
use prost::Message as _;

use crate::harness::{
    MAILBOX, Machine, accept, create_account, create_folder, deliver, hash, mark, message, move_to, relabel, request,
    update, user,
};
use crate::labels::made;
use crate::queue::settle;

fn token(n: u8) -> Bytes {
    Bytes::copy_from_slice(&[n; 32])
}

fn open(machine: &Machine, of: u8, n: u8) -> Op {
    Op::OpenSession(pb::OpenSession {
        user_id: user(of).to_bytes(),
        token_hash: token(n),
        expires_at_ms: machine.now + 1_000_000,
        verified: digest(machine, of),
        peer: "192.0.2.7".to_owned(),
        user_agent: format!("program {n}"),
        second_factor: None,
    })
}

fn digest(machine: &Machine, of: u8) -> Bytes {
    password_digest(&machine.account(of).password_hash)
}

fn standing(machine: &Machine, of: u8, n: u8) -> Standing {
    let proof = pb::SessionProof { user_id: user(of).to_bytes(), token_hash: token(n) };
    session_standing(&machine.store, machine.now, &proof).unwrap()
}

fn change(verified: Bytes, password_hash: &str, keep: Option<u8>) -> Op {
    Op::ChangePassword(pb::ChangePassword {
        user_id: user(1).to_bytes(),
        verified,
        password_hash: password_hash.to_owned(),
        keep_token_hash: keep.map(token).unwrap_or_default(),
    })
}

fn end_session(of: u8, n: u8) -> Op {
    let id = session_id(&[n; 32]).to_vec().into();
    Op::EndSession(pb::EndSession { user_id: user(of).to_bytes(), session_id: id })
}

fn suspend(receive: bool) -> Op {
    Op::SuspendAccount(pb::SuspendAccount { user_id: user(1).to_bytes(), receive })
}

fn resume() -> Op {
    Op::ResumeAccount(pb::ResumeAccount { user_id: user(1).to_bytes() })
}

fn delete(n: u8) -> Op {
    Op::DeleteAccount(pb::DeleteAccount { user_id: user(n).to_bytes(), verified: Bytes::new() })
}

fn drain(n: u8) -> Op {
    Op::DrainAccount(pb::DrainAccount { user_id: user(n).to_bytes() })
}

fn finish(n: u8) -> Op {
    Op::FinishDeletion(pb::FinishDeletion { user_id: user(n).to_bytes() })
}

fn sessions(machine: &Machine, of: u8) -> Vec<pb::SessionLine> {
    match machine.ask(Ask::ListSessions(pb::ListSessions { user_id: user(of).to_bytes() })) {
        Answer::Sessions(sessions) => sessions.sessions,
        other => panic!("{other:?}"),
    }
}

/// No row of any table begins with the user's id, and none has it or its address in its value, but for what says that it was
/// deleted, rows that remember a transfer by its ids, and changes that followers have not seen.
pub(crate) fn assert_gone(machine: &Machine, n: u8) {
    let (id, address) = (user(n), format!("user{n}@test.example"));
    let has = |value: &[u8], part: &[u8]| value.windows(part.len()).any(|window| window == part);
    let remembers = [Table::DeletedUsers, Table::Transfers, Table::Tail, Table::Dedup];
    for (key, value) in machine.store.rows() {
        let key = Key::decode(key.as_ref()).unwrap();
        assert!(!has(value, address.as_bytes()) || n == 1, "{key:?} has the address");
        if !remembers.contains(&key.table()) {
            assert_ne!(key.user(), Some(id), "{key:?}");
            assert!(!has(value, &id.0), "{key:?} has the id");
        }
    }
}

#[test]
fn of_two_changes_of_a_password_one_wins_and_other_sessions_end() {
    let mut machine = Machine::with_users(1);
    for n in [1, 2, 3] {
        let open = open(&machine, 1, n);
        machine.done(open);
    }
    let verified = digest(&machine, 1);
    let late = open(&machine, 1, 4);
    machine.done(change(verified.clone(), "$argon2id$new", Some(2)));
    assert_eq!(machine.refused(change(verified, "$argon2id$other", Some(3))).0, Refusal::PasswordChanged);
    assert_eq!(machine.account(1).password_hash, "$argon2id$new");
    let standings = [1, 2, 3].map(|n| standing(&machine, 1, n));
    assert_eq!(standings, [Standing::Nothing, Standing::Valid, Standing::Nothing]);
    // A log-in that was verified against the old password, and comes late.
    assert_eq!(machine.refused(late).0, Refusal::PasswordChanged);
    // An operator needs no password, and leaves no session.
    machine.done(change(Bytes::new(), "$argon2id$third", None));
    assert_eq!(machine.account(1).sessions, 0);
    machine.assert_verified();
    assert_eq!(machine.refused(change(Bytes::new(), "", None)).0, Refusal::Malformed);
    assert_eq!(machine.refused(change(Bytes::new(), &"x".repeat(513), None)).0, Refusal::Malformed);
}

#[test]
fn sessions_are_listed_and_ended_by_an_id_that_opens_nothing() {
    let mut machine = Machine::with_users(2);
    for n in [1, 2] {
        let open = open(&machine, 1, n);
        machine.done(open);
        machine.now += 1;
    }
    let listed = sessions(&machine, 1);
    let agents: Vec<&str> = listed.iter().map(|line| line.session.as_ref().unwrap().user_agent.as_str()).collect();
    assert_eq!(agents, ["program 2", "program 1"], "the newest first");
    assert_eq!(listed[0].session_id, session_id(&[2; 32])[..]);
    assert_ne!(listed[0].session_id, token(2)[..16]);
    assert_eq!(machine.refused(end_session(2, 1)).0, Refusal::UnknownSession, "another user's");
    machine.done(end_session(1, 1));
    assert_eq!(machine.refused(end_session(1, 1)).0, Refusal::UnknownSession);
    assert_eq!((standing(&machine, 1, 1), standing(&machine, 1, 2)), (Standing::Nothing, Standing::Valid));
    assert_eq!(machine.account(1).sessions, 1);
    machine.now += 2_000_000;
    assert_eq!(sessions(&machine, 1), [], "what has expired is not shown");
    machine.assert_verified();
}

#[test]
fn a_suspended_account_keeps_what_it_has_and_opens_for_nobody() {
    let mut machine = Machine::with_users(1);
    let first = open(&machine, 1, 1);
    machine.done(first);
    machine.done(suspend(true));
    assert_eq!(standing(&machine, 1, 1), Standing::Suspended);
    let second = open(&machine, 1, 2);
    assert_eq!(machine.refused(second).0, Refusal::AccountSuspended);
    let made = machine.accepted(accept(&[1], message(1, None, &[])));
    assert_eq!((made.deliveries.len(), made.entry), (1, 0), "it still gets mail");
    let check = |machine: &Machine| match machine
        .ask(Ask::CheckRecipient(pb::CheckRecipient { user_id: user(1).to_bytes(), size: 1 }))
    {
        Answer::Recipient(state) => (state.active, state.suspended),
        other => panic!("{other:?}"),
    };
    assert_eq!(check(&machine), (true, false));
    machine.done(suspend(false));
    assert_eq!(check(&machine), (true, true));
    let made = machine.accepted(accept(&[1], message(2, None, &[])));
    assert!(made.deliveries.is_empty() && made.entry != 0, "mail waits");
    let made = machine.delivered(deliver(&[(1, request(1))], message(3, None, &[])));
    assert_eq!(made.suspended, [user(1).to_bytes()]);
    machine.assert_verified();
    machine.done(resume());
    machine.done(resume());
    assert_eq!(standing(&machine, 1, 1), Standing::Valid);
    assert_eq!(machine.delivered(deliver(&[(1, request(2))], message(4, None, &[]))).deliveries.len(), 1);
    assert_eq!((machine.account(1).state(), machine.messages(1, INBOX).len()), (AccountState::Active, 2));
    machine.assert_verified();
}

#[test]
fn deleting_is_bounded_in_each_command_and_leaves_nothing() {
    let mut machine = Machine::with_users(2);
    let session = open(&machine, 1, 1);
    machine.done(session);
    machine.apply(create_folder(1, "Work"));
    let messages = DRAIN_ROWS_MAX as u32 / 5;
    for n in 0..messages {
        // Every tenth is the other's as well.
        let to: &[u8] = if n % 10 == 0 { &[1, 2] } else { &[1] };
        machine.accepted(accept(to, message(n, Some(hash(n)), &[hash(n / 3)])));
    }
    machine.delivered(deliver(&[(1, request(1))], message(90_000, None, &[])));
    // A row in each list of a label, and among the flagged.
    let label = made(&mut machine, 1, "Label");
    let ids: Vec<Bytes> = machine.messages(1, INBOX).iter().map(|row| row.email_id.clone()).collect();
    machine.changed(update(1, ids[..3].iter().map(|id| relabel(id, &[label], &[])).collect()));
    let seen = mark(&ids[0], Keywords::SEEN | Keywords::FLAGGED, Keywords::default());
    machine.changed(update(1, vec![seen, move_to(&ids[1], JUNK)]));
    let mut wrong = delete(1);
    if let Op::DeleteAccount(command) = &mut wrong {
        command.verified = password_digest("another");
    }
    assert_eq!(machine.refused(wrong).0, Refusal::PasswordChanged);
    assert_eq!(machine.refused(drain(1)).0, Refusal::Conflict, "nobody has asked for it");
    let users = |machine: &Machine| match machine.ask(Ask::GetShardStats(pb::GetShardStats {})) {
        Answer::ShardStats(state) => state.users,
        other => panic!("{other:?}"),
    };
    assert_eq!(users(&machine), 2);
    machine.done(delete(1));
    machine.done(delete(1));
    assert_eq!(standing(&machine, 1, 1), Standing::Nothing);
    machine.assert_verified();
    // From here on nothing is done with it any more, and nothing comes to it.
    assert_eq!(machine.refused(create_folder(1, "Late")).0, Refusal::UnknownUser);
    assert_eq!(machine.refused(create_account(1, 1000)).0, Refusal::AccountExists);
    assert_eq!(machine.refused(resume()).0, Refusal::UnknownUser);
    let made = machine.accepted(accept(&[1, 2], message(91_000, None, &[])));
    assert_eq!((made.deliveries.len(), made.entry), (1, 0));
    let made = machine.delivered(deliver(&[(1, request(2))], message(92_000, None, &[])));
    assert_eq!(made.deleted, [user(1).to_bytes()]);
    let Answer::Deletions(deletions) = machine.ask(Ask::ListDeletions(pb::ListDeletions { limit: 0 })) else {
        panic!()
    };
    assert_eq!(deletions.deletions[0].address, "user1@test.example");
    let mut commands = 0;
    loop {
        assert_eq!(machine.refused(finish(1)).0, Refusal::Conflict, "it has rows left");
        let before = machine.store.rows().count();
        let Made::AccountDraining(made) = machine.apply(drain(1)) else { panic!() };
        commands += 1;
        // A body is two rows beside the message's own.
        assert!(before - machine.store.rows().count() <= 3 * DRAIN_ROWS_MAX);
        machine.assert_verified();
        if made.is_empty {
            break;
        }
    }
    assert!(commands >= 2, "{messages} messages were removed in {commands} commands");
    machine.done(finish(1));
    machine.done(finish(1));
    machine.done(delete(1));
    assert_eq!(users(&machine), 1);
    assert_eq!(machine.refused(create_account(1, 1000)).0, Refusal::AccountExists, "an id is not used again");
    let refused = machine.refused(accept(&[1], message(94_000, None, &[])));
    assert_eq!(refused.0, Refusal::UnknownUser, "nobody would have it: its sender is told");
    let made = machine.delivered(deliver(&[(1, request(3))], message(93_000, None, &[])));
    assert_eq!(made.deleted, [user(1).to_bytes()]);
    assert_eq!(machine.messages(2, INBOX).len() as u32, messages.div_ceil(10) + 1, "the other keeps his");
    machine.assert_verified();
    assert_gone(&machine, 1);
}

#[test]
fn what_waits_for_a_deleted_user_or_gave_him_up_holds_him_no_longer() {
    let mut machine = Machine::with_users(1);
    let alone = machine.accepted(accept(&[8], message(1, None, &[]))).entry;
    let shared = machine.accepted(accept(&[8, 9], message(2, None, &[]))).entry;
    let failed = machine.accepted(accept(&[8], message(3, None, &[]))).entry;
    machine.done(settle(failed, &[(8, Settlement::Failed)], 1000));
    let both = machine.accepted(accept(&[8, 9], message(4, None, &[]))).entry;
    machine.done(settle(both, &[(8, Settlement::Failed), (9, Settlement::Failed)], 1000));
    for n in 10..20 {
        machine.accepted(accept(&[9], message(n, None, &[])));
    }
    let find = |machine: &Machine| {
        let find = pb::FindRecipient { user_id: user(8).to_bytes(), after_entry: 0 };
        match machine.ask(Ask::FindRecipient(find)) {
            Answer::RecipientEntries(found) => found,
            other => panic!("{other:?}"),
        }
    };
    let found = find(&machine);
    assert_eq!((found.entries.clone(), found.more), (vec![alone, shared, failed, both], false));
    let drop = Op::DropRecipient(pb::DropRecipient { user_id: user(8).to_bytes(), entries: found.entries });
    machine.done(drop.clone());
    machine.done(drop);
    assert!(find(&machine).entries.is_empty());
    let entry = |entry| match machine.ask(Ask::GetQueueEntry(pb::GetQueueEntry { entry, ..Default::default() })) {
        Answer::QueueEntry(found) => Some((
            found.waiting.map_or(0, |record| record.pending.len()),
            found.failed.map_or(0, |record| record.recipients.len()),
        )),
        Answer::NotFound(_) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!([alone, shared, failed, both].map(entry), [None, Some((1, 0)), None, Some((0, 1))]);
    machine.assert_verified();
    // One that a worker holds is settled as nobody's.
    let leased = machine.accepted(accept(&[8], message(30, None, &[]))).entry;
    machine.done(settle(leased, &[(8, Settlement::Dropped)], 1000));
    assert!(find(&machine).entries.is_empty());
    machine.assert_verified();
}

#[test]
fn pages_of_both_queues_are_looked_at_as_far_as_both_were_read() {
    let mut machine = Machine::with_users(1);
    // More than one page waits; of the failed ones some lie before its end and some behind it.
    let mut wanted = Vec::new();
    for n in 0..450u32 {
        let to: &[u8] = if n % 3 == 0 { &[8, 9] } else { &[9] };
        let entry = machine.accepted(accept(to, message(n, None, &[]))).entry;
        if n % 7 == 0 {
            machine.done(settle(entry, &[(9, Settlement::Failed)], 1000));
        }
        if n % 3 == 0 {
            wanted.push(entry);
        }
    }
    let (mut found, mut after_entry, mut pages) = (Vec::new(), 0, 0);
    loop {
        let find = pb::FindRecipient { user_id: user(8).to_bytes(), after_entry };
        let Answer::RecipientEntries(page) = machine.ask(Ask::FindRecipient(find)) else { panic!() };
        assert!(page.until_entry > after_entry);
        (after_entry, pages) = (page.until_entry, pages + 1);
        found.extend(page.entries);
        if !page.more {
            break;
        }
    }
    assert!(pages > 1);
    assert_eq!(found, wanted, "each once, in order");
}

#[test]
fn rows_of_nobody_are_named_table_by_table() {
    let mut machine = Machine::with_users(1);
    machine.accepted(accept(&[1], message(3, Some(hash(1)), &[])));
    let session = open(&machine, 1, 1);
    machine.done(session);
    machine.store.remove(&Key::Account(user(1)).bytes());
    let differences = verify(&machine.store).unwrap().differences;
    for table in ["sessions", "folders_by_user", "emails_by_user", "emails_by_folder", "uids", "threads", "changes"] {
        let named = |line: &&String| line.starts_with(&format!("{table} ")) && line.contains("who has no account");
        assert_eq!(differences.iter().filter(named).count(), 1, "{table}: {differences:#?}");
    }
}

// ---- the directory ----

const ADDRESS: &str = "user@test.example";

/// Of a command that names the address by its hash.
fn hash_op(n: u8, make: impl Fn(Bytes, Bytes) -> Op) -> Op {
    make(Bytes::copy_from_slice(&hash_of(ADDRESS)), user(n).to_bytes())
}

fn reserve(n: u8) -> Op {
    let (address, user_id) = (ADDRESS.to_owned(), user(n).to_bytes());
    Op::ReserveAddress(pb::ReserveAddress { address, user_id, shard: MAILBOX.0 })
}

fn activate(n: u8) -> Op {
    hash_op(n, |address_hash, user_id| Op::ActivateAddress(pb::ActivateAddress { address_hash, user_id }))
}

fn close(n: u8) -> Op {
    hash_op(n, |address_hash, user_id| Op::CloseAddress(pb::CloseAddress { address_hash, user_id }))
}

fn retire(n: u8) -> Op {
    hash_op(n, |address_hash, user_id| Op::RetireAddress(pb::RetireAddress { address_hash, user_id }))
}

fn look_up(machine: &Machine) -> Option<AddressStatus> {
    match machine.ask(Ask::LookUpAddress(pb::LookUpAddress { address: ADDRESS.to_owned() })) {
        Answer::Address(record) => Some(record.status()),
        Answer::NotFound(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_is_closed_then_a_hash_in_quarantine_then_free() {
    let mut machine = Machine::new(ShardId::DIRECTORY_FIRST);
    assert_eq!(machine.refused(close(1)).0, Refusal::UnknownAddress);
    machine.apply(reserve(1));
    machine.done(activate(1));
    assert_eq!(machine.refused(close(2)).0, Refusal::AddressTaken);
    machine.done(close(1));
    assert_eq!(look_up(&machine), Some(AddressStatus::Closed));
    assert_eq!(machine.refused(activate(1)).0, Refusal::Conflict, "a sign-up that is resumed late");
    for n in [1, 2] {
        assert_eq!(machine.refused(reserve(n)).0, Refusal::AddressTaken);
    }
    machine.done(retire(1));
    machine.done(retire(1));
    machine.done(close(1));
    assert_eq!(look_up(&machine), None);
    let release = hash_op(1, |address_hash, user_id| Op::ReleaseAddress(pb::ReleaseAddress { address_hash, user_id }));
    machine.done(release);
    assert_eq!(machine.refused(reserve(2)).0, Refusal::AddressTaken);
    let has_address =
        |machine: &Machine| machine.store.rows().any(|(_, value)| value.windows(4).any(|window| window == b"user"));
    assert!(!has_address(&machine), "its hash is left");
    // Mail that comes late finds the shard that knows that he was deleted.
    let locate = Ask::LocateUser(pb::LocateUser { user_id: user(1).to_bytes() });
    assert!(matches!(machine.ask(locate.clone()), Answer::Address(record) if record.shard == MAILBOX.0));
    machine.assert_verified();
    machine.now += ADDRESS_QUARANTINE_MS - 1;
    assert_eq!(machine.refused(reserve(2)).0, Refusal::AddressTaken);
    machine.now += 20_000;
    assert!(matches!(machine.apply(reserve(2)), Made::Reserved(_)));
    assert!(matches!(machine.ask(locate), Answer::NotFound(_)));
    machine.assert_verified();
    machine.done(activate(2));
    assert_eq!(look_up(&machine), Some(AddressStatus::Active));
}

#[test]
fn a_deleted_accounts_row_says_no_more_than_it_has_to() {
    let mut machine = Machine::with_users(1);
    machine.done(delete(1));
    let Answer::Account(account) = machine.ask(Ask::GetAccount(pb::GetAccount { user_id: user(1).to_bytes() })) else {
        panic!()
    };
    assert_eq!((account.name.as_str(), account.password_hash.as_str()), ("", ""));
    assert!(account.encoded_len() > 0 && account.state() == AccountState::Deleting);
}
