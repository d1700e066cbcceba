//! Threads: orders, limits, names.

use bytes::Bytes;
use postrider_api::id::{EmailId, MessageIdHash, ThreadId};
use postrider_api::limit::{HEADER_ADDRESSES_MAX, LIST_ADDRESSES_MAX, REPLY_BYTES_MAX};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, ChangeKind};
use postrider_shard::key::{Key, KeyBytes, KeyRange, Table};
use postrider_shard::store::{Direction, MemoryStore, Reader, StoreError};
use postrider_shard::{INBOX, MERGED_BYTES_MAX, THREAD_MEMBERS_MAX};
use proptest::prelude::*;
use prost::Message;

use crate::harness::{MAILBOX, Machine, accept, delete, hash, message, update, user};

/// Delivers to user 1 and gives the message's id and thread.
fn arrive(machine: &mut Machine, n: u32, own: u32, references: &[u32]) -> (Bytes, Bytes) {
    let references: Vec<MessageIdHash> = references.iter().map(|n| hash(*n)).collect();
    let made = machine.accepted(accept(&[1], message(n, (own != 0).then(|| hash(own)), &references)));
    (made.deliveries[0].email_id.clone(), made.deliveries[0].thread_id.clone())
}

fn thread_of(machine: &Machine, email: &Bytes) -> Bytes {
    machine.message(1, email).unwrap().thread_id
}

fn thread_page(machine: &Machine, n: u8, thread_id: &Bytes, after: Bytes) -> pb::Thread {
    let ask = pb::GetThread { user_id: user(n).to_bytes(), thread_id: thread_id.clone(), after };
    match machine.ask(Ask::GetThread(ask)) {
        Answer::Thread(thread) => thread,
        other => panic!("{other:?}"),
    }
}

/// A thread that fits into one page.
pub(crate) fn thread(machine: &Machine, n: u8, thread_id: &Bytes) -> pb::Thread {
    let thread = thread_page(machine, n, thread_id, Bytes::new());
    assert!(!thread.more);
    thread
}

#[test]
fn a_thread_is_named_after_its_first_message_and_the_larger_keeps_its_name() {
    let mut machine = Machine::with_users(1);
    let (first, a) = arrive(&mut machine, 1, 1, &[]);
    assert_eq!(ThreadId::try_from(&a).unwrap(), EmailId::try_from(&first).unwrap().into());
    let (_, same) = arrive(&mut machine, 2, 2, &[1]);
    assert_eq!(same, a);
    let (alone, b) = arrive(&mut machine, 3, 3, &[9]);
    assert_ne!(b, a);
    let before = machine.account(1).modseq;
    // It answers both: one thread, under the larger's name, and the other's message has changed.
    let (_, joined) = arrive(&mut machine, 4, 4, &[1, 9]);
    assert_eq!(joined, a);
    assert_eq!(thread_of(&machine, &alone), a);
    let changes = machine.changes(1, before, 10).unwrap().changes;
    let kinds: Vec<_> = changes.iter().map(|change| change.change.as_ref().unwrap().kind()).collect();
    assert_eq!(kinds, [ChangeKind::MessageUpdated, ChangeKind::MessageCreated]);
    assert_eq!(changes[0].change.as_ref().unwrap().email_id, alone);
    let thread = thread(&machine, 1, &a);
    let parents: Vec<&Bytes> = thread.messages.iter().map(|message| &message.parent_email_id).collect();
    // The last says that what the third answers, and is not here, answers the first.
    assert_eq!(parents, [&Bytes::new(), &first, &first, &first]);
    machine.assert_verified();
}

#[test]
fn ids_are_released_with_the_last_who_mentions_them() {
    let mut machine = Machine::with_users(1);
    let (a, thread) = arrive(&mut machine, 1, 1, &[]);
    let (b, _) = arrive(&mut machine, 2, 2, &[1]);
    machine.changed(update(1, vec![delete(&a)]));
    machine.changed(update(1, vec![delete(&a)]));
    // The reply still knows its parent's id.
    let (c, same) = arrive(&mut machine, 3, 1, &[]);
    assert_eq!(same, thread);
    machine.changed(update(1, vec![delete(&b), delete(&c)]));
    machine.changed(update(1, vec![delete(&b), delete(&c)]));
    let (_, other) = arrive(&mut machine, 4, 1, &[]);
    assert_ne!(other, thread);
    machine.assert_verified();
}

#[test]
fn a_thread_is_bounded_and_the_next_goes_on() {
    let mut machine = Machine::with_users(1);
    let total = 2 * THREAD_MEMBERS_MAX + 10;
    let mut threads: Vec<Bytes> = Vec::new();
    for n in 0..total as u32 {
        // Every message answers the same first one.
        threads.push(arrive(&mut machine, n, 100 + n, &[1]).1);
    }
    let mut names: Vec<&Bytes> = threads.iter().collect();
    names.dedup();
    assert_eq!(names.len(), 3, "full threads follow one another");
    assert!(threads[..THREAD_MEMBERS_MAX].iter().all(|thread| *thread == threads[0]));
    assert_eq!(thread(&machine, 1, &threads[0]).messages.len(), THREAD_MEMBERS_MAX);
    machine.assert_verified();
    // Somebody answers a message of the first, full thread: he stands in the newest.
    let (_, answer) = arrive(&mut machine, 5000, 5000, &[100, 1]);
    assert_eq!(answer, *threads.last().unwrap());
    machine.assert_verified();
    // An operator still finds a message of the first by its id.
    let wanted = Bytes::copy_from_slice(&hash(100).0);
    let ask = pb::FindMessageId { message_id_hash: wanted, limit: 10, ..Default::default() };
    let Answer::FoundMessages(found) = machine.ask(Ask::FindMessageId(ask)) else { panic!("messages were wanted") };
    assert_eq!(found.messages.len(), 1);
    // The newest thread goes altogether, while the full ones still mention the id: who mentions it next begins anew.
    let newest: Vec<Bytes> =
        machine.messages(1, INBOX).into_iter().filter(|row| row.thread_id == answer).map(|row| row.email_id).collect();
    assert_eq!(newest.len(), 11);
    for _ in 0..2 {
        machine.changed(update(1, newest.iter().map(delete).collect()));
    }
    machine.assert_verified();
    let (email, anew) = arrive(&mut machine, 6000, 6000, &[1]);
    assert_eq!(ThreadId::try_from(&anew).unwrap(), EmailId::try_from(&email).unwrap().into());
    assert_eq!(arrive(&mut machine, 6001, 6001, &[1]).1, anew);
    machine.assert_verified();
}

#[test]
fn two_threads_that_are_too_large_together_stay_apart() {
    let mut machine = Machine::with_users(1);
    for n in 0..600 {
        arrive(&mut machine, n, 1000 + n, &[1]);
        arrive(&mut machine, 1000 + n, 3000 + n, &[2]);
    }
    let (_, both) = arrive(&mut machine, 9000, 9000, &[1, 2]);
    let threads = |machine: &Machine| {
        let ask = pb::ListThreads { user_id: user(1).to_bytes(), folder_id: INBOX.0, limit: 10, ..Default::default() };
        let Answer::Threads(page) = machine.ask(Ask::ListThreads(ask)) else { panic!("a page was wanted") };
        page.rows.iter().map(|row| (row.thread_id.clone(), row.messages)).collect::<Vec<_>>()
    };
    let rows = threads(&machine);
    assert_eq!(rows.iter().map(|(_, messages)| *messages).collect::<Vec<_>>(), [601, 600]);
    assert_eq!(rows[0].0, both);
    machine.assert_verified();
    arrive(&mut machine, 9001, 9001, &[2]);
    arrive(&mut machine, 9002, 9002, &[3001]);
    machine.assert_verified();
}

/// Delivers a message whose row has that many bytes and some more, and gives its thread.
fn arrive_large(machine: &mut Machine, n: u32, own: u32, reference: u32, bytes: usize) -> Bytes {
    let mut large = message(n, Some(hash(own)), &[hash(reference)]);
    large.parts[0].filename = "x".repeat(bytes);
    machine.accepted(accept(&[1], large)).deliveries[0].thread_id.clone()
}

/// P-13: a thousand rows are no bound where each may be as large as a command.
#[test]
fn a_command_moves_a_bounded_number_of_bytes_between_threads() {
    const LARGE: usize = 256 * 1024;
    let mut machine = Machine::with_users(1);
    let mut many = Bytes::new();
    for n in 0..40 {
        many = arrive(&mut machine, n, 1000 + n, &[1]).1;
    }
    let mut heavy = Bytes::new();
    let heavy_messages = (MERGED_BYTES_MAX / LARGE) as u32 + 1;
    for n in 0..heavy_messages {
        heavy = arrive_large(&mut machine, 100 + n, 2000 + n, 2, LARGE);
    }
    let (_, light) = arrive(&mut machine, 200, 3000, &[3]);
    // The largest number of messages keeps its name; the heavy one is next, and what it costs to look at it is spent.
    let before = machine.account(1).modseq;
    let (_, joined) = arrive(&mut machine, 300, 4000, &[1, 2, 3]);
    assert_eq!(joined, many);
    assert_eq!(machine.account(1).modseq, before + 1, "no other message has changed");
    assert_eq!(thread(&machine, 1, &many).messages.len(), 41);
    assert_eq!(thread(&machine, 1, &heavy).messages.len(), heavy_messages as usize);
    assert_eq!(thread(&machine, 1, &light).messages.len(), 1);
    machine.assert_verified();
    // What is light is moved by the next command: its own id still leads there.
    let (_, joined) = arrive(&mut machine, 301, 4001, &[1, 3000]);
    assert_eq!(joined, many);
    assert_eq!(thread(&machine, 1, &many).messages.len(), 43);
    machine.assert_verified();
    // One message fewer, and the heavy one fits.
    let mut machine = Machine::with_users(1);
    for n in 0..heavy_messages - 2 {
        arrive_large(&mut machine, 100 + n, 2000 + n, 2, LARGE);
    }
    for n in 0..40 {
        arrive(&mut machine, n, 1000 + n, &[1]);
    }
    let (_, joined) = arrive(&mut machine, 300, 4000, &[1, 2]);
    assert_eq!(thread(&machine, 1, &joined).messages.len(), 41 + heavy_messages as usize - 2);
    machine.assert_verified();
}

fn people(count: usize) -> Vec<pb::Mailbox> {
    let person = |n| pb::Mailbox { name: format!("{n:0>255}"), email: format!("{n:0>254}") };
    (0..count).map(person).collect()
}

#[test]
fn a_line_of_a_list_has_the_first_addresses() {
    let mut machine = Machine::with_users(1);
    let mut large = message(1, None, &[]);
    let envelope = large.envelope.as_mut().unwrap();
    (envelope.from, envelope.to) = (people(HEADER_ADDRESSES_MAX), people(HEADER_ADDRESSES_MAX));
    let email = machine.accepted(accept(&[1], large)).deliveries[0].email_id.clone();
    let row = &machine.messages(1, INBOX)[0];
    assert_eq!((&row.from[..], &row.to[..]), (&people(LIST_ADDRESSES_MAX)[..], &people(LIST_ADDRESSES_MAX)[..]));
    assert_eq!(row.to_total as usize, HEADER_ADDRESSES_MAX);
    let kept = machine.message(1, &email).unwrap().envelope.unwrap();
    assert_eq!((kept.from.len(), kept.to.len()), (HEADER_ADDRESSES_MAX, HEADER_ADDRESSES_MAX));
    machine.assert_verified();
}

#[test]
fn a_thread_of_large_rows_is_read_in_pages() {
    let mut machine = Machine::with_users(1);
    let mut ids = Vec::new();
    let mut thread_id = Bytes::new();
    for n in 0..500 {
        let references: Vec<MessageIdHash> = if n == 0 { Vec::new() } else { vec![hash(1000), hash(1000 + n - 1)] };
        let mut large = message(n, Some(hash(1000 + n)), &references);
        let envelope = large.envelope.as_mut().unwrap();
        (envelope.from, envelope.to) = (people(LIST_ADDRESSES_MAX), people(LIST_ADDRESSES_MAX));
        let made = machine.accepted(accept(&[1], large)).deliveries.remove(0);
        ids.push(made.email_id);
        thread_id = made.thread_id;
    }
    let mut read: Vec<pb::ThreadMessage> = Vec::new();
    let mut pages = 0;
    loop {
        let after = read.last().map(|last| last.row.as_ref().unwrap().email_id.clone()).unwrap_or_default();
        let page = thread_page(&machine, 1, &thread_id, after);
        assert!(page.encoded_len() < REPLY_BYTES_MAX);
        assert!(!page.messages.is_empty());
        pages += 1;
        read.extend(page.messages);
        if !page.more {
            break;
        }
    }
    assert!(pages >= 2, "{pages}");
    assert!(read.iter().map(|message| &message.row.as_ref().unwrap().email_id).eq(&ids));
    // Each answers the one before it, on whatever page that is.
    assert!(read[0].parent_email_id.is_empty());
    assert!(read[1..].iter().map(|message| &message.parent_email_id).eq(&ids[..499]));
    let behind_the_last = thread_page(&machine, 1, &thread_id, ids[499].clone());
    assert!(behind_the_last.messages.is_empty() && !behind_the_last.more);
}

/// Rows without those of the messages themselves.
struct WithoutEmails<'a>(&'a MemoryStore);

impl Reader for WithoutEmails<'_> {
    type Scan<'s>
        = <MemoryStore as Reader>::Scan<'s>
    where
        Self: 's;

    fn get(&self, key: &KeyBytes) -> Result<Option<Bytes>, StoreError> {
        assert_ne!(Key::decode(key.as_ref()).unwrap().table(), Table::Emails, "a message's own row is read");
        self.0.get(key)
    }

    fn scan(&self, range: &KeyRange, direction: Direction) -> Self::Scan<'_> {
        self.0.scan(range, direction)
    }
}

/// Each may have hundreds of kilobytes, and a conversation a thousand of them.
#[test]
fn no_conversation_is_read_from_the_rows_of_its_messages() {
    let mut machine = Machine::with_users(1);
    let mut thread_id = Bytes::new();
    for n in 0..20 {
        thread_id = arrive(&mut machine, n, 1000 + n, &(1000..1000 + n).collect::<Vec<_>>()).1;
    }
    let get = pb::GetThread { user_id: user(1).to_bytes(), thread_id, after: Bytes::new() };
    let asked = pb::Query { query: Some(Ask::GetThread(get)) };
    let answered = postrider_shard::query(MAILBOX, &WithoutEmails(&machine.store), machine.now, &asked).unwrap();
    let Some(Answer::Thread(thread)) = answered.answer else { panic!("{answered:?}") };
    assert_eq!(thread.messages.len(), 20);
    assert!(thread.messages.windows(2).all(|two| two[1].parent_email_id == two[0].row.as_ref().unwrap().email_id));
    machine.assert_verified();
}

/// Message-IDs with references among a few, so that chains, gaps and cycles all occur.
fn mails() -> impl Strategy<Value = Vec<(u32, Vec<u32>)>> {
    proptest::collection::vec((0u32..10, proptest::collection::vec(1u32..12, 0..4)), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The threads are the same sets of messages in whatever order these come.
    #[test]
    fn the_order_does_not_matter((mails, order) in mails().prop_flat_map(|mails| {
        let places: Vec<usize> = (0..mails.len()).collect();
        (Just(mails), Just(places).prop_shuffle())
    })) {
        let partition = |order: &[usize]| {
            let mut machine = Machine::with_users(1);
            let mut ids = vec![Bytes::new(); mails.len()];
            for place in order {
                let (own, references) = &mails[*place];
                ids[*place] = arrive(&mut machine, *place as u32, *own, references).0;
            }
            let threads: Vec<Bytes> = ids.iter().map(|id| thread_of(&machine, id)).collect();
            machine.assert_verified();
            let same: Vec<Vec<bool>> =
                threads.iter().map(|a| threads.iter().map(|b| a == b).collect()).collect();
            same
        };
        let in_order: Vec<usize> = (0..mails.len()).collect();
        prop_assert_eq!(partition(&in_order), partition(&order));
    }
}
