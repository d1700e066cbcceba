//! Random runs: abstract steps, made into commands for what the shard holds at that moment.

use bytes::Bytes;
use postrider_api::id::{EmailId, FolderId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, Settlement};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::harness::{self, Machine, create_account, hash, request, user};
use crate::model::Model;

/// Users 1 to HERE live in the shard; those up to EVERYBODY do not.
pub(crate) const HERE: u8 = 3;
pub(crate) const EVERYBODY: u8 = 5;

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
    is_read: Option<bool>,
    is_flagged: Option<bool>,
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
        mail: Mail,
    },
    Deliver {
        to: Vec<u8>,
        mail: Mail,
        transfer: u8,
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
    Settle {
        entry: Index,
        results: Vec<(u8, u8)>,
        in_ms: i64,
    },
    Forget {
        transfer: u8,
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
        proptest::option::of(any::<bool>()),
        proptest::option::weighted(0.3, any::<bool>()),
        proptest::option::weighted(0.3, any::<Index>()),
        proptest::bool::weighted(0.3),
    )
        .prop_map(|(pick, is_read, is_flagged, folder, delete)| {
            let folder = folder.filter(|_| !delete);
            Change { pick, is_read, is_flagged, folder, delete }
        })
}

pub(crate) fn step() -> impl Strategy<Value = (Step, i64)> {
    let to = || proptest::collection::vec(1..=EVERYBODY, 1..5);
    let of = || 1..=HERE;
    let step = prop_oneof![
        8 => (to(), mail()).prop_map(|(to, mail)| Step::Accept { to, mail }),
        2 => (of(), to(), mail()).prop_map(|(from, to, mail)| Step::Send { from, to, mail }),
        3 => (to(), mail(), 0u8..6).prop_map(|(to, mail, transfer)| Step::Deliver { to, mail, transfer }),
        6 => (of(), proptest::collection::vec(change(), 1..6)).prop_map(|(of, changes)| Step::Update { of, changes }),
        1 => (of(), 0u8..6).prop_map(|(of, name)| Step::CreateFolder { of, name }),
        1 => (of(), any::<Index>(), 0u8..6).prop_map(|(of, folder, name)| Step::UpdateFolder { of, folder, name }),
        1 => (of(), any::<Index>()).prop_map(|(of, folder)| Step::DeleteFolder { of, folder }),
        2 => (any::<Index>(), proptest::collection::vec((1..=EVERYBODY, 1u8..4), 0..4), -1000i64..100_000)
            .prop_map(|(entry, results, in_ms)| Step::Settle { entry, results, in_ms }),
        1 => (0u8..6).prop_map(|transfer| Step::Forget { transfer }),
        1 => any::<Index>().prop_map(|which| Step::Again { which }),
    ];
    // The leader's clock runs, stands still, and goes back now and then.
    (step, prop_oneof![4 => 0i64..20_000, 2 => Just(0i64), 1 => -5_000i64..0])
}

/// A shard with its model, run through `steps`.
pub(crate) fn run(steps: &[(Step, i64)], mut after: impl FnMut(&Machine, &Model)) -> (Machine, Model) {
    let mut machine = Machine::new(harness::MAILBOX);
    let mut model = Model::default();
    for n in 1..=HERE {
        carry_out(&mut machine, &mut model, create_account(n, u64::MAX / 2));
    }
    for (step, tick) in steps {
        machine.now += tick;
        if let Step::Again { which } = step {
            again(&mut machine, which);
            model.now = model.now.max(machine.now);
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
}

/// P-6: the outcome is the first one, and nothing else happens.
fn again(machine: &mut Machine, which: &Index) {
    let mut earlier = which.get(&machine.log).clone();
    let rows = |machine: &Machine| {
        let mut rows = machine.store.clone();
        rows.remove(&postrider_shard::key::Key::Shard.bytes());
        rows
    };
    let before = rows(machine);
    earlier.at_ms = machine.now;
    // Other random bits must not matter either.
    earlier.entropy = Bytes::from_static(&[0xee; 16]);
    let applied = machine.run(earlier);
    assert!(applied.touched.is_empty());
    assert_eq!(rows(machine), before);
}

fn concrete(step: &Step, machine: &Machine, model: &Model) -> Op {
    let message = |mail: &Mail| new_message(mail, machine, model);
    match step {
        Step::Accept { to, mail } => harness::accept(to, message(mail)),
        Step::Send { from, to, mail } => Op::Send(pb::Send {
            user_id: user(*from).to_bytes(),
            mail_from: format!("user{from}@test.example"),
            recipients: harness::recipients(to),
            message: Some(message(mail)),
        }),
        Step::Deliver { to, mail, transfer } => {
            // One request per user and transfer, as the hash of an entry and a user is.
            let targets: Vec<_> = to.iter().map(|n| (*n, transfer_request(*n, *transfer))).collect();
            harness::deliver(&targets, message(mail))
        }
        Step::Update { of, changes } => harness::update(*of, updates(*of, changes, model)),
        Step::CreateFolder { of, name } => harness::create_folder(*of, &format!("own {name}")),
        Step::UpdateFolder { of, folder, name } => Op::UpdateFolder(pb::UpdateFolder {
            user_id: user(*of).to_bytes(),
            folder_id: folder_of(*of, folder, model).0,
            name: format!("own {name}"),
        }),
        Step::DeleteFolder { of, folder } => harness::delete_folder(*of, folder_of(*of, folder, model)),
        Step::Settle { entry, results, in_ms } => {
            let entries: Vec<u64> = model.queue.keys().copied().collect();
            Op::Settle(pb::Settle {
                entry: if entries.is_empty() { 1_000_000 } else { *entry.get(&entries) },
                results: results
                    .iter()
                    .map(|(n, settlement)| pb::RecipientResult {
                        user_id: user(*n).to_bytes(),
                        settlement: Settlement::try_from(i32::from(*settlement)).unwrap().into(),
                        reason: "tried".to_owned(),
                    })
                    .collect(),
                due_ms: machine.now + in_ms,
            })
        }
        Step::Forget { transfer } => Op::Forget(pb::Forget {
            requests: (1..=EVERYBODY).map(|n| Bytes::copy_from_slice(&transfer_request(n, *transfer).0)).collect(),
        }),
        Step::Again { .. } => unreachable!("is carried out by itself"),
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

fn folder_of(of: u8, pick: &Index, model: &Model) -> FolderId {
    let folders: Vec<FolderId> = model.mailboxes[&user(of)].folders.keys().copied().collect();
    *pick.get(&folders)
}

fn updates(of: u8, changes: &[Change], model: &Model) -> Vec<pb::MessageUpdate> {
    let messages = &model.mailboxes[&user(of)].messages;
    changes
        .iter()
        .map(|change| {
            let email = match messages.is_empty() {
                // Refused, and a refusal must leave nothing behind.
                true => EmailId([9; 16]),
                false => change.pick.get(messages).id,
            };
            pb::MessageUpdate {
                email_id: email.to_bytes(),
                is_read: change.is_read,
                is_flagged: change.is_flagged,
                folder_id: change.folder.map(|folder| folder_of(of, &folder, model).0),
                delete: change.delete,
            }
        })
        .collect()
}
