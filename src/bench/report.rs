//! The table, and the same for programs.

use serde::Serialize;

use super::disk::Disk;
use crate::ctl::table::{Align, Table};

/// All that was measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) disk: Disk,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) smtp: Vec<SmtpLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rest: Vec<RestLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) search: Vec<SearchLine>,
}

/// SMTP delivery at one number of connections.
#[derive(Debug, Serialize)]
pub(crate) struct SmtpLine {
    pub(crate) connections: usize,
    /// What the messages are made of.
    pub(crate) text: &'static str,
    /// Transactions that got 250.
    pub(crate) acknowledged: u64,
    /// Transactions that got something else.
    pub(crate) refused: u64,
    /// Copies that must be in the mailboxes.
    pub(crate) expected: u64,
    /// Copies that are, as REST counts them.
    pub(crate) delivered: u64,
    pub(crate) seconds: f64,
    pub(crate) messages_per_second: f64,
    /// From the last byte of a message to its reply.
    pub(crate) reply_p50_ms: f64,
    pub(crate) reply_p99_ms: f64,
    /// From when a message was due, or its connection was free, to its reply: the envelope and the message's way are in it.
    pub(crate) due_p99_ms: f64,
    /// Of all processes of the cluster, without the generator.
    pub(crate) cpu_ms_per_message: f64,
    /// `write_bytes` of all processes / 3 replicas / bytes received, compaction until idle included.
    pub(crate) written_per_byte: f64,
    /// Log syncs per message and replica.
    pub(crate) log_syncs_per_message: f64,
}

/// Reads of one kind in a mailbox of one size.
#[derive(Debug, Serialize)]
pub(crate) struct RestLine {
    pub(crate) what: &'static str,
    /// Messages in the mailbox.
    pub(crate) mailbox: usize,
    pub(crate) connections: usize,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Searches of one kind in a mailbox of one size, mail arriving.
#[derive(Debug, Serialize)]
pub(crate) struct SearchLine {
    pub(crate) kind: &'static str,
    /// Messages in the mailbox at the beginning.
    pub(crate) mailbox: usize,
    pub(crate) connections: usize,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    /// Of an answer, all pages, on average.
    pub(crate) hits: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Report {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk, smtp: Vec::new(), rest: Vec::new(), search: Vec::new() }
    }

    /// Whether everything that was acknowledged is there.
    pub(crate) fn nothing_missing(&self) -> bool {
        self.smtp.iter().all(|line| line.delivered >= line.expected)
    }

    pub(crate) fn print(&self) {
        println!(
            "disk: {:.0} x (4 KiB append + fdatasync) /s, sequential write {:.0} MB/s\n",
            self.disk.fdatasyncs_per_second, self.disk.sequential_mb_per_second
        );
        if !self.smtp.is_empty() {
            self.print_smtp();
        }
        if !self.rest.is_empty() {
            self.print_rest();
        }
        if !self.search.is_empty() {
            self.print_search();
        }
    }

    fn print_search(&self) {
        let mut table = Table::new(&[
            ("search", Align::Left),
            ("mailbox", Align::Right),
            ("connections", Align::Right),
            ("hits", Align::Right),
            ("answers/s", Align::Right),
            ("p50 ms", Align::Right),
            ("p99 ms", Align::Right),
            ("answered", Align::Right),
            ("refused", Align::Right),
        ]);
        for line in &self.search {
            table.row([
                line.kind.to_owned(),
                line.mailbox.to_string(),
                line.connections.to_string(),
                format!("{:.1}", line.hits),
                format!("{:.1}", line.per_second),
                format!("{:.2}", line.p50_ms),
                format!("{:.2}", line.p99_ms),
                line.answered.to_string(),
                line.refused.to_string(),
            ]);
        }
        table.print();
    }

    fn print_smtp(&self) {
        let mut table = Table::new(&[
            ("connections", Align::Right),
            ("messages/s", Align::Right),
            ("reply p50 ms", Align::Right),
            ("reply p99 ms", Align::Right),
            ("due p99 ms", Align::Right),
            ("CPU ms/message", Align::Right),
            ("written/byte", Align::Right),
            ("log syncs/message", Align::Right),
            ("acknowledged", Align::Right),
            ("refused", Align::Right),
            ("delivered", Align::Right),
        ]);
        for line in &self.smtp {
            table.row([
                line.connections.to_string(),
                format!("{:.1}", line.messages_per_second),
                format!("{:.1}", line.reply_p50_ms),
                format!("{:.1}", line.reply_p99_ms),
                format!("{:.1}", line.due_p99_ms),
                format!("{:.2}", line.cpu_ms_per_message),
                format!("{:.2}", line.written_per_byte),
                format!("{:.3}", line.log_syncs_per_message),
                line.acknowledged.to_string(),
                line.refused.to_string(),
                format!("{} of {}", line.delivered, line.expected),
            ]);
        }
        table.print();
        if let Some(line) = self.smtp.first() {
            println!(
                "\nmessages: {}; written and syncs are per replica, CPU is of all processes but this one",
                line.text
            );
        }
    }

    fn print_rest(&self) {
        let mut table = Table::new(&[
            ("read", Align::Left),
            ("mailbox", Align::Right),
            ("connections", Align::Right),
            ("answers/s", Align::Right),
            ("p50 ms", Align::Right),
            ("p99 ms", Align::Right),
            ("answered", Align::Right),
            ("refused", Align::Right),
        ]);
        for line in &self.rest {
            table.row([
                line.what.to_owned(),
                line.mailbox.to_string(),
                line.connections.to_string(),
                format!("{:.1}", line.per_second),
                format!("{:.2}", line.p50_ms),
                format!("{:.2}", line.p99_ms),
                line.answered.to_string(),
                line.refused.to_string(),
            ]);
        }
        table.print();
    }
}
