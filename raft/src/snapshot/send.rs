//! Reading a group's state for sending.
//!
//! What is read stays as it is while it is sent, so a stream that broke can be followed by another that goes on behind any
//! block: the blocks are the same each time.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{IteratorMode, ReadOptions, Snapshot};
use tokio::sync::{mpsc, oneshot};

use crate::ids::GroupId;
use crate::snapshot::Outgoing;
use crate::snapshot::block::{BlockBuilder, Total};
use crate::state::key;
use crate::state::store::{StateStore, decode_meta, io_error};
use crate::types::SnapshotMeta;

/// Blocks that are read ahead of the network.
const BLOCKS_AHEAD: usize = 4;
const READAHEAD_BYTES: usize = 2 << 20;

/// A piece of a state.
pub(crate) enum Piece {
    Block {
        rows: Bytes,
        checksum: u32,
    },
    /// There is no more.
    End(Total),
}

/// A state that is being read, as it was when that began. The reading ends when this is dropped.
pub(crate) struct Reading {
    /// How far it was applied.
    pub(crate) meta: SnapshotMeta,
    starts: mpsc::Sender<Start>,
}

impl Reading {
    /// What comes behind the first `blocks` blocks. What was given out before must have been dropped.
    pub(crate) async fn pieces(&self, blocks: u64) -> io::Result<mpsc::Receiver<io::Result<Piece>>> {
        let (send, pieces) = mpsc::channel(BLOCKS_AHEAD);
        let ended = |_| io::Error::other("reading the state ended early");
        self.starts.send(Start { blocks, send }).await.map_err(ended)?;
        Ok(pieces)
    }
}

struct Start {
    blocks: u64,
    send: mpsc::Sender<io::Result<Piece>>,
}

/// Starts to read the state of `outgoing` as it is now.
pub(crate) async fn read(outgoing: Outgoing, block_bytes: usize) -> io::Result<Reading> {
    let (tell_meta, meta) = oneshot::channel();
    let (starts, started) = mpsc::channel(1);
    let reader = Reader { group: outgoing.group, store: outgoing.store, block_bytes };
    tokio::task::spawn_blocking(move || reader.run(tell_meta, started));
    let meta = meta.await.map_err(|_| io::Error::other("reading the state ended early"))??;
    Ok(Reading { meta, starts })
}

struct Reader {
    group: GroupId,
    store: Arc<StateStore>,
    block_bytes: usize,
}

/// The end of a block. There is one of some hundred bytes for each block of a quarter of a mebibyte.
struct Mark {
    total: Total,
    last: Box<[u8]>,
}

/// Whoever wanted the pieces has gone.
struct Gone;

impl Reader {
    fn run(self, tell_meta: oneshot::Sender<io::Result<SnapshotMeta>>, mut starts: mpsc::Receiver<Start>) {
        let db = self.store.db().clone();
        let snapshot = db.snapshot();
        let meta = snapshot
            .get(key::meta(self.group))
            .map_err(io_error)
            .and_then(|row| row.map(|row| decode_meta(self.group, &row)).transpose())
            .and_then(|meta| meta.ok_or_else(|| io::Error::other("nothing was applied yet")));
        let readable = meta.is_ok();
        if tell_meta.send(meta).is_err() || !readable {
            return;
        }
        let mut marks = Vec::new();
        while let Some(start) = starts.blocking_recv() {
            // When nobody listens any more, the next start comes, or the end.
            drop(self.read_from(&snapshot, &mut marks, &start));
        }
    }

    fn read_from(&self, snapshot: &Snapshot<'_>, marks: &mut Vec<Mark>, start: &Start) -> Result<(), Gone> {
        let send = |piece| start.send.blocking_send(piece).map_err(|_| Gone);
        let behind = usize::try_from(start.blocks).unwrap_or(usize::MAX);
        let (mut total, lower_bound) = match behind.checked_sub(1).map(|at| marks.get(at)) {
            None => (Total::default(), key::start(self.group).to_vec()),
            Some(Some(mark)) => (mark.total, [&mark.last[..], &[0]].concat()),
            Some(None) => return send(Err(io::Error::other("the receiver has blocks that were never sent"))),
        };
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(lower_bound);
        read.set_iterate_upper_bound(key::end(self.group));
        read.fill_cache(false);
        read.set_readahead_size(READAHEAD_BYTES);
        let mut builder = BlockBuilder::default();
        let mut last = Box::default();
        let mut flush = |builder: &mut BlockBuilder, last: &[u8]| {
            let (rows, count) = builder.take();
            let checksum = crc32c::crc32c(&rows);
            total.add(rows.len(), count, checksum);
            if total.blocks > marks.len() as u64 {
                marks.push(Mark { total, last: last.into() });
            }
            send(Ok(Piece::Block { rows, checksum }))
        };
        for item in snapshot.iterator_opt(IteratorMode::Start, read) {
            let added = item.map_err(io_error).and_then(|(key, value)| {
                builder.add(&key, &value).map_err(io::Error::other)?;
                Ok(key)
            });
            match added {
                Ok(key) => last = key,
                // The receiver notices: it never sees an end.
                Err(error) => return send(Err(error)),
            }
            if builder.bytes() >= self.block_bytes {
                flush(&mut builder, &last)?;
            }
        }
        if builder.bytes() > 0 {
            flush(&mut builder, &last)?;
        }
        send(Ok(Piece::End(total)))
    }
}
