//! Real mail: the threads of the suite's corpus, as independent implementations see them.
//!
//! The suite lies outside the repository: `POSTRIDER_SUITES`, by default `../shared/suites` beside the checkout. Its oracle
//! needs python3, zstd and Debian's libmail-thread-perl.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use postrider_api::id::MessageIdHash;
use postrider_shard::INBOX;

use crate::harness::{Machine, accept, message, user};
use crate::threads::thread;
use postrider_api::pb;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::query::Query as Ask;

/// Prints a line per message of the corpus: its Message-ID and the ids that ingest would take as references.
const ROWS: &str = r"
import email, re, subprocess, sys, tarfile
found = re.compile(r'<([^<>\s]+)>')
seen = set()
with tarfile.open(fileobj=subprocess.Popen(['zstd', '-dcq', '--long=27', sys.argv[1]], stdout=subprocess.PIPE).stdout, mode='r|') as tar:
    for entry in tar:
        if not entry.isfile() or entry.name.endswith('.jsonl'): continue
        mail = email.message_from_bytes(tar.extractfile(entry).read())
        own = found.findall(str(mail.get('Message-ID') or ''))
        if not own or own[0] in seen: continue
        seen.add(own[0])
        references = list(dict.fromkeys(found.findall(str(mail.get('References') or ''))))
        print('\t'.join([own[0]] + (references or found.findall(str(mail.get('In-Reply-To') or ''))[:1])))
";

fn suites() -> Option<PathBuf> {
    let suites = PathBuf::from(std::env::var_os("POSTRIDER_SUITES").unwrap_or_else(|| "../../shared/suites".into()));
    suites.join("threads/thread_oracle.py").exists().then_some(suites)
}

fn python(arguments: &[&str]) -> String {
    let output = Command::new("python3").args(arguments).output().expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

struct Mail {
    own: String,
    references: Vec<String>,
}

/// Delivers the mails in an order, and says of each which thread it is in and, if asked, whom it answers, as the oracle reads it.
fn threads_of(mails: &[Mail], order: &[usize], with_parents: bool) -> String {
    let mut machine = Machine::with_users(1);
    let mut names = std::collections::BTreeMap::new();
    for place in order {
        let mail = &mails[*place];
        let hash = |id: &String| MessageIdHash::of(id.as_bytes());
        let references: Vec<MessageIdHash> = mail.references.iter().map(hash).collect();
        let made = machine.accepted(accept(&[1], message(*place as u32, Some(hash(&mail.own)), &references)));
        names.insert(made.deliveries[0].email_id.clone(), &mail.own);
    }
    machine.assert_verified();
    let mut lines = String::new();
    let mut before = Bytes::new();
    loop {
        let ask = pb::ListThreads { user_id: user(1).to_bytes(), folder_id: INBOX.0, limit: 200, before };
        let Answer::Threads(page) = machine.ask(Ask::ListThreads(ask)) else { panic!("a page was wanted") };
        for row in &page.rows {
            for member in thread(&machine, 1, &row.thread_id).messages {
                let own = names[&member.row.as_ref().unwrap().email_id];
                write!(lines, "{{\"message_id\": {own:?}, \"thread\": \"{:x}\"", row.thread_id).unwrap();
                if with_parents {
                    let parent = names.get(&member.parent_email_id).map_or("", |parent| parent.as_str());
                    write!(lines, ", \"parent\": {parent:?}").unwrap();
                }
                lines.push_str("}\n");
            }
        }
        if !page.more {
            return lines;
        }
        before = page.rows.last().unwrap().newest.as_ref().unwrap().email_id.clone();
    }
}

#[test]
fn real_mail_falls_into_the_threads_that_others_see() {
    let Some(suites) = suites() else {
        eprintln!(
            "the suites are not beside the checkout and POSTRIDER_SUITES does not name them: nothing was checked"
        );
        return;
    };
    let corpus = suites.join("mail/easy-ham-1.tar.zst");
    let (corpus, oracle) = (corpus.to_str().unwrap(), suites.join("threads/thread_oracle.py"));
    let oracle = oracle.to_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = directory.path().join("expected.jsonl.gz");
    let expected = expected.to_str().unwrap();
    python(&[oracle, "expect", corpus, expected]);
    let mails: Vec<Mail> = python(&["-c", ROWS, corpus])
        .lines()
        .map(|line| {
            let mut ids = line.split('\t').map(str::to_owned);
            Mail { own: ids.next().unwrap(), references: ids.collect() }
        })
        .collect();
    assert!(mails.len() > 2000);
    // In order, backwards, and by a stride that visits every place.
    let stride = 1_000_003;
    let orders: [Vec<usize>; 3] = [
        (0..mails.len()).collect(),
        (0..mails.len()).rev().collect(),
        (0..mails.len()).map(|n| n * stride % mails.len()).collect(),
    ];
    for (n, order) in orders.into_iter().enumerate() {
        let actual = directory.path().join(format!("actual-{n}.jsonl"));
        // Where references contradict one another, who came first decides who answers whom (JWZ step 1.B): the oracles took
        // the corpus in its order, so parents are compared for that order alone. Threads are the same for all.
        std::fs::write(&actual, threads_of(&mails, &order, n == 0)).unwrap();
        python(&[oracle, "check", expected, actual.to_str().unwrap(), "--family", "refs"]);
    }
}
