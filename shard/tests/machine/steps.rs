//! Random runs: abstract steps, made into commands for what the shard holds at that moment.

use std::collections::BTreeSet;

use bytes::Bytes;
use postrider_api::id::{EmailId, FolderId, LabelId};
use postrider_api::limit::{DEDUP_MS, DELIVER_AGE_MS_MAX, FORGET_AGE_MS_MIN, UNDELIVERED_MS_MAX};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, Settlement};
use postrider_shard::key::{Key, Table};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::harness::{self, Machine, create_account, hash, request, user};
use crate::model::Model;

/// Users 1 to HERE live in the shard; those up to EVERYBODY do not.
pub(crate) const HERE: u8 = 3;
pub(crate) const EVERYBODY: u8 = 5;
/// This one lives in the shard until the account is deleted.
pub(crate) const DOOMED: u8 = 6;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Three destinations, one of them with two people.
pub(crate) const OUTSIDE: [&str; 4] = ["ada@far.example", "bob@far.example", "ada@near.example", "eve@x.example"];

#[derive(Debug, Clone)]
pub(crate) struct Mail {
    own: u32,
    references: Vec<u32>,
    /// Of an earlier message: the same text comes again under the same body id.
    old_body: Option<Index>,
}

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pick: Index,
    /// Not looked at for sense: a wish that contradicts itself is refused, and leaves nothing behind.
    keywords: (u32, u32),
    labels: (Vec<Index>, Vec<Index>),
    folder: Option<Index>,
    delete: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Accept {
        to: Vec<u8>,
        mail: Mail,
    },
    Send {
        from: u8,
        to: Vec<u8>,
        /// Addresses of [`OUTSIDE`].
        outside: Vec<u8>,
        /// Nobody gets it for so long.
        wait_ms: i64,
        mail: Mail,
        answers: Option<Index>,
    },
    Cancel {
        from: u8,
        entry: Index,
    },
    /// What became of those outside, with a report or without one.
    SettleOutside {
        entry: Index,
        results: Vec<(u8, u8, bool, bool)>,
        report: Option<Mail>,
    },
    Manage {
        entry: Index,
        outside: Vec<u8>,
        action: u8,
        failed: bool,
    },
    Deliver {
        to: Vec<u8>,
        mail: Mail,
        transfer: u8,
        /// How old the lease is, and how long ago nobody certainly had it.
        ages_ms: (i64, i64),
    },
    Update {
        of: u8,
        changes: Vec<Change>,
    },
    CreateFolder {
        of: u8,
        name: u8,
    },
    UpdateFolder {
        of: u8,
        folder: Index,
        name: u8,
    },
    DeleteFolder {
        of: u8,
        folder: Index,
    },
    CreateLabel {
        of: u8,
        name: u8,
        color: u32,
    },
    UpdateLabel {
        of: u8,
        label: Index,
        name: Option<u8>,
        color: Option<u32>,
    },
    DeleteLabel {
        of: u8,
        label: Index,
    },
    Settle {
        entry: Index,
        results: Vec<(u8, u8)>,
        retry_ms: u32,
    },
    Forget {
        transfer: u8,
        age_ms: i64,
    },
    /// A step of the end of [`DOOMED`]'s account, not always the next one.
    End {
        part: u8,
    },
    /// An earlier command, word for word, under the request id that it had.
    Again {
        which: Index,
    },
}

fn mail() -> impl Strategy<Value = Mail> {
    let ids = 0u32..14;
    let references = prop_oneof![
        3 => Just(Vec::new()),
        4 => proptest::collection::vec(1u32..14, 1..3),
        1 => proptest::collection::vec(1u32..14, 3..6),
    ];
    (ids, references, proptest::option::weighted(0.2, any::<Index>())).prop_map(|(own, references, old_body)| Mail {
        own,
        references,
        old_body,
    })
}

fn change() -> impl Strategy<Value = Change> {
    (
        any::<Index>(),
        (keywords(), keywords()),
        (some_labels(), some_labels()),
        proptest::option::weighted(0.3, any::<Index>()),
        proptest::bool::weighted(0.3),
    )
        .prop_map(|(pick, keywords, labels, folder, delete)| {
            let folder = folder.filter(|_| !delete);
            Change { pick, keywords, labels, folder, delete }
        })
}

/// Mostly one bit, of those that are known; now and then several, or one that is not.
fn keywords() -> impl Strategy<Value = u32> {
    prop_oneof![8 => Just(0u32), 8 => (0u32..9).prop_map(|place| 1 << place), 2 => 0u32..512, 1 => Just(1u32 << 9)]
}

fn some_labels() -> impl Strategy<Value = Vec<Index>> {
    prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(any::<Index>(), 1..4)]
}

/// Of a lease, and of what is certain about a recipient: around the limits, and far below.
fn ages() -> impl Strategy<Value = (i64, i64)> {
    let around = |limit: i64| prop_oneof![4 => 0..limit, 1 => Just(limit), 1 => Just(limit + 1)];
    (around(DELIVER_AGE_MS_MAX), around(UNDELIVERED_MS_MAX))
}

fn settlement() -> impl Strategy<Value = u8> {
    prop_oneof![6 => 1u8..6, 1 => Just(Settlement::Dropped as u8)]
}

/// Of those outside, of whom some settlements are refused.
fn outside_settlement() -> impl Strategy<Value = u8> {
    prop_oneof![8 => 1u8..5, 2 => Just(Settlement::Waits as u8), 1 => Just(Settlement::Full as u8)]
}

fn some_outside() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0..OUTSIDE.len() as u8, 0..4)
}

fn color() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..=0xff_ff_ff, 1 => Just(0x100_0000)]
}

pub(crate) fn step() -> impl Strategy<Value = (Step, i64)> {
    let to = || proptest::collection::vec(1..=DOOMED, 1..5);
    let of = || 1..=HERE;
    let sender = || prop_oneof![4 => 1..=HERE, 1 => Just(DOOMED)];
    let wait = || prop_oneof![4 => Just(0i64), 1 => 1i64..100_000];
    let step = prop_oneof![
        8 => (to(), mail()).prop_map(|(to, mail)| Step::Accept { to, mail }),
        6 => (sender(), to(), some_outside(), wait(), mail(), proptest::option::of(any::<Index>())).prop_map(
            |(from, to, outside, wait_ms, mail, answers)| Step::Send { from, to, outside, wait_ms, mail, answers }
        ),
        1 => (of(), any::<Index>()).prop_map(|(from, entry)| Step::Cancel { from, entry }),
        4 => (
            any::<Index>(),
            proptest::collection::vec(
                (0..OUTSIDE.len() as u8, outside_settlement(), any::<bool>(), any::<bool>()), 0..4
            ),
            proptest::option::of(mail()),
        )
            .prop_map(|(entry, results, report)| Step::SettleOutside { entry, results, report }),
        2 => (any::<Index>(), some_outside(), 1u8..7, any::<bool>())
            .prop_map(|(entry, outside, action, failed)| Step::Manage { entry, outside, action, failed }),
        3 => (to(), mail(), 0u8..6, ages())
            .prop_map(|(to, mail, transfer, ages_ms)| Step::Deliver { to, mail, transfer, ages_ms }),
        6 => (of(), proptest::collection::vec(change(), 1..6)).prop_map(|(of, changes)| Step::Update { of, changes }),
        1 => (of(), 0u8..6).prop_map(|(of, name)| Step::CreateFolder { of, name }),
        1 => (of(), any::<Index>(), 0u8..6).prop_map(|(of, folder, name)| Step::UpdateFolder { of, folder, name }),
        1 => (of(), any::<Index>()).prop_map(|(of, folder)| Step::DeleteFolder { of, folder }),
        2 => (of(), 0u8..6, color()).prop_map(|(of, name, color)| Step::CreateLabel { of, name, color }),
        1 => (of(), any::<Index>(), proptest::option::of(0u8..6), proptest::option::of(color()))
            .prop_map(|(of, label, name, color)| Step::UpdateLabel { of, label, name, color }),
        1 => (of(), any::<Index>()).prop_map(|(of, label)| Step::DeleteLabel { of, label }),
        3 => (any::<Index>(), proptest::collection::vec((1..=DOOMED, settlement()), 0..4), 0u32..5_000_000)
            .prop_map(|(entry, results, retry_ms)| Step::Settle { entry, results, retry_ms }),
        1 => (0u8..6, prop_oneof![0..FORGET_AGE_MS_MIN, Just(FORGET_AGE_MS_MIN), Just(DAY_MS)])
            .prop_map(|(transfer, age_ms)| Step::Forget { transfer, age_ms }),
        1 => (0u8..4).prop_map(|part| Step::End { part }),
        1 => any::<Index>().prop_map(|which| Step::Again { which }),
    ];
    // The leader's clock runs, stands still, and goes back now and then. Sometimes nothing happens for days.
    (step, prop_oneof![8 => 0i64..20_000, 4 => Just(0i64), 2 => -5_000i64..0, 1 => 0..4 * DAY_MS])
}

/// A shard with its model, run through `steps`.
pub(crate) fn run(steps: &[(Step, i64)], mut after: impl FnMut(&Machine, &Model)) -> (Machine, Model) {
    let mut machine = Machine::new(harness::MAILBOX);
    let mut model = Model::default();
    for n in (1..=HERE).chain([DOOMED]) {
        carry_out(&mut machine, &mut model, create_account(n, u64::MAX / 2));
    }
    for (step, tick) in steps {
        machine.now += tick;
        if let Step::Again { which } = step {
            again(&mut machine, &mut model, which);
        } else {
            let op = concrete(step, &machine, &model);
            carry_out(&mut machine, &mut model, op);
        }
        after(&machine, &model);
    }
    (machine, model)
}

fn carry_out(machine: &mut Machine, model: &mut Model, op: Op) {
    let mut command = machine.command(op);
    command.request = Bytes::copy_from_slice(&request(machine.log.len() as u64).0);
    let made = machine.run(command.clone()).outcome.result.unwrap();
    model.follow(&command, &made);
    // An outcome does not say which message a report became: it is the newest in the inbox.
    for (sender, message) in std::mem::take(&mut model.reports) {
        let n = (1..=DOOMED).find(|n| user(*n) == sender).unwrap();
        let newest = machine.messages(n, postrider_shard::INBOX)[0].email_id.clone();
        let delivery = pb::Delivery { user_id: sender.to_bytes(), email_id: newest, ..Default::default() };
        model.file_report(&delivery, &message);
    }
}

/// P-6: the outcome is the first one, and nothing else happens.
fn again(machine: &mut Machine, model: &mut Model, which: &Index) {
    let now = model.now.max(machine.now);
    // What was asked more than a day ago is forgotten.
    let mut seen = BTreeSet::new();
    let first_times = machine.log.iter().filter(|command| seen.insert(command.request.clone()));
    let known: Vec<_> = first_times.filter(|command| command.at_ms + DEDUP_MS > now).collect();
    if known.is_empty() {
        return;
    }
    model.pass(machine.now);
    let mut earlier = (*which.get(&known)).clone();
    // Rows that remember what was asked, or what has changed, may go in the meantime, by time and not by this.
    let rows = |machine: &Machine| {
        let remembers = [Table::Dedup, Table::DedupByExpiry, Table::Transfers, Table::TransfersByExpiry, Table::Tail];
        let mut rows = machine.store.clone();
        for (key, _) in machine.store.rows() {
            let table = Key::decode(key.as_ref()).unwrap().table();
            if table == Table::Shard || remembers.contains(&table) {
                rows.remove(key);
            }
        }
        rows
    };
    let before = rows(machine);
    earlier.at_ms = machine.now;
    // Other random bits must not matter either.
    earlier.entropy = Bytes::from_static(&[0xee; 16]);
    let applied = machine.run(earlier);
    assert!(applied.touched.is_empty());
    assert_eq!(applied.changes, 0);
    assert_eq!(rows(machine), before);
}

fn concrete(step: &Step, machine: &Machine, model: &Model) -> Op {
    let message = |mail: &Mail| new_message(mail, machine, model);
    match step {
        Step::Accept { to, mail } => harness::accept(to, message(mail)),
        Step::Send { from, to, outside, wait_ms, mail, answers } => {
            let mut recipients = harness::recipients(to);
            recipients.extend(outside.iter().map(|n| crate::outside::outside(OUTSIDE[usize::from(*n)])));
            let now = model.now.max(machine.now);
            let not_before_ms = if *wait_ms == 0 { 0 } else { now + wait_ms };
            Op::Send(pb::Send {
                user_id: user(*from).to_bytes(),
                // Mail that is on its way, and at its recipients, keeps it when the account goes.
                mail_from: format!("sender{from}@test.example"),
                recipients,
                message: Some(message(mail)),
                answered: answers.map(|pick| email_of(*from, &pick, model).to_bytes()).unwrap_or_default(),
                options: Some(pb::SendOptions { not_before_ms, ..Default::default() }),
                ..Default::default()
            })
        }
        Step::Cancel { from, entry } => {
            Op::CancelSend(pb::CancelSend { user_id: user(*from).to_bytes(), entry: entry_of(entry, model) })
        }
        Step::SettleOutside { entry, results, report } => Op::Settle(pb::Settle {
            entry: entry_of(entry, model),
            results: results
                .iter()
                .map(|(n, settlement, destination, reported)| pb::RecipientResult {
                    address: OUTSIDE[usize::from(*n)].to_owned(),
                    settlement: Settlement::try_from(i32::from(*settlement)).unwrap().into(),
                    reason: "tried".to_owned(),
                    reply: "450 later".to_owned(),
                    destination: *destination,
                    reported: *reported,
                    ..Default::default()
                })
                .collect(),
            retry_ms: 1000,
            report: report.as_ref().map(message),
        }),
        Step::Manage { entry, outside, action, failed } => Op::ManageQueue(pb::ManageQueue {
            entry: entry_of(entry, model),
            addresses: outside.iter().map(|n| OUTSIDE[usize::from(*n)].to_owned()).collect(),
            action: i32::from(*action),
            failed: *failed,
            by: "ops".to_owned(),
            why: "why".to_owned(),
            route: if *action == 6 { "relay.example".to_owned() } else { String::new() },
            ..Default::default()
        }),
        Step::Deliver { to, mail, transfer, ages_ms: (lease_ms, undelivered_ms) } => {
            // One request per user and transfer, as the hash of an entry and a user is.
            let targets: Vec<_> = to.iter().map(|n| (*n, transfer_request(*n, *transfer))).collect();
            let now = model.now.max(machine.now);
            let mut op = harness::deliver_leased(now - lease_ms, &targets, message(mail));
            if let Op::Deliver(deliver) = &mut op {
                deliver.targets.iter_mut().for_each(|target| target.undelivered_ms = now - undelivered_ms);
            }
            op
        }
        Step::Update { of, changes } => harness::update(*of, updates(*of, changes, model)),
        Step::CreateFolder { of, name } => harness::create_folder(*of, &format!("own {name}")),
        Step::UpdateFolder { of, folder, name } => Op::UpdateFolder(pb::UpdateFolder {
            user_id: user(*of).to_bytes(),
            folder_id: folder_of(*of, folder, model).0,
            name: format!("own {name}"),
        }),
        Step::DeleteFolder { of, folder } => harness::delete_folder(*of, folder_of(*of, folder, model)),
        Step::CreateLabel { of, name, color } => harness::create_label(*of, &format!("label {name}"), *color),
        Step::UpdateLabel { of, label, name, color } => Op::UpdateLabel(pb::UpdateLabel {
            user_id: user(*of).to_bytes(),
            label_id: label_of(*of, label, model).0,
            name: name.map(|name| format!("label {name}")),
            color: *color,
        }),
        Step::DeleteLabel { of, label } => harness::delete_label(*of, label_of(*of, label, model)),
        Step::Settle { entry, results, retry_ms } => {
            Op::Settle(pb::Settle {
                entry: entry_of(entry, model),
                results: results
                    .iter()
                    .map(|(n, settlement)| pb::RecipientResult {
                        user_id: user(*n).to_bytes(),
                        settlement: Settlement::try_from(i32::from(*settlement)).unwrap().into(),
                        reason: "tried".to_owned(),
                        // Two shards in which the others live.
                        shard: 1001 + u32::from(*n % 2),
                        ..Default::default()
                    })
                    .collect(),
                retry_ms: *retry_ms,
                ..Default::default()
            })
        }
        Step::Forget { transfer, age_ms } => Op::Forget(pb::Forget {
            requests: (1..=EVERYBODY).map(|n| Bytes::copy_from_slice(&transfer_request(n, *transfer).0)).collect(),
            leased_ms: model.now.max(machine.now) - age_ms,
        }),
        Step::End { part } => end(*part, model),
        Step::Again { .. } => unreachable!("is carried out by itself"),
    }
}

/// A part of the end of an account.
pub(crate) fn end(part: u8, model: &Model) -> Op {
    let user_id = user(DOOMED).to_bytes();
    match part {
        0 => Op::DeleteAccount(pb::DeleteAccount { user_id, verified: Bytes::new() }),
        1 => Op::DrainAccount(pb::DrainAccount { user_id }),
        2 => {
            let entries = model.queue.keys().chain(model.failed.keys()).copied().collect();
            Op::DropRecipient(pb::DropRecipient { user_id, entries })
        }
        _ => Op::FinishDeletion(pb::FinishDeletion { user_id }),
    }
}

/// Takes the deletion to its end, as a shard's leader does.
pub(crate) fn end_all(machine: &mut Machine, model: &mut Model) {
    for part in 0..4 {
        let op = end(part, model);
        carry_out(machine, model, op);
    }
}

fn transfer_request(n: u8, transfer: u8) -> postrider_api::id::RequestId {
    request((1 << 40) + u64::from(transfer) * 256 + u64::from(n))
}

fn new_message(mail: &Mail, machine: &Machine, model: &Model) -> pb::NewMessage {
    let references: Vec<_> = mail.references.iter().map(|n| hash(*n)).collect();
    let own = (mail.own != 0).then(|| hash(mail.own));
    let mut message = harness::message(machine.log.len() as u32, own, &references);
    if let Some(old) = mail.old_body.filter(|_| !model.texts.is_empty()) {
        let bodies: Vec<_> = model.texts.iter().collect();
        let (body_id, text) = old.get(&bodies);
        let body = message.body.as_mut().unwrap();
        body.body_id = (*body_id).clone();
        body.text = (*text).clone();
        body.text_length = text.len() as u64;
    }
    message
}

/// An entry in which somebody waits or was given up; mostly there is one.
fn entry_of(pick: &Index, model: &Model) -> u64 {
    let mut entries: Vec<u64> = model.queue.keys().chain(model.failed.keys()).copied().collect();
    entries.sort_unstable();
    if entries.is_empty() { 1_000_000 } else { *pick.get(&entries) }
}

fn folder_of(of: u8, pick: &Index, model: &Model) -> FolderId {
    let folders: Vec<FolderId> = model.mailboxes[&user(of)].folders.keys().copied().collect();
    *pick.get(&folders)
}

/// One of a user's labels; mostly there is one.
fn label_of(of: u8, pick: &Index, model: &Model) -> LabelId {
    let labels: Vec<LabelId> = model.mailboxes[&user(of)].labels.keys().copied().collect();
    if labels.is_empty() { LabelId(1) } else { *pick.get(&labels) }
}

fn email_of(of: u8, pick: &Index, model: &Model) -> EmailId {
    match model.mailboxes.get(&user(of)).map(|mailbox| &mailbox.messages) {
        Some(messages) if !messages.is_empty() => pick.get(messages).id,
        // Refused, and a refusal must leave nothing behind.
        _ => EmailId([9; 16]),
    }
}

fn updates(of: u8, changes: &[Change], model: &Model) -> Vec<pb::MessageUpdate> {
    let labels = |picks: &[Index]| -> Vec<u32> { picks.iter().map(|pick| label_of(of, pick, model).0).collect() };
    let update = |change: &Change| pb::MessageUpdate {
        email_id: email_of(of, &change.pick, model).to_bytes(),
        keywords_add: change.keywords.0,
        keywords_remove: change.keywords.1,
        folder_id: change.folder.map(|folder| folder_of(of, &folder, model).0),
        delete: change.delete,
        labels_add: labels(&change.labels.0),
        labels_remove: labels(&change.labels.1),
    };
    changes.iter().map(update).collect()
}
