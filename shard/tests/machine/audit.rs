//! The audit log.

use postrider_api::id::ShardId;
use postrider_api::limit::AUDIT_MS;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, AuditOutcome, AuditRecord, Refusal};

use crate::harness::{MAILBOX, Machine};

fn begin(action: &str) -> AuditRecord {
    AuditRecord {
        certificate: "ctl operator".to_owned(),
        operator: "ada".to_owned(),
        action: action.to_owned(),
        targets: vec!["shard 1000".to_owned()],
        why: "a test".to_owned(),
        ..Default::default()
    }
}

fn end(of: u64) -> AuditRecord {
    AuditRecord {
        of,
        outcome: AuditOutcome::Failed.into(),
        detail: "it is there already".to_owned(),
        ..Default::default()
    }
}

fn record(record: AuditRecord) -> Op {
    Op::RecordAudit(pb::RecordAudit { record: Some(record) })
}

fn audited(machine: &mut Machine, of: AuditRecord) -> u64 {
    match machine.apply(record(of)) {
        Made::Audited(audited) => audited.sequence,
        other => panic!("{other:?}"),
    }
}

fn list(machine: &Machine, limit: u32, before: u64, since_ms: i64) -> (Vec<u64>, bool) {
    match machine.ask(Ask::ListAudit(pb::ListAudit { limit, before, since_ms })) {
        Answer::Audit(page) => (page.records.iter().map(|record| record.sequence).collect(), page.more),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_begun_and_ended_stands_there_newest_first() {
    let mut machine = Machine::new(ShardId::PLACEMENT);
    let first = audited(&mut machine, begin("shard.move"));
    machine.now += 1000;
    let forged = AuditRecord { sequence: 77, at_ms: 1, ..begin("shard.transfer") };
    let second = audited(&mut machine, forged);
    let third = audited(&mut machine, end(first));
    assert_eq!((first, second, third), (1, 2, 3));
    assert_eq!(list(&machine, 0, 0, 0), (vec![3, 2, 1], false));
    assert_eq!(list(&machine, 2, 0, 0), (vec![3, 2], true));
    assert_eq!(list(&machine, 2, 2, 0), (vec![1], false));
    assert_eq!(list(&machine, 0, 0, machine.now), (vec![3, 2], false), "the first is older");
    let Answer::Audit(page) = machine.ask(Ask::ListAudit(pb::ListAudit::default())) else { panic!() };
    assert_eq!(page.records[1].at_ms, machine.now, "time and number are the log's");
    assert_eq!(page.records[0], AuditRecord { sequence: 3, at_ms: machine.now, ..end(first) });
    machine.assert_verified();
}

#[test]
fn what_is_too_old_goes_with_the_next() {
    let mut machine = Machine::new(ShardId::PLACEMENT);
    for _ in 0..10 {
        audited(&mut machine, begin("shard.move"));
        machine.now += 1;
    }
    machine.now += AUDIT_MS - 5;
    // Four of a command, until those that are young enough are left.
    audited(&mut machine, begin("shard.move"));
    assert_eq!(list(&machine, 0, 0, 0).0, [11, 10, 9, 8, 7, 6, 5]);
    audited(&mut machine, begin("shard.move"));
    assert_eq!(list(&machine, 0, 0, 0).0, [12, 11, 10, 9, 8, 7, 6]);
    machine.assert_verified();
    assert_eq!(machine.refused(record(end(5))).0, Refusal::Conflict, "it has gone");
    machine.now += 2 * AUDIT_MS;
    for _ in 0..3 {
        audited(&mut machine, begin("shard.move"));
    }
    assert_eq!(list(&machine, 0, 0, 0).0, [15, 14, 13]);
    machine.assert_verified();
}

#[test]
fn refusals() {
    let mut machine = Machine::new(ShardId::PLACEMENT);
    let wrong = [
        AuditRecord { action: String::new(), ..begin("") },
        AuditRecord { why: "line\nbreak".to_owned(), ..begin("shard.move") },
        AuditRecord { detail: "x".repeat(1001), ..begin("shard.move") },
        AuditRecord { operator: "x".repeat(257), ..begin("shard.move") },
        AuditRecord { targets: vec!["x".to_owned(); 9], ..begin("shard.move") },
        AuditRecord { outcome: AuditOutcome::Done.into(), ..begin("shard.move") },
    ];
    for wrong in wrong {
        assert_eq!(machine.refused(record(wrong)).0, Refusal::Malformed);
    }
    assert_eq!(machine.refused(Op::RecordAudit(pb::RecordAudit::default())).0, Refusal::Malformed);
    assert_eq!(machine.refused(record(end(1))).0, Refusal::Conflict);
    let first = audited(&mut machine, begin("shard.move"));
    let both = AuditRecord { of: first, outcome: AuditOutcome::Done.into(), ..begin("shard.move") };
    assert_eq!(machine.refused(record(both)).0, Refusal::Malformed);
    let unsaid = AuditRecord { outcome: 0, ..end(first) };
    assert_eq!(machine.refused(record(unsaid)).0, Refusal::Malformed);
    let mut mailbox = Machine::new(MAILBOX);
    assert_eq!(mailbox.refused(record(begin("shard.move"))).0, Refusal::Malformed);
}
