//! Reading a group's state for sending.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{IteratorMode, ReadOptions};
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

/// A state that is being read.
pub(crate) struct Reading {
    /// How far it was applied.
    pub(crate) meta: SnapshotMeta,
    pub(crate) pieces: mpsc::Receiver<io::Result<Piece>>,
}

/// Starts to read the state of `outgoing` as it is now. Reading ends when the result is dropped.
pub(crate) async fn read(outgoing: Outgoing, block_bytes: usize) -> io::Result<Reading> {
    let (tell_meta, meta) = oneshot::channel();
    let (send, pieces) = mpsc::channel(BLOCKS_AHEAD);
    let reader = Reader { group: outgoing.group, store: outgoing.store, block_bytes, send };
    tokio::task::spawn_blocking(move || reader.run(tell_meta));
    let meta = meta.await.map_err(|_| io::Error::other("reading the state ended early"))??;
    Ok(Reading { meta, pieces })
}

struct Reader {
    group: GroupId,
    store: Arc<StateStore>,
    block_bytes: usize,
    send: mpsc::Sender<io::Result<Piece>>,
}

/// Whoever wanted the state has gone.
struct Gone;

impl Reader {
    fn run(self, tell_meta: oneshot::Sender<io::Result<SnapshotMeta>>) {
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
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(key::start(self.group));
        read.set_iterate_upper_bound(key::end(self.group));
        read.fill_cache(false);
        read.set_readahead_size(READAHEAD_BYTES);
        let mut builder = BlockBuilder::default();
        let mut total = Total::default();
        for item in snapshot.iterator_opt(IteratorMode::Start, read) {
            let added =
                item.map_err(io_error).and_then(|(key, value)| builder.add(&key, &value).map_err(io::Error::other));
            if let Err(error) = added {
                // The receiver notices: it never sees an end.
                drop(self.send.blocking_send(Err(error)));
                return;
            }
            if builder.bytes() >= self.block_bytes && self.flush(&mut builder, &mut total).is_err() {
                return;
            }
        }
        if builder.bytes() > 0 && self.flush(&mut builder, &mut total).is_err() {
            return;
        }
        // If nobody listens any more, nobody misses the end.
        drop(self.send.blocking_send(Ok(Piece::End(total))));
    }

    fn flush(&self, builder: &mut BlockBuilder, total: &mut Total) -> Result<(), Gone> {
        let (rows, count) = builder.take();
        let checksum = crc32c::crc32c(&rows);
        total.add(rows.len(), count, checksum);
        self.send.blocking_send(Ok(Piece::Block { rows, checksum })).map_err(|_| Gone)
    }
}
