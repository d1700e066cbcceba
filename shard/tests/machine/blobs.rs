//! P-11 in one shard: what is counted is what refers, whatever happens; what is condemned nobody refers to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use postrider_api::id::{BlobHash, EmailId, RequestId, UserId};
use postrider_api::limit::PIN_MS;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Refusal, Settlement};
use postrider_shard::key::{Key, KeyRange, Table};
use postrider_shard::store::{Direction, Reader};
use postrider_shard::{ARCHIVE, INBOX};
use prost::Message;

use crate::harness::{self, Machine, accept, create_folder, delete, delete_folder, move_to, request, update, user};

const BLOBS: u8 = 12;
const HERE: u8 = 3;

pub(crate) fn blob(n: u8) -> pb::BlobRef {
    let hash = BlobHash::of(&[n]);
    pb::BlobRef { hash: Bytes::copy_from_slice(&hash.0), bytes: 200_000 + u64::from(n) }
}

/// A message with these files cut out of it.
pub(crate) fn with_blobs(n: u32, blobs: &[u8]) -> pb::NewMessage {
    let mut message = harness::message(n, None, &[]);
    for blob in blobs.iter().map(|n| self::blob(*n)) {
        message.parts.push(pb::Part { is_attachment: true, blob: blob.hash.clone(), ..Default::default() });
        message.pieces.push(pb::Piece { blob: blob.hash, blob_length: blob.bytes, ..Default::default() });
    }
    message
}

pub(crate) fn pin(request: RequestId, blobs: &[u8]) -> Op {
    Op::PinBlobs(pb::PinBlobs { request: request.to_bytes(), blobs: refs(blobs), ..Default::default() })
}

fn refs(blobs: &[u8]) -> Vec<pb::BlobRef> {
    let mut refs: Vec<pb::BlobRef> = blobs.iter().map(|n| blob(*n)).collect();
    refs.sort_by(|a, b| a.hash.cmp(&b.hash));
    refs.dedup();
    refs
}

fn hashes(blobs: &[u8]) -> Vec<Bytes> {
    refs(blobs).into_iter().map(|blob| blob.hash).collect()
}

fn condemn(batch: u64, blobs: &[u8]) -> Op {
    Op::CondemnBlobs(pb::CondemnBlobs { batch, blobs: hashes(blobs) })
}

fn pardon(batch: u64, blobs: &[u8]) -> Op {
    Op::PardonBlobs(pb::PardonBlobs { batch, blobs: hashes(blobs) })
}

/// Runs an op under a request id.
fn under(machine: &mut Machine, request: RequestId, op: Op) -> Made {
    let mut command = machine.command(op);
    command.request = request.to_bytes();
    machine.run(command).outcome.result.unwrap()
}

fn refusal(made: &Made) -> Option<Refusal> {
    match made {
        Made::Refused(refused) => Some(refused.refusal()),
        _ => None,
    }
}

fn kept(made: Made) -> Vec<Bytes> {
    match made {
        Made::BlobsCondemned(condemned) => condemned.kept,
        other => panic!("{other:?}"),
    }
}

fn listed(machine: &Machine) -> BTreeMap<Bytes, (u64, u64)> {
    let mut rows = BTreeMap::new();
    let mut after = Bytes::new();
    loop {
        let ask = Ask::ListBlobs(pb::ListBlobs { after, until: Bytes::new(), limit: 5 });
        let Answer::Blobs(page) = machine.ask(ask) else { panic!("a page was wanted") };
        rows.extend(page.blobs.iter().map(|row| {
            let blob = row.blob.unwrap();
            (row.hash.clone(), (blob.references, blob.pins))
        }));
        match page.blobs.last() {
            Some(last) if page.more => after = last.hash.clone(),
            _ => return rows,
        }
    }
}

/// What the shard says that it refers to.
fn referred(machine: &Machine) -> BTreeMap<Bytes, u64> {
    let rows = listed(machine).into_iter().map(|(hash, (references, _))| (hash, references));
    rows.filter(|(_, references)| *references > 0).collect()
}

#[test]
fn a_message_needs_its_blobs_pinned() {
    let mut machine = Machine::with_users(2);
    let refused = under(&mut machine, request(1), accept(&[1], with_blobs(1, &[1, 2])));
    assert_eq!(refusal(&refused), Some(Refusal::BlobsNotPinned));
    // The refusal is not remembered: with the blobs pinned, the same request is carried out.
    machine.done(pin(request(1), &[1, 2]));
    let made = under(&mut machine, request(1), accept(&[1, 2], with_blobs(1, &[1, 2])));
    assert!(matches!(made, Made::Accepted(_)), "{made:?}");
    assert_eq!(listed(&machine).into_values().collect::<Vec<_>>(), [(1, 0), (1, 0)], "the pin is let go of");
    // What is referred to here needs no pin, and none of another request helps.
    let made = under(&mut machine, request(2), accept(&[2], with_blobs(2, &[1])));
    assert!(matches!(made, Made::Accepted(_)), "{made:?}");
    machine.done(pin(request(3), &[3]));
    let refused = under(&mut machine, request(4), accept(&[1], with_blobs(3, &[3])));
    assert_eq!(refusal(&refused), Some(Refusal::BlobsNotPinned));
    machine.assert_verified();
}

#[test]
fn a_follower_learns_of_the_first_and_the_last_reference_alone() {
    let mut machine = Machine::with_users(2);
    let told = |machine: &Machine| {
        let rows = machine.store.scan(&KeyRange::table(Table::Tail), Direction::Forward);
        let records = rows.map(|row| pb::TailRecord::decode(row.unwrap().1).unwrap());
        let blobs = records.filter(|record| record.kind() == pb::TailKind::Blob);
        blobs.map(|record| (record.verb(), record.object)).collect::<Vec<_>>()
    };
    machine.done(pin(request(1), &[1]));
    assert_eq!(told(&machine), [], "a pin is no reference");
    under(&mut machine, request(1), accept(&[1, 2], with_blobs(1, &[1])));
    under(&mut machine, request(2), accept(&[1], with_blobs(2, &[1])));
    let created = (pb::TailVerb::Created, blob(1).hash);
    assert_eq!(told(&machine), std::slice::from_ref(&created));
    for of in [1, 2] {
        for row in machine.messages(of, INBOX) {
            machine.changed(update(of, vec![delete(&row.email_id)]));
            machine.changed(update(of, vec![delete(&row.email_id)]));
        }
    }
    assert_eq!(told(&machine), [created, (pb::TailVerb::Deleted, blob(1).hash)]);
    machine.assert_verified();
}

#[test]
fn a_refusal_lets_the_pin_go() {
    let mut machine = Machine::new(harness::MAILBOX);
    machine.changed(harness::create_account(1, 150));
    let mut large = with_blobs(1, &[1]);
    large.size = 1000;
    // Known before a byte is stored, where the pin says whose quota it will be.
    let mut asking = pb::PinBlobs { request: request(1).to_bytes(), blobs: refs(&[1]), ..Default::default() };
    (asking.user_id, asking.size) = (user(1).to_bytes(), 1000);
    assert_eq!(machine.refused(Op::PinBlobs(asking)).0, Refusal::QuotaExceeded);
    machine.done(pin(request(1), &[1]));
    let refused = under(&mut machine, request(1), accept(&[1], large));
    assert_eq!(refusal(&refused), Some(Refusal::QuotaExceeded));
    assert!(listed(&machine).is_empty());
    // And so does its writer, who will not come.
    machine.done(pin(request(2), &[1]));
    machine.done(Op::UnpinBlobs(pb::UnpinBlobs { request: request(2).to_bytes() }));
    assert!(listed(&machine).is_empty());
    machine.assert_verified();
}

#[test]
fn a_pin_ends_by_itself() {
    let mut machine = Machine::with_users(1);
    machine.done(pin(request(1), &[1]));
    machine.now += PIN_MS - 1;
    machine.apply(create_folder(1, "meanwhile"));
    assert_eq!(listed(&machine).len(), 1);
    machine.now += 10_001;
    machine.apply(create_folder(1, "later"));
    assert!(listed(&machine).is_empty());
    let refused = under(&mut machine, request(1), accept(&[1], with_blobs(1, &[1])));
    assert_eq!(refusal(&refused), Some(Refusal::BlobsNotPinned));
    machine.assert_verified();
}

#[test]
fn what_is_condemned_is_pinned_by_nobody_until_it_is_pardoned() {
    let mut machine = Machine::with_users(1);
    machine.done(pin(request(1), &[1]));
    machine.done(pin(request(2), &[2]));
    let made = under(&mut machine, request(2), accept(&[1], with_blobs(1, &[2])));
    assert!(matches!(made, Made::Accepted(_)));
    let made = machine.apply(condemn(1, &[1, 2, 3]));
    assert_eq!(kept(made), hashes(&[1, 2]), "a pin and a reference are kept");
    assert_eq!(machine.refused(pin(request(3), &[3])).0, Refusal::BlobCondemned);
    let refused = under(&mut machine, request(4), accept(&[1], with_blobs(2, &[3])));
    assert_eq!(refusal(&refused), Some(Refusal::BlobCondemned));
    let made = machine.apply(condemn(1, &[1, 2, 3]));
    assert_eq!(kept(made), hashes(&[1, 2]), "asked again, it says the same");
    machine.done(pardon(1, &[1, 2, 3]));
    // A driver that was overtaken comes late.
    assert_eq!(machine.refused(condemn(1, &[3])).0, Refusal::Conflict);
    machine.done(pin(request(3), &[3]));
    assert_eq!(kept(machine.apply(condemn(2, &[3]))), hashes(&[3]));
    machine.assert_verified();
}

#[test]
fn one_body_has_one_set_of_blobs() {
    let mut machine = Machine::with_users(1);
    machine.done(pin(request(1), &[1]));
    under(&mut machine, request(1), accept(&[1], with_blobs(1, &[1])));
    machine.done(pin(request(2), &[2]));
    let refused = under(&mut machine, request(2), accept(&[1], with_blobs(1, &[2])));
    assert_eq!(refusal(&refused), Some(Refusal::Conflict));
    // A blob has one length.
    let mut other = pb::PinBlobs { request: request(3).to_bytes(), blobs: refs(&[1]), ..Default::default() };
    other.blobs[0].bytes += 1;
    assert_eq!(machine.refused(Op::PinBlobs(other)).0, Refusal::Conflict);
    let mut torn = with_blobs(2, &[1]);
    torn.parts.last_mut().unwrap().blob = blob(5).hash;
    assert_eq!(machine.refused(accept(&[1], torn)).0, Refusal::Malformed);
    machine.assert_verified();
}

// --- the model test ---

/// A small generator: runs of a hundred thousand commands cannot wait for one that shrinks. The seed is in each failure.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn blobs(&mut self) -> Vec<u8> {
        (0..self.roll(4)).map(|_| self.roll(u64::from(BLOBS)) as u8).collect()
    }
}

/// What the test knows by itself: pins and condemnations. References it counts naively, from the messages that there are.
#[derive(Default)]
struct Model {
    pins: BTreeMap<RequestId, (BTreeSet<Bytes>, i64)>,
    condemned: BTreeSet<Bytes>,
    batch: u64,
    now: i64,
}

/// Different bodies that name each blob, by every row that holds a message.
fn naive(machine: &Machine) -> BTreeMap<Bytes, u64> {
    let mut bodies: BTreeMap<Bytes, BTreeSet<Bytes>> = BTreeMap::new();
    for (key, value) in machine.store.rows() {
        let message = match Key::decode(key.as_ref()).unwrap() {
            Key::Email(..) => {
                let email = pb::EmailRecord::decode(value.clone()).unwrap();
                Some((email.body_id, email.pieces))
            }
            Key::Queue(_) => pb::QueueRecord::decode(value.clone()).unwrap().message.map(parts_of),
            Key::Failed(_) => pb::FailedRecord::decode(value.clone()).unwrap().message.map(parts_of),
            _ => None,
        };
        if let Some((body, pieces)) = message {
            let blobs = pieces.into_iter().map(|piece| piece.blob).filter(|blob| !blob.is_empty());
            bodies.entry(body).or_default().extend(blobs);
        }
    }
    let mut counts = BTreeMap::new();
    for blob in bodies.into_values().flatten() {
        *counts.entry(blob).or_default() += 1;
    }
    counts
}

fn parts_of(message: pb::NewMessage) -> (Bytes, Vec<pb::Piece>) {
    (message.body.unwrap().body_id, message.pieces)
}

impl Model {
    fn compare(&self, machine: &Machine, place: &str) {
        let mut wanted: BTreeMap<Bytes, (u64, u64)> = BTreeMap::new();
        for (blob, count) in naive(machine) {
            assert!(!self.condemned.contains(&blob), "{place}: a condemned blob is referred to");
            wanted.entry(blob).or_default().0 = count;
        }
        for blob in self.pins.values().flat_map(|(blobs, _)| blobs) {
            wanted.entry(blob.clone()).or_default().1 += 1;
        }
        assert_eq!(listed(machine), wanted, "{place}");
    }

    /// Pins whose time is over go with the next command that looks for them.
    fn pass(&mut self, machine: &Machine) {
        self.now = self.now.max(machine.now);
        let state = machine_state(machine);
        self.pins.retain(|_, (_, expires)| *expires > state.pins_trimmed_ms);
    }

    fn is_refused(&self, request: RequestId, blobs: &[u8], references: &BTreeMap<Bytes, u64>) -> bool {
        let pinned = self.pins.get(&request).map(|(blobs, _)| blobs);
        refs(blobs).iter().any(|blob| {
            self.condemned.contains(&blob.hash)
                || (!references.contains_key(&blob.hash) && !pinned.is_some_and(|pinned| pinned.contains(&blob.hash)))
        })
    }
}

fn machine_state(machine: &Machine) -> pb::ShardRecord {
    match machine.ask(Ask::GetShardStats(pb::GetShardStats {})) {
        Answer::ShardStats(state) => state,
        other => panic!("{other:?}"),
    }
}

/// 100,000 commands in all (P-11).
#[test]
fn references_are_what_a_naive_count_says() {
    const RUNS: u64 = 100;
    const COMMANDS: u64 = 1000;
    std::thread::scope(|scope| {
        for first in 0..4 {
            scope.spawn(move || (first..RUNS).step_by(4).for_each(|seed| run(seed, COMMANDS)));
        }
    });
}

fn run(seed: u64, commands: u64) {
    let mut dice = Dice(seed);
    let mut machine = Machine::with_users(HERE);
    let mut model = Model::default();
    let mut made = [0u64; 12];
    for n in 0..commands {
        let place = format!("seed {seed}, command {n}");
        machine.now += match dice.roll(40) {
            0 => PIN_MS / 2,
            1 => -5000,
            _ => dice.roll(2000) as i64,
        };
        let verb = dice.roll(12);
        made[verb as usize] += u64::from(step(verb, n, &mut dice, &mut machine, &mut model, &place));
        model.pass(&machine);
        // A log need not be kept: that it is replayed is another test's.
        machine.log.clear();
        if n % 16 == 0 || n + 1 == commands {
            model.compare(&machine, &place);
        }
    }
    machine.assert_verified();
    assert!(made.iter().all(|count| *count > 0), "seed {seed}: some command was never carried out: {made:?}");
}

/// Whether it was carried out.
fn step(verb: u64, n: u64, dice: &mut Dice, machine: &mut Machine, model: &mut Model, place: &str) -> bool {
    let own = request(1_000_000 + n);
    match verb {
        // Most writers do what they should: they pin first.
        0..=3 => {
            let blobs = dice.blobs();
            let skips = dice.roll(5) == 0;
            if !blobs.is_empty() && !skips {
                let pinned = machine.apply(pin(own, &blobs));
                let is_condemned = hashes(&blobs).iter().any(|hash| model.condemned.contains(hash));
                assert_eq!(refusal(&pinned) == Some(Refusal::BlobCondemned), is_condemned, "{place}: {pinned:?}");
                model.pass(machine);
                if pinned == Made::Done(pb::Done {}) {
                    model.pins.insert(own, (hashes(&blobs).into_iter().collect(), model.now + PIN_MS));
                }
                // It may die here.
                if dice.roll(8) == 0 {
                    return true;
                }
            }
            let message = with_blobs(n as u32, &blobs);
            let to: Vec<u8> = (0..=dice.roll(3)).map(|_| dice.roll(5) as u8 + 1).collect();
            let op = match verb {
                0 | 1 => accept(&to, message),
                2 => Op::Send(pb::Send {
                    user_id: user(1).to_bytes(),
                    mail_from: "user1@test.example".to_owned(),
                    recipients: harness::recipients(&to),
                    message: Some(message),
                    ..Default::default()
                }),
                _ => {
                    let transfer = |to: &u8| (*to, request((1 << 40) + n * 256 + u64::from(*to)));
                    let targets: BTreeSet<_> = to.iter().map(transfer).collect();
                    harness::deliver_leased(
                        model.now.max(machine.now),
                        &targets.into_iter().collect::<Vec<_>>(),
                        message,
                    )
                }
            };
            let is_refused = model.is_refused(own, &blobs, &referred(machine));
            let made = under(machine, own, op);
            assert_eq!(refusal(&made).is_some(), is_refused, "{place}: {made:?}");
            model.pins.remove(&own);
            !is_refused
        }
        4..=6 => {
            let of = dice.roll(u64::from(HERE)) as u8 + 1;
            let Some(email) = any_email(dice, machine, of) else { return false };
            let change = if verb == 4 { move_to(&email, ARCHIVE) } else { delete(&email) };
            !matches!(machine.apply(update(of, vec![change])), Made::Refused(_))
        }
        7 => {
            let Some(entry) = any_entry(dice, machine) else { return false };
            let settlement = [Settlement::Delivered, Settlement::Failed, Settlement::Held][dice.roll(3) as usize];
            let everybody: Vec<_> = (1..=5).map(|n| (n, settlement)).collect();
            let some = &everybody[dice.roll(5) as usize..];
            machine.done(crate::queue::settle(entry, some, 1000));
            true
        }
        8 => {
            let of = dice.roll(u64::from(HERE)) as u8 + 1;
            let folder = machine.folders(of).last().unwrap().clone();
            let op = match folder.role() {
                pb::FolderRole::None => delete_folder(of, postrider_api::id::FolderId(folder.folder_id)),
                _ => create_folder(of, "own"),
            };
            !matches!(machine.apply(op), Made::Refused(_))
        }
        9 => {
            let Some(request) = model.pins.keys().next().copied() else { return false };
            machine.done(Op::UnpinBlobs(pb::UnpinBlobs { request: request.to_bytes() }));
            model.pins.remove(&request);
            true
        }
        10 => {
            let blobs = dice.blobs();
            let references = referred(machine);
            // The command's own time may end pins.
            machine.apply(create_folder(1, "own"));
            model.pass(machine);
            let made = kept(machine.apply(condemn(model.batch + 1, &blobs)));
            let is_pinned = |hash: &Bytes| model.pins.values().any(|(blobs, _)| blobs.contains(hash));
            let (wanted, condemned): (Vec<_>, Vec<_>) =
                hashes(&blobs).into_iter().partition(|hash| references.contains_key(hash) || is_pinned(hash));
            assert_eq!(made, wanted, "{place}");
            model.condemned.extend(condemned);
            true
        }
        _ => {
            let all: Vec<u8> = (0..BLOBS).collect();
            machine.done(pardon(model.batch + 1, &all));
            model.batch += 1;
            model.condemned.clear();
            true
        }
    }
}

fn any_email(dice: &mut Dice, machine: &Machine, of: u8) -> Option<Bytes> {
    let owner = user(of);
    let is_his = |key: &Key| matches!(key, Key::Email(user, _) if *user == owner);
    let keys = machine.store.rows().map(|(key, _)| Key::decode(key.as_ref()).unwrap());
    let emails: Vec<(UserId, EmailId)> = keys
        .filter(is_his)
        .filter_map(|key| match key {
            Key::Email(user, email) => Some((user, email)),
            _ => None,
        })
        .collect();
    let pick = dice.roll(emails.len().max(1) as u64) as usize;
    let inbox = machine.messages(of, INBOX);
    emails.get(pick).map(|(_, email)| email.to_bytes()).or_else(|| inbox.first().map(|row| row.email_id.clone()))
}

fn any_entry(dice: &mut Dice, machine: &Machine) -> Option<u64> {
    let keys = machine.store.rows().map(|(key, _)| Key::decode(key.as_ref()).unwrap());
    let entries: Vec<u64> = keys
        .filter_map(|key| match key {
            Key::Queue(entry) => Some(entry.0),
            _ => None,
        })
        .collect();
    entries.get(dice.roll(entries.len().max(1) as u64) as usize).copied()
}
