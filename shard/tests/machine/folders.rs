//! Folders of the user's own.

use postrider_api::id::FolderId;
use postrider_api::limit::{FOLDERS_MAX, UPDATES_MAX};
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, FolderRole, Refusal};
use postrider_shard::{INBOX, TRASH};

use crate::harness::{Machine, accept, create_folder, delete_folder, message, move_to, update, user};

fn rename(n: u8, folder: FolderId, name: &str) -> Op {
    Op::UpdateFolder(pb::UpdateFolder { user_id: user(n).to_bytes(), folder_id: folder.0, name: name.to_owned() })
}

pub(crate) fn made(machine: &mut Machine, name: &str) -> FolderId {
    match machine.apply(create_folder(1, name)) {
        Made::FolderMade(made) => FolderId(made.folder_id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_mailbox_begins_with_six() {
    let machine = Machine::with_users(1);
    let folders = machine.folders(1);
    let roles: Vec<FolderRole> = folders.iter().map(|folder| folder.role()).collect();
    use FolderRole::*;
    assert_eq!(roles, [Inbox, Drafts, Sent, Archive, Junk, Trash]);
    assert!(folders.iter().all(|folder| folder.uid_next == 1 && folder.uid_validity > 0 && folder.total == 0));
}

#[test]
fn a_name_is_trimmed_and_taken_once() {
    let mut machine = Machine::with_users(1);
    let work = made(&mut machine, "  Work ");
    assert_eq!(machine.folders(1).last().unwrap().name, "Work");
    assert_eq!(machine.refused(create_folder(1, "wORK")).0, Refusal::FolderExists);
    assert_eq!(machine.refused(create_folder(1, "INBOX")).0, Refusal::FolderExists);
    let home = made(&mut machine, "Home");
    assert_eq!(machine.refused(rename(1, home, "work")).0, Refusal::FolderExists);
    // Its own name in another case is free.
    machine.changed(rename(1, work, "WORK"));
    machine.changed(delete_folder(1, work));
    let again = made(&mut machine, "work");
    assert!(again > home, "an id is never used again");
    let folders = machine.folders(1);
    assert!(folders.last().unwrap().uid_validity > folders[6].uid_validity);
    machine.assert_verified();
}

#[test]
fn what_may_not_be() {
    let mut machine = Machine::with_users(1);
    for name in ["", "  ", "a/b", "a\nb", "\u{7f}"] {
        assert_eq!(machine.refused(create_folder(1, name)).0, Refusal::Malformed, "{name:?}");
    }
    assert_eq!(machine.refused(create_folder(1, &"x".repeat(256))).0, Refusal::Malformed);
    assert_eq!(machine.refused(create_folder(9, "a")).0, Refusal::UnknownUser);
    assert_eq!(machine.refused(rename(1, FolderId(99), "a")).0, Refusal::UnknownFolder);
    assert_eq!(machine.refused(delete_folder(1, FolderId(99))).0, Refusal::UnknownFolder);
    for folder in 1..=6 {
        assert_eq!(machine.refused(rename(1, FolderId(folder), "a")).0, Refusal::FolderProtected);
        assert_eq!(machine.refused(delete_folder(1, FolderId(folder))).0, Refusal::FolderProtected);
    }
}

#[test]
fn there_is_a_limit() {
    let mut machine = Machine::with_users(1);
    for n in 6..FOLDERS_MAX {
        made(&mut machine, &format!("folder {n}"));
    }
    assert_eq!(machine.refused(create_folder(1, "one more")).0, Refusal::FoldersTooMany);
}

#[test]
fn a_large_folder_drains_in_steps() {
    let mut machine = Machine::with_users(1);
    let large = made(&mut machine, "Large");
    let total = 2 * UPDATES_MAX + 3;
    let mut ids = Vec::new();
    for n in 0..total {
        ids.push(machine.accepted(accept(&[1], message(n as u32, None, &[]))).deliveries[0].email_id.clone());
    }
    for some in ids.chunks(UPDATES_MAX) {
        machine.changed(update(1, some.iter().map(|id| move_to(id, large)).collect()));
    }
    for remaining in [UPDATES_MAX + 3, 3] {
        let Made::FolderDraining(draining) = machine.apply(delete_folder(1, large)) else { panic!("draining") };
        assert_eq!(draining.remaining, remaining as u64);
        let folders = machine.folders(1);
        let here = |id: FolderId| folders.iter().find(|folder| folder.folder_id == id.0).unwrap().total;
        // No message is in no folder at any moment.
        assert_eq!(here(large) + here(TRASH) + here(INBOX), total as u64);
        assert_eq!(here(large), remaining as u64);
    }
    machine.changed(delete_folder(1, large));
    assert_eq!(machine.folders(1).last().unwrap().total, total as u64);
    assert_eq!(machine.refused(delete_folder(1, large)).0, Refusal::UnknownFolder);
    machine.assert_verified();
}
