//! What a stream tells: changes as JSON.

use postrider_api::id::{FolderId, LabelId, ModSeq};
use postrider_api::keyword::Keywords;
use postrider_api::pb;
use postrider_api::pb::ChangeKind;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::problem::Problem;
use crate::rest::view::{FolderRef, Id, KeywordNames, LabelRef, labels};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChangeType {
    /// A message that this stream has not told of.
    MessageCreated,
    /// It was marked, flagged, labelled or moved.
    MessageUpdated,
    /// It is gone for good.
    MessageDeleted,
    /// A folder that this stream has not told of.
    FolderCreated,
    /// It was renamed, or what it holds changed.
    FolderUpdated,
    /// It is gone.
    FolderDeleted,
    /// A label that this stream has not told of.
    LabelCreated,
    /// It has another name or colour.
    LabelUpdated,
    /// It is gone.
    LabelDeleted,
}

/// The newest change of one object.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Change {
    /// What happened.
    #[serde(rename = "type")]
    pub(crate) kind: ChangeType,
    /// Its place among the changes of the mailbox.
    pub(crate) modseq: u64,
    /// The message; absent for folders and labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message_id: Option<Id>,
    /// The folder, or the folder that the message is in; absent for labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) folder_id: Option<FolderRef>,
    /// The label; absent for messages and folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label_id: Option<LabelRef>,
    /// The message's conversation; absent for folders and labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thread_id: Option<Id>,
    /// Whether the message was read; absent for folders and labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) is_read: Option<bool>,
    /// Whether the message is flagged; absent for folders and labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) is_flagged: Option<bool>,
    /// All keywords of the message; absent for folders and labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keywords: Option<KeywordNames>,
    /// The labels of the message; absent for folders and labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<Vec<LabelRef>>,
}

/// Changes, and where a client stands behind them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Frame {
    /// To resume from, as `since`.
    pub(crate) modseq: u64,
    /// In modseq order; empty when the frame only says where the stream stands.
    pub(crate) changes: Vec<Change>,
}

/// The last frame of a stream whose `since` is too far back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Resync {
    /// Always `resync`.
    #[serde(rename = "type")]
    pub(crate) kind: ResyncType,
    /// Read everything again, then resume from here.
    pub(crate) modseq: u64,
}

/// The one type of [`Resync`].
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResyncType {
    /// Changes that far back are no longer kept.
    Resync,
}

/// How far a client has been told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    position: ModSeq,
    /// Every object that came into being up to here was told. Behind `position` while a long list of changes is told page by
    /// page: the feed keeps each object's newest row, so what is old may come late.
    complete: ModSeq,
}

impl Told {
    /// Of a client who knows everything up to `since`.
    pub(crate) fn since(since: ModSeq) -> Self {
        Self { position: since, complete: since }
    }

    /// Where the client stands.
    pub(crate) fn position(self) -> ModSeq {
        self.position
    }

    /// The frame of a page, without what was told; `None` when nothing remains.
    pub(crate) fn frame(&mut self, page: pb::ChangePage) -> Result<Option<Frame>, Problem> {
        let mut changes = Vec::with_capacity(page.changes.len());
        for pb::Change { modseq, change } in page.changes {
            if modseq <= self.position.0 {
                continue;
            }
            let change = change.ok_or_else(|| Problem::internal("a change without its record"))?;
            changes.push(self.change(modseq, change)?);
            self.position = ModSeq(modseq);
        }
        if !page.more {
            self.complete = self.position;
        }
        if changes.is_empty() {
            return Ok(None);
        }
        Ok(Some(Frame { modseq: self.position.0, changes }))
    }

    /// An update of what the client was never told of is news to him.
    fn change(self, modseq: u64, record: pb::ChangeRecord) -> Result<Change, Problem> {
        let is_new = record.created_modseq > self.complete.0;
        let kind = match record.kind() {
            ChangeKind::MessageUpdated if !is_new => ChangeType::MessageUpdated,
            ChangeKind::MessageCreated | ChangeKind::MessageUpdated => ChangeType::MessageCreated,
            ChangeKind::MessageDeleted => ChangeType::MessageDeleted,
            ChangeKind::FolderUpdated if !is_new => ChangeType::FolderUpdated,
            ChangeKind::FolderCreated | ChangeKind::FolderUpdated => ChangeType::FolderCreated,
            ChangeKind::FolderDeleted => ChangeType::FolderDeleted,
            ChangeKind::LabelUpdated if !is_new => ChangeType::LabelUpdated,
            ChangeKind::LabelCreated | ChangeKind::LabelUpdated => ChangeType::LabelCreated,
            ChangeKind::LabelDeleted => ChangeType::LabelDeleted,
            ChangeKind::Unspecified => return Err(Problem::internal("a change of no kind")),
        };
        let of_message = !record.email_id.is_empty();
        let of_label = record.label_id != 0;
        let keywords = Keywords(record.keywords);
        let id = |bytes| if of_message { Id::of(bytes).map(Some) } else { Ok(None) };
        Ok(Change {
            kind,
            modseq,
            message_id: id(&record.email_id)?,
            folder_id: (!of_label).then_some(FolderRef(FolderId(record.folder_id))),
            label_id: of_label.then_some(LabelRef(LabelId(record.label_id))),
            thread_id: if record.thread_id.is_empty() { None } else { id(&record.thread_id)? },
            is_read: of_message.then_some(keywords.is_read()),
            is_flagged: of_message.then_some(keywords.is_flagged()),
            keywords: of_message.then_some(KeywordNames(keywords)),
            labels: of_message.then(|| labels(record.labels)),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn change(modseq: u64, kind: ChangeKind, created_modseq: u64) -> pb::Change {
        let record = pb::ChangeRecord {
            kind: kind.into(),
            email_id: Bytes::from_static(&[1; 16]),
            thread_id: Bytes::from_static(&[2; 16]),
            folder_id: 1,
            created_modseq,
            ..Default::default()
        };
        pb::Change { modseq, change: Some(record) }
    }

    fn kinds(told: &mut Told, changes: Vec<pb::Change>, more: bool) -> Vec<(u64, ChangeType)> {
        let page = pb::ChangePage { changes, modseq: 9, more, ..Default::default() };
        let frame = told.frame(page).unwrap();
        frame.into_iter().flat_map(|frame| frame.changes).map(|change| (change.modseq, change.kind)).collect()
    }

    #[test]
    fn nothing_twice_and_news_are_news() {
        let mut told = Told::since(ModSeq(5));
        let first = vec![
            change(5, ChangeKind::MessageCreated, 5),
            change(7, ChangeKind::MessageUpdated, 2),
            // It came before the change in front of it, but behind what the client knows.
            change(8, ChangeKind::MessageUpdated, 6),
        ];
        let told_first = kinds(&mut told, first, false);
        assert_eq!(told_first, [(7, ChangeType::MessageUpdated), (8, ChangeType::MessageCreated)]);
        assert_eq!(told.position(), ModSeq(8));
        assert_eq!(kinds(&mut told, vec![change(8, ChangeKind::MessageUpdated, 6)], false), []);
        // The same message again, now told of.
        let again = kinds(&mut told, vec![change(9, ChangeKind::MessageUpdated, 6)], false);
        assert_eq!(again, [(9, ChangeType::MessageUpdated)]);
    }

    #[test]
    fn news_come_late_in_a_long_list() {
        let mut told = Told::since(ModSeq(5));
        kinds(&mut told, vec![change(8, ChangeKind::MessageCreated, 8)], true);
        let last = kinds(&mut told, vec![change(9, ChangeKind::MessageUpdated, 7)], false);
        assert_eq!(last, [(9, ChangeType::MessageCreated)]);
    }

    #[test]
    fn json() {
        let mut told = Told::since(ModSeq(0));
        let page =
            pb::ChangePage { changes: vec![change(1, ChangeKind::MessageCreated, 1)], modseq: 1, ..Default::default() };
        let frame = serde_json::to_value(told.frame(page).unwrap().unwrap()).unwrap();
        assert_eq!(frame["modseq"], 1);
        assert_eq!(frame["changes"][0]["type"], "message_created");
        assert_eq!(frame["changes"][0]["message_id"], "01".repeat(16));
        assert_eq!(frame["changes"][0]["folder_id"], "1");
        assert_eq!(frame["changes"][0]["keywords"], serde_json::json!([]));
        assert!(frame["changes"][0].get("label_id").is_none());
        let record = pb::ChangeRecord { kind: ChangeKind::LabelUpdated.into(), label_id: 7, ..Default::default() };
        let page =
            pb::ChangePage { changes: vec![pb::Change { modseq: 2, change: Some(record) }], ..Default::default() };
        let frame = serde_json::to_value(told.frame(page).unwrap().unwrap()).unwrap();
        let label = serde_json::json!({"type": "label_updated", "modseq": 2, "label_id": "7"});
        assert_eq!(frame["changes"], serde_json::json!([label]));
        let resync = Resync { kind: ResyncType::Resync, modseq: 7 };
        assert_eq!(serde_json::to_string(&resync).unwrap(), "{\"type\":\"resync\",\"modseq\":7}");
    }
}
