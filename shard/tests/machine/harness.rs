//! A shard in memory, and commands for it.

use bytes::Bytes;
use postrider_api::id::{BodyId, EmailId, FolderId, LabelId, MessageIdHash, RequestId, ShardId, Slot, UserId, ZoneId};
use postrider_api::keyword::Keywords;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Refusal};
use postrider_shard::key::{Key, KeyBytes, Table};
use postrider_shard::store::{MemoryStore, Reader, Txn};
use postrider_shard::{Applied, apply, digest, query, verify};

pub(crate) const MAILBOX: ShardId = ShardId::MAILBOX_FIRST;
/// Where the clock of a test begins, milliseconds.
pub(crate) const START_MS: i64 = 1_790_000_000_000;

pub(crate) fn user(n: u8) -> UserId {
    UserId::new(ZoneId(u16::from_be_bytes([n, n])), Slot(u16::from(n)), [n; 12])
}

pub(crate) fn request(n: u64) -> RequestId {
    let mut id = [0x5a; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    RequestId(id)
}

pub(crate) fn hash(n: u32) -> MessageIdHash {
    MessageIdHash::of(format!("{n}@test.example").as_bytes())
}

/// A shard that applies each command in a transaction of its own.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) shard: ShardId,
    pub(crate) store: MemoryStore,
    pub(crate) index: u64,
    pub(crate) now: i64,
    /// Every command so far, in order.
    pub(crate) log: Vec<pb::Command>,
}

impl Machine {
    pub(crate) fn new(shard: ShardId) -> Self {
        Self { shard, store: MemoryStore::new(), index: 0, now: START_MS, log: Vec::new() }
    }

    /// A mailbox shard in which users 1 to `users` live.
    pub(crate) fn with_users(users: u8) -> Self {
        let mut machine = Self::new(MAILBOX);
        for n in 1..=users {
            machine.changed(create_account(n, u64::MAX / 2));
        }
        machine
    }

    pub(crate) fn command(&mut self, op: Op) -> pb::Command {
        let mut entropy = [7; 16];
        entropy[..8].copy_from_slice(&(self.log.len() as u64 + 1).to_be_bytes());
        pb::Command { at_ms: self.now, entropy: Bytes::copy_from_slice(&entropy), op: Some(op), ..Default::default() }
    }

    pub(crate) fn run(&mut self, command: pb::Command) -> Applied {
        self.index += 1;
        self.log.push(command.clone());
        let mut txn = Txn::new(&self.store);
        let applied = apply(self.shard, &mut txn, self.index, &command).expect("no invariant is broken");
        let writes = txn.into_writes();
        self.store.write(writes);
        applied
    }

    pub(crate) fn apply(&mut self, op: Op) -> Made {
        let command = self.command(op);
        self.run(command).outcome.result.expect("every outcome says something")
    }

    pub(crate) fn done(&mut self, op: Op) {
        let made = self.apply(op);
        assert_eq!(made, Made::Done(pb::Done {}));
    }

    pub(crate) fn changed(&mut self, op: Op) -> u64 {
        match self.apply(op) {
            Made::Changed(changed) => changed.modseq,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn refused(&mut self, op: Op) -> (Refusal, String) {
        let before = self.store.clone();
        let refused = match self.apply(op) {
            Made::Refused(refused) => (refused.refusal(), refused.detail),
            other => panic!("{other:?}"),
        };
        assert!(!refused.1.is_empty(), "a refusal says why");
        // But every command trims what is too old of the tail.
        let is_tail = |key: &KeyBytes| key.as_ref()[0] == Table::Tail as u8;
        let changed = |rows: &MemoryStore| {
            let mut rows = rows.clone();
            rows.remove(&Key::Shard.bytes());
            rows.rows().filter(|(key, _)| !is_tail(key)).map(|(key, row)| (*key, row.clone())).collect::<Vec<_>>()
        };
        assert_eq!(changed(&before), changed(&self.store), "a refused command writes nothing");
        let mut told = self.store.rows().filter(|(key, _)| is_tail(key));
        assert!(told.all(|(key, row)| before.get(key).unwrap().as_ref() == Some(row)), "and tells of no change");
        refused
    }

    pub(crate) fn accepted(&mut self, op: Op) -> pb::Accepted {
        match self.apply(op) {
            Made::Accepted(accepted) => accepted,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn delivered(&mut self, op: Op) -> pb::Delivered {
        match self.apply(op) {
            Made::Delivered(delivered) => delivered,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&self, ask: Ask) -> Answer {
        let asked = pb::Query { query: Some(ask) };
        query(self.shard, &self.store, self.now, &asked).expect("the query makes sense").answer.unwrap()
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        digest(&self.store).unwrap()
    }

    pub(crate) fn assert_verified(&self) {
        let verified = verify(&self.store).unwrap();
        assert_eq!(verified.differences, Vec::<String>::new());
        assert_eq!(verified.checked, self.store.rows().count() as u64);
    }

    pub(crate) fn account(&self, n: u8) -> pb::AccountRecord {
        match self.ask(Ask::GetAccount(pb::GetAccount { user_id: user(n).to_bytes() })) {
            Answer::Account(account) => account,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn folders(&self, n: u8) -> Vec<pb::FolderRecord> {
        match self.ask(Ask::ListFolders(pb::ListFolders { user_id: user(n).to_bytes() })) {
            Answer::Folders(folders) => folders.folders,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn messages(&self, n: u8, folder: FolderId) -> Vec<pb::ListRow> {
        self.page(n, folder, None, 0, None).rows
    }

    pub(crate) fn page(
        &self,
        n: u8,
        folder: FolderId,
        is_read: Option<bool>,
        limit: u32,
        before: Option<EmailId>,
    ) -> pb::MessagePage {
        let ask = Ask::ListMessages(pb::ListMessages {
            user_id: user(n).to_bytes(),
            folder_id: folder.0,
            is_read,
            limit,
            before: before.map(EmailId::to_bytes).unwrap_or_default(),
            is_flagged: false,
        });
        match self.ask(ask) {
            Answer::Messages(page) => page,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn flagged(&self, n: u8, folder: FolderId, limit: u32, before: Option<EmailId>) -> pb::MessagePage {
        let ask = Ask::ListMessages(pb::ListMessages {
            user_id: user(n).to_bytes(),
            folder_id: folder.0,
            is_flagged: true,
            limit,
            before: before.map(EmailId::to_bytes).unwrap_or_default(),
            ..Default::default()
        });
        match self.ask(ask) {
            Answer::Messages(page) => page,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn labels(&self, n: u8) -> Vec<pb::LabelRecord> {
        match self.ask(Ask::ListLabels(pb::ListLabels { user_id: user(n).to_bytes() })) {
            Answer::Labels(labels) => labels.labels,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn labelled(
        &self,
        n: u8,
        label: LabelId,
        is_read: Option<bool>,
        limit: u32,
        before: Option<EmailId>,
    ) -> pb::MessagePage {
        let ask = Ask::ListLabelMessages(pb::ListLabelMessages {
            user_id: user(n).to_bytes(),
            label_id: label.0,
            is_read,
            limit,
            before: before.map(EmailId::to_bytes).unwrap_or_default(),
        });
        match self.ask(ask) {
            Answer::Messages(page) => page,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn message(&self, n: u8, email: &Bytes) -> Option<pb::EmailRecord> {
        let ask = Ask::GetMessage(pb::GetMessage {
            user_id: user(n).to_bytes(),
            email_id: email.clone(),
            ..Default::default()
        });
        match self.ask(ask) {
            Answer::Message(message) => Some(message),
            Answer::NotFound(_) => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn changes(&self, n: u8, since: u64, limit: u32) -> Option<pb::ChangePage> {
        match self.ask(Ask::ListChanges(pb::ListChanges { user_id: user(n).to_bytes(), since, limit })) {
            Answer::Changes(page) => Some(page),
            Answer::NotFound(missing) => {
                assert_eq!(missing.missing(), pb::Missing::Changes);
                None
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn create_account(n: u8, quota_bytes: u64) -> Op {
    Op::CreateAccount(pb::CreateAccount {
        user_id: user(n).to_bytes(),
        address: format!("user{n}@test.example"),
        name: format!("User {n}"),
        password_hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA".to_owned(),
        quota_bytes,
        home_region: "seoul".to_owned(),
    })
}

/// A message with a text that names it, and a body id of its own.
pub(crate) fn message(n: u32, own: Option<MessageIdHash>, references: &[MessageIdHash]) -> pb::NewMessage {
    let text = Bytes::from(format!("Subject: message {n}\r\n\r\nbody {n}\r\n"));
    let mut body_id = [0xb0; 16];
    body_id[12..].copy_from_slice(&n.to_be_bytes());
    pb::NewMessage {
        envelope: Some(pb::Envelope {
            from: vec![pb::Mailbox { name: "Sender".to_owned(), email: "sender@far.example".to_owned() }],
            to: vec![pb::Mailbox { name: String::new(), email: "user1@test.example".to_owned() }],
            subject: format!("message {n}"),
            ..Default::default()
        }),
        preview: format!("body {n}"),
        size: 100 + u64::from(n % 7),
        has_attachments: n.is_multiple_of(3),
        parts: vec![pb::Part {
            path: "1".to_owned(),
            content_type: "application/pdf".to_owned(),
            filename: "file.pdf".to_owned(),
            is_attachment: n.is_multiple_of(3),
            decoded_size: 12,
            ..Default::default()
        }],
        pieces: vec![pb::Piece {
            literal_length: text.len() as u64,
            raw_length: text.len() as u64,
            ..Default::default()
        }],
        body: Some(pb::Body {
            body_id: BodyId(body_id).to_bytes(),
            compression: pb::Compression::None.into(),
            text_length: text.len() as u64,
            text,
        }),
        message_id_hash: own.map(|own| Bytes::copy_from_slice(&own.0)).unwrap_or_default(),
        reference_hashes: references.iter().map(|hash| Bytes::copy_from_slice(&hash.0)).collect(),
    }
}

pub(crate) fn recipients(to: &[u8]) -> Vec<pb::Recipient> {
    to.iter()
        .map(|n| pb::Recipient {
            user_id: user(*n).to_bytes(),
            address: format!("user{n}@test.example"),
            ..Default::default()
        })
        .collect()
}

pub(crate) fn accept(to: &[u8], message: pb::NewMessage) -> Op {
    Op::Accept(pb::Accept {
        mail_from: "sender@far.example".to_owned(),
        recipients: recipients(to),
        message: Some(message),
        ..Default::default()
    })
}

/// Under a lease from the beginning of the test.
pub(crate) fn deliver(targets: &[(u8, RequestId)], message: pb::NewMessage) -> Op {
    deliver_leased(START_MS, targets, message)
}

/// Under a lease of that time, of an entry that was made just then.
pub(crate) fn deliver_leased(leased_ms: i64, targets: &[(u8, RequestId)], message: pb::NewMessage) -> Op {
    Op::Deliver(pb::Deliver {
        source_shard: 1001,
        entry: 1,
        targets: targets
            .iter()
            .map(|(n, request)| pb::Target {
                user_id: user(*n).to_bytes(),
                address: format!("user{n}@test.example"),
                request: Bytes::copy_from_slice(&request.0),
                undelivered_ms: leased_ms,
            })
            .collect(),
        mail_from: "sender@far.example".to_owned(),
        message: Some(message),
        leased_ms,
    })
}

pub(crate) fn update(n: u8, updates: Vec<pb::MessageUpdate>) -> Op {
    Op::UpdateMessages(pb::UpdateMessages { user_id: user(n).to_bytes(), updates })
}

pub(crate) fn move_to(email: &Bytes, folder: FolderId) -> pb::MessageUpdate {
    pb::MessageUpdate { email_id: email.clone(), folder_id: Some(folder.0), ..Default::default() }
}

pub(crate) fn delete(email: &Bytes) -> pb::MessageUpdate {
    pb::MessageUpdate { email_id: email.clone(), delete: true, ..Default::default() }
}

/// Some keywords more, and some fewer.
pub(crate) fn mark(email: &Bytes, add: Keywords, remove: Keywords) -> pb::MessageUpdate {
    pb::MessageUpdate { email_id: email.clone(), keywords_add: add.0, keywords_remove: remove.0, ..Default::default() }
}

/// Some labels more, and some fewer.
pub(crate) fn relabel(email: &Bytes, add: &[LabelId], remove: &[LabelId]) -> pb::MessageUpdate {
    pb::MessageUpdate {
        email_id: email.clone(),
        labels_add: add.iter().map(|label| label.0).collect(),
        labels_remove: remove.iter().map(|label| label.0).collect(),
        ..Default::default()
    }
}

pub(crate) fn create_label(n: u8, name: &str, color: u32) -> Op {
    Op::CreateLabel(pb::CreateLabel { user_id: user(n).to_bytes(), name: name.to_owned(), color })
}

pub(crate) fn delete_label(n: u8, label: LabelId) -> Op {
    Op::DeleteLabel(pb::DeleteLabel { user_id: user(n).to_bytes(), label_id: label.0 })
}

pub(crate) fn create_folder(n: u8, name: &str) -> Op {
    Op::CreateFolder(pb::CreateFolder { user_id: user(n).to_bytes(), name: name.to_owned() })
}

pub(crate) fn delete_folder(n: u8, folder: FolderId) -> Op {
    Op::DeleteFolder(pb::DeleteFolder { user_id: user(n).to_bytes(), folder_id: folder.0 })
}
