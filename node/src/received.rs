//! A command as it came in.
//!
//! Invariant: its bytes are what is logged. This build reads in them what it knows, to check who may propose it; a field that
//! only a newer build knows is on every replica as it was sent.

use bytes::{Bytes, BytesMut};
use postrider_api::limit::{COMMAND_BYTES_MAX, STAMP_BYTES_MAX};
use postrider_api::pb::{self, command::Op, fault::Fault};
use postrider_api::trace::{CONTEXT_BYTES, Context};
use postrider_api::version;
use postrider_shard::format::VERSION_MAX;
use prost::Message;

use crate::fault::{self, malformed};

/// A context, with its tag and its length.
const TRACE_BYTES: usize = CONTEXT_BYTES + 2;

/// A command, and what this build reads in it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    bytes: Bytes,
    command: pb::Command,
}

impl Received {
    /// Of a request.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, pb::Fault> {
        // Its texts and bodies are slices of the request's bytes.
        let command = pb::Command::decode(bytes.clone()).map_err(|error| malformed(format!("command: {error}")))?;
        Ok(Self { bytes, command })
    }

    /// Of this node's own making.
    pub(crate) fn of(command: pb::Command) -> Self {
        Self { bytes: command.encode_to_vec().into(), command }
    }

    /// As it came.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// What this build reads in it.
    pub(crate) fn command(&self) -> &pb::Command {
        &self.command
    }

    /// The refusal of what the shard cannot have been raised to, since this very build leads it; a fault for what must not come
    /// into the log because replicas would stop at it.
    pub(crate) fn check(&self) -> Result<Option<pb::Refused>, pb::Fault> {
        let requires = match &self.command.op {
            Some(Op::RaiseVersion(raise)) => raise.version.max(self.command.requires),
            _ => self.command.requires,
        };
        if requires > VERSION_MAX {
            return Ok(Some(postrider_shard::not_enabled(requires, VERSION_MAX)));
        }
        if self.command.op.is_none() {
            return Err(malformed("the command has no op, or one that this build does not know"));
        }
        let needed = version::required(&self.command);
        if version::or_initial(requires) < needed {
            return Err(malformed(format!("requires: is {requires}, the command needs version {needed}")));
        }
        Ok(None)
    }

    /// The log entry: the bytes as they came, and behind them the time, which so takes the place of any that they hold. One copy
    /// into a buffer of the right size, as any log entry needs. `trace`: where the proposal stands in a trace; what is as large as it may be
    /// goes without.
    pub(crate) fn stamped(&self, at_ms: i64, trace: Option<Context>) -> Result<Bytes, pb::Fault> {
        if self.bytes.len() > COMMAND_BYTES_MAX - STAMP_BYTES_MAX {
            return Err(fault::fault(Fault::TooLarge(pb::TooLarge { max: COMMAND_BYTES_MAX as u64 })));
        }
        let has_room = self.bytes.len() <= COMMAND_BYTES_MAX - STAMP_BYTES_MAX - TRACE_BYTES;
        let trace = trace.filter(|_| has_room).map(|context| context.to_bytes()).unwrap_or_default();
        let room = if trace.is_empty() { 0 } else { TRACE_BYTES };
        let mut entry = BytesMut::with_capacity(self.bytes.len() + STAMP_BYTES_MAX + room);
        entry.extend_from_slice(&self.bytes);
        // A time of 0 is no field at all, and one that the bytes hold would stay.
        let stamp = pb::Command { at_ms: at_ms.max(1), trace, ..Default::default() };
        stamp.encode_raw(&mut entry);
        Ok(entry.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(name: &str) -> pb::Command {
        let op = Op::UpdateProfile(pb::UpdateProfile { name: Some(name.to_owned()), ..Default::default() });
        pb::Command { at_ms: 77, entropy: vec![7; 16].into(), op: Some(op), ..Default::default() }
    }

    proptest! {
        /// Whatever a newer build adds: to the command, or to what is in it.
        #[test]
        fn what_this_build_does_not_know_is_logged_as_it_came(
            at_ms in 1i64..=i64::MAX,
            field in 1000u32..100_000,
            value in any::<u64>(),
            text in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut newer = command("Ada").encode_to_vec();
            prost::encoding::uint64::encode(field, &value, &mut newer);
            prost::encoding::bytes::encode(field + 1, &text, &mut newer);
            let entry = Received::decode(newer.clone().into()).unwrap().stamped(at_ms, None).unwrap();
            prop_assert_eq!(&entry[..newer.len()], &newer[..]);
            prop_assert!(entry.len() <= newer.len() + STAMP_BYTES_MAX);
            let read = pb::Command::decode(entry).unwrap();
            prop_assert_eq!(read, pb::Command { at_ms, ..command("Ada") });
        }
    }

    #[test]
    fn a_time_before_the_epoch_s_first_millisecond_is_a_time() {
        let received = Received::of(command("Ada"));
        for at_ms in [0, -5] {
            assert_eq!(pb::Command::decode(received.stamped(at_ms, None).unwrap()).unwrap().at_ms, 1);
        }
    }

    #[test]
    fn what_needs_a_newer_version_does_not_come_into_the_log() {
        assert!(Received::of(command("Ada")).check().unwrap().is_none());
        let newer = pb::Command { requires: VERSION_MAX + 1, op: None, ..Default::default() };
        let refused = Received::of(newer).check().unwrap().unwrap();
        assert_eq!(refused.refusal(), pb::Refusal::VersionNotEnabled);
        let raise = Op::RaiseVersion(pb::RaiseVersion { version: VERSION_MAX + 1 });
        let raise = pb::Command { op: Some(raise), ..Default::default() };
        assert!(Received::of(raise).check().unwrap().is_some());
        let nothing = Received::of(pb::Command::default()).check().unwrap_err();
        assert!(matches!(nothing.fault, Some(Fault::Malformed(_))));
        assert!(Received::decode(Bytes::from_static(&[0xff])).is_err());
    }

    fn context() -> Context {
        Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap()
    }

    #[test]
    fn a_trace_rides_behind_the_time_and_takes_the_place_of_a_proposer_s() {
        let own = Received::of(pb::Command { trace: Bytes::from_static(&[1; CONTEXT_BYTES]), ..command("Ada") });
        let entry = own.stamped(i64::MAX, Some(context())).unwrap();
        assert!(entry.len() <= own.bytes().len() + STAMP_BYTES_MAX + TRACE_BYTES);
        let read = pb::Command::decode(entry).unwrap();
        assert_eq!(Context::from_bytes(&read.trace), Some(context()));
        assert_eq!(read, pb::Command { at_ms: i64::MAX, trace: read.trace.clone(), ..command("Ada") });
        // Without one the entry is what it always was.
        let plain = Received::of(command("Ada"));
        let stamp = pb::Command { at_ms: 5, ..Default::default() }.encode_to_vec();
        assert_eq!(plain.stamped(5, None).unwrap(), [&plain.bytes()[..], &stamp].concat());
    }

    #[test]
    fn a_command_leaves_room_for_its_time() {
        let text = |length: usize| Received { bytes: vec![0; length].into(), command: pb::Command::default() };
        let entry = text(COMMAND_BYTES_MAX - STAMP_BYTES_MAX).stamped(i64::MAX, Some(context())).unwrap();
        assert!(entry.len() <= COMMAND_BYTES_MAX);
        let refused = text(COMMAND_BYTES_MAX - STAMP_BYTES_MAX + 1).stamped(1, None).unwrap_err();
        assert!(matches!(refused.fault, Some(Fault::TooLarge(_))));
    }
}
