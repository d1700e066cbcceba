//! A transaction as it grows: who greeted, who sends, who receives, what came in.
//!
//! Invariant: only [`Forward`], which has a recipient, can begin content; only finished content makes a [`Transaction`]. Orders
//! that RFC 5321 section 4.1.4 forbids have no function to call.

use std::net::IpAddr;

use postrider_api::address::{Address, RemoteAddress};
use postrider_api::id::{RequestId, ShardId, UserId};
use postrider_api::limit::RECIPIENTS_MAX;

use super::command::{Reports, Wishes};
use super::content::{Content, Finished};
use crate::account::programs::Program;
use crate::budget::Share;
use postrider_mime::trace::{self, Protocol, Received};
use postrider_outgoing::return_path::Origin;

use super::repair;

/// A client that said HELO or EHLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) host: String,
    pub(super) extended: bool,
}

/// Somebody who gets the message: known to the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Who.
    pub user: UserId,
    /// Where his mailbox is.
    pub shard: ShardId,
    /// As the client gave it.
    pub given: String,
    /// As the directory has it.
    pub address: Address,
    /// What of him is to be told.
    pub reports: Reports,
    /// It came to a return path: the message of his that it is about.
    pub returned: Option<Origin>,
}

/// Somebody outside who gets the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// Who.
    pub address: RemoteAddress,
    /// What of him is to be told.
    pub reports: Reports,
}

/// Whom RCPT names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressee {
    /// One of ours.
    Here(Recipient),
    /// Of a submission only: nothing else is relayed.
    Outside(RemoteAddress),
}

/// Behind MAIL.
#[derive(Debug)]
pub(super) struct Reverse {
    pub(super) client: Client,
    pub(super) path: String,
    /// SIZE, bytes; 0 without.
    pub(super) size: u64,
    pub(super) utf8: bool,
    pub(super) wishes: Wishes,
    /// Who submits it; `None`: it came in.
    pub(super) program: Option<Program>,
}

/// Behind RCPT: at least one recipient.
#[derive(Debug)]
pub(super) struct Forward {
    reverse: Reverse,
    recipients: Vec<Recipient>,
    outside: Vec<Outside>,
}

/// Behind MAIL, with or without recipients.
#[derive(Debug)]
pub(super) enum Open {
    Reverse(Reverse),
    Forward(Forward),
}

impl Open {
    pub(super) fn reverse(&self) -> &Reverse {
        match self {
            Open::Reverse(reverse) => reverse,
            Open::Forward(forward) => &forward.reverse,
        }
    }

    /// Whether the message has as many recipients as one may have.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Open::Reverse(_) => false,
            Open::Forward(forward) => forward.recipients.len() + forward.outside.len() >= RECIPIENTS_MAX,
        }
    }

    /// Whether a recipient is in another residency zone than those before him: the message would wait, and lie, in one of them
    /// for both. What is submitted goes to each zone in a command of its own.
    pub(super) fn leaves_zone(&self, addressee: &Addressee) -> bool {
        match (self, addressee) {
            (_, Addressee::Outside(_)) | (Open::Reverse(_), _) => false,
            (Open::Forward(forward), _) if forward.reverse.program.is_some() => false,
            (Open::Forward(forward), Addressee::Here(recipient)) => {
                forward.recipients.iter().any(|known| known.user.zone() != recipient.user.zone())
            }
        }
    }

    /// The same with one more recipient; one who is there already gets the message once.
    pub(super) fn add(self, addressee: Addressee, reports: Reports) -> Self {
        let mut forward = match self {
            Open::Reverse(reverse) => Forward { reverse, recipients: Vec::new(), outside: Vec::new() },
            Open::Forward(forward) => forward,
        };
        match addressee {
            Addressee::Here(recipient) => {
                let is_same = |known: &Recipient| (known.user, known.returned) == (recipient.user, recipient.returned);
                if !forward.recipients.iter().any(is_same) {
                    forward.recipients.push(Recipient { reports, ..recipient });
                }
            }
            Addressee::Outside(address) => {
                if forward.outside.iter().all(|known| known.address != address) {
                    forward.outside.push(Outside { address, reports });
                }
            }
        }
        Open::Forward(forward)
    }

    pub(super) fn into_client(self) -> Client {
        match self {
            Open::Reverse(reverse) => reverse.client,
            Open::Forward(forward) => forward.reverse.client,
        }
    }
}

/// What the server adds to every message of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here<'a> {
    pub(super) host: &'a str,
    pub(super) peer: IpAddr,
    pub(super) tls: bool,
    pub(super) now_ms: i64,
}

/// What content belongs to while it comes in.
#[derive(Debug)]
pub(super) struct Receiving {
    forward: Forward,
    id: RequestId,
    peer: IpAddr,
}

impl Forward {
    /// Content begins: its trace fields are its first bytes.
    pub(super) fn begin(self, id: RequestId, here: Here<'_>, share: Share, bytes_max: u64) -> (Receiving, Content) {
        let reverse = &self.reverse;
        let id_text = trace_id(id);
        let is_submission = reverse.program.is_some();
        let received = trace::received(&Received {
            helo: &reverse.client.host,
            client_name: None,
            client_ip: here.peer,
            by: here.host,
            protocol: Protocol {
                esmtp: reverse.client.extended,
                tls: here.tls,
                auth: is_submission,
                utf8: reverse.utf8,
            },
            id: &id_text,
            recipient: match (&self.recipients[..], &self.outside[..]) {
                ([only], []) => Some(&only.given),
                ([], [only]) => Some(only.address.as_str()),
                _ => None,
            },
            at_ms: here.now_ms,
        });
        let trace = match &reverse.program {
            None => trace::return_path(&reverse.path) + &received,
            // Whoever delivers it at last writes Return-Path. What the author may have left out stands on top until it is known
            // whether he has.
            Some(program) => received + &repair::spare_fields(&program.address, id, here.now_ms),
        };
        let content = Content::new(trace.as_bytes(), share, bytes_max, reverse.size);
        (Receiving { forward: self, id, peer: here.peer }, content)
    }
}

impl Receiving {
    /// The content was refused or taken back; the client may begin anew.
    pub(super) fn into_client(self) -> Client {
        self.forward.reverse.client
    }

    /// As it was before content began.
    pub(super) fn into_forward(self) -> Forward {
        self.forward
    }

    /// Everything is there.
    pub(super) fn finish(self, message: Finished) -> (Client, Transaction) {
        let Forward { reverse, recipients, outside } = self.forward;
        let Reverse { client, path, utf8, wishes, program, .. } = reverse;
        let submission = program.map(|program| Submission { program, wishes, utf8, outside });
        let transaction =
            Transaction { id: self.id, peer: self.peer, mail_from: path, recipients, message, submission };
        (client, transaction)
    }
}

/// A message with its envelope, to be made durable.
#[derive(Debug)]
pub struct Transaction {
    /// Decides sameness (P-6); also in the trace fields.
    pub id: RequestId,
    /// Who brought it.
    pub peer: IpAddr,
    /// The reverse-path; empty for null.
    pub mail_from: String,
    /// Those of ours; at least one, unless it is submitted for somebody outside.
    pub recipients: Vec<Recipient>,
    /// Its bytes.
    pub message: Finished,
    /// `None`: it came in.
    pub submission: Option<Submission>,
}

/// What a submission has beside the message.
#[derive(Debug)]
pub struct Submission {
    /// Who submits it.
    pub program: Program,
    /// What is asked for.
    pub wishes: Wishes,
    /// SMTPUTF8.
    pub utf8: bool,
    /// Recipients outside.
    pub outside: Vec<Outside>,
}

/// How logs and trace fields name a transaction.
fn trace_id(id: RequestId) -> String {
    hex::encode(&id.0[..8])
}
