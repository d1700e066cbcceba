//! Mailboxes: accounts, folders, labels, messages, threads, the change feed. One file per verb; [`read`] answers queries.
//!
//! Invariant: counters, quota and indexes change in the same apply as what they count (P-10).
//! Invariant: a verb checks everything before its first write, so a refusal leaves nothing behind.

pub(crate) mod account;
pub(crate) mod app_password;
pub(crate) mod begin_second_factor;
pub(crate) mod body;
pub(crate) mod change;
pub(crate) mod confirm_second_factor;
pub(crate) mod folder;
pub(crate) mod incoming;
pub(crate) mod label;
pub(crate) mod list_row;
pub(crate) mod message;
pub(crate) mod name;
pub(crate) mod plan_send;
pub(crate) mod read;
pub(crate) mod references;
pub(crate) mod remove_second_factor;
pub(crate) mod replace_recovery_codes;
pub(crate) mod second_factor;
pub(crate) mod session;
pub(crate) mod thread_list;
pub(crate) mod thread_tree;
pub(crate) mod threads;

pub(crate) mod accept;
pub(crate) mod change_password;
pub(crate) mod close_session;
pub(crate) mod create_account;
pub(crate) mod create_app_password;
pub(crate) mod create_folder;
pub(crate) mod create_label;
pub(crate) mod delete_account;
pub(crate) mod delete_app_password;
pub(crate) mod delete_folder;
pub(crate) mod delete_label;
pub(crate) mod deliver;
pub(crate) mod drain_account;
pub(crate) mod end_session;
pub(crate) mod finish_deletion;
pub(crate) mod open_session;
pub(crate) mod resume_account;
pub(crate) mod save_draft;
pub(crate) mod send;
pub(crate) mod set_category;
pub(crate) mod suspend_account;
pub(crate) mod update_folder;
pub(crate) mod update_label;
pub(crate) mod update_messages;
pub(crate) mod update_profile;
pub(crate) mod use_app_password;
pub(crate) mod use_session;
