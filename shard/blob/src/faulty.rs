//! A store that fails as it is told, for tests and for fault injection in a running cluster.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use parking_lot::Mutex;
use postrider_api::id::BlobHash;

use crate::{BlobError, BlobReader, BlobStore, Listed, Outage, Put, Zone};

/// An operation of [`BlobStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // they are the trait's methods
pub enum Op {
    Put,
    Replace,
    Get,
    Head,
    Delete,
    List,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails without having been done.
    Fail(Outage),
    /// It is done, and the answer is lost.
    LoseAnswer(Outage),
    /// It is done, late.
    Delay(Duration),
    /// It is never answered.
    Stall,
    /// A read finds nothing.
    Missing,
    /// A read gives one wrong bit, in the byte at this position.
    FlipBit {
        /// Position in what is read.
        at: u64,
    },
    /// A read breaks after this many bytes.
    Cut {
        /// Bytes that still come.
        after: u64,
    },
    /// A read falls silent after this many bytes.
    Hang {
        /// Bytes that still come.
        after: u64,
    },
}

/// When something goes wrong: skips some calls of an operation, then strikes some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Which calls are meant; `None`: all.
    pub op: Option<Op>,
    /// Calls that go well before the first fault.
    pub skip: u64,
    /// Faults; the rule is used up after them.
    pub times: u64,
    /// What happens.
    pub fault: Fault,
}

impl Rule {
    /// Every call of an operation from now on.
    pub fn always(op: Op, fault: Fault) -> Self {
        Self { op: Some(op), skip: 0, times: u64::MAX, fault }
    }

    /// The next call of an operation.
    pub fn once(op: Op, fault: Fault) -> Self {
        Self { times: 1, ..Self::always(op, fault) }
    }

    /// Every call of any operation from now on.
    pub fn every(fault: Fault) -> Self {
        Self { op: None, skip: 0, times: u64::MAX, fault }
    }
}

/// Wraps a store; calls go through to it unless a rule says otherwise.
pub struct Faulty<S> {
    inner: S,
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    calls: HashMap<Op, u64>,
}

impl<S> Faulty<S> {
    /// Without rules: nothing goes wrong.
    pub fn new(inner: S) -> Self {
        Self { inner, script: Mutex::default() }
    }

    /// The wrapped store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Adds a rule behind the others; the first that strikes decides.
    pub fn add(&self, rule: Rule) {
        self.script.lock().rules.push(rule);
    }

    /// Heals everything. Calls that stall stay so.
    pub fn clear(&self) {
        self.script.lock().rules.clear();
    }

    /// Calls of an operation so far.
    pub fn calls(&self, op: Op) -> u64 {
        self.script.lock().calls.get(&op).copied().unwrap_or(0)
    }

    fn next(&self, op: Op) -> Option<Fault> {
        let mut script = self.script.lock();
        *script.calls.entry(op).or_default() += 1;
        for rule in &mut script.rules {
            if rule.op.is_some_and(|meant| meant != op) || rule.times == 0 {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else {
                rule.times -= 1;
                return Some(rule.fault);
            }
        }
        None
    }
}

impl<S: BlobStore> Faulty<S> {
    /// Runs a call under the script. Faults of reads come back for the caller to do.
    async fn call<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<(T, Option<Fault>), BlobError> {
        let fault = self.next(op);
        match fault {
            Some(Fault::Fail(outage)) => return Err(BlobError::unavailable(self.inner.region(), outage)),
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::Missing) => return Err(BlobError::NotFound),
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::LoseAnswer(outage)) => {
                call.await?;
                return Err(BlobError::unavailable(self.inner.region(), outage));
            }
            Some(Fault::FlipBit { .. } | Fault::Cut { .. } | Fault::Hang { .. }) | None => {}
        }
        Ok((call.await?, fault))
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for Faulty<S> {
    fn region(&self) -> &str {
        self.inner.region()
    }

    async fn put(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<Put, BlobError> {
        self.call(Op::Put, self.inner.put(zone, hash, content)).await.map(|(put, _)| put)
    }

    async fn replace(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<(), BlobError> {
        self.call(Op::Replace, self.inner.replace(zone, hash, content)).await.map(|_| ())
    }

    async fn get(&self, zone: &Zone, hash: &BlobHash, range: Option<Range<u64>>) -> Result<BlobReader, BlobError> {
        let whole = range.is_none();
        // Damage happens below the check of the hash, as on a disk; so ask for a range and check behind the damage.
        let range = range.unwrap_or(0..u64::MAX);
        let opening = async {
            match self.inner.get(zone, hash, Some(range)).await {
                // The empty blob has no range.
                Err(BlobError::Invalid { .. }) if whole => self.inner.get(zone, hash, None).await,
                opened => opened,
            }
        };
        let (reader, fault) = self.call(Op::Get, opening).await?;
        let region = self.region();
        let reader = BlobReader::new(region, reader.len(), reader.blob_len(), damage(reader, region.to_owned(), fault));
        Ok(if whole { reader.verified(region, *hash) } else { reader })
    }

    async fn head(&self, zone: &Zone, hash: &BlobHash) -> Result<Option<u64>, BlobError> {
        match self.call(Op::Head, self.inner.head(zone, hash)).await {
            Ok((len, _)) => Ok(len),
            Err(BlobError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, zone: &Zone, hash: &BlobHash) -> Result<(), BlobError> {
        self.call(Op::Delete, self.inner.delete(zone, hash)).await.map(|_| ())
    }

    async fn delete_version(&self, zone: &Zone, hash: &BlobHash, version: &str) -> Result<bool, BlobError> {
        self.call(Op::Delete, self.inner.delete_version(zone, hash, version)).await.map(|(gone, _)| gone)
    }

    async fn list(&self, zone: &Zone, after: Option<&BlobHash>, max: usize) -> Result<Vec<Listed>, BlobError> {
        self.call(Op::List, self.inner.list(zone, after, max)).await.map(|(rows, _)| rows)
    }
}

fn damage(
    reader: BlobReader,
    region: String,
    fault: Option<Fault>,
) -> impl futures::Stream<Item = Result<Bytes, BlobError>> + Send + 'static {
    futures::stream::unfold(Some((reader, 0u64)), move |state| {
        let region = region.clone();
        async move {
            let (mut reader, position) = state?;
            let chunk = match reader.next().await? {
                Ok(chunk) => chunk,
                Err(error) => return Some((Err(error), None)),
            };
            let end = position + chunk.len() as u64;
            match fault {
                Some(Fault::FlipBit { at }) if (position..end).contains(&at) => {
                    let mut bytes = BytesMut::from(&chunk[..]);
                    bytes[(at - position) as usize] ^= 1; // below the chunk's length
                    Some((Ok(bytes.freeze()), Some((reader, end))))
                }
                Some(Fault::Cut { after }) if position >= after => {
                    Some((Err(BlobError::unavailable(&region, Outage::Connection)), None))
                }
                Some(Fault::Hang { after }) if position >= after => std::future::pending().await,
                Some(Fault::Cut { after } | Fault::Hang { after }) if end > after => {
                    let kept = chunk.slice(..(after - position) as usize); // below the chunk's length
                    Some((Ok(kept), Some((reader, after))))
                }
                _ => Some((Ok(chunk), Some((reader, end)))),
            }
        }
    })
}
