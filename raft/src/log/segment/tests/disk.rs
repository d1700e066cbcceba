//! A disk that loses power at any moment, or refuses.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::log::disk::{BLOCK_BYTES, Blocks, Disk, DiskFile};

/// What a disk writes in one piece.
const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Bytes {
    /// As the machine sees it.
    pub(super) seen: Vec<u8>,
    /// As it would be after a power cut that keeps nothing else.
    durable: Vec<u8>,
    /// Written and not synced.
    pending: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone)]
enum Name {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Default)]
pub(super) struct State {
    pub(super) files: Vec<Bytes>,
    pub(super) names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Name>,
    /// Operations done so far.
    pub(super) done: u64,
    /// From this operation on everything fails: the power is gone.
    pub(super) dead_from: Option<u64>,
    /// This operation alone fails.
    pub(super) refuse: Option<u64>,
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.done += 1;
        if self.dead_from.is_some_and(|from| self.done >= from) {
            return Err(io::Error::other("the power is gone"));
        }
        if self.refuse == Some(self.done) {
            return Err(io::Error::other("the disk refuses"));
        }
        Ok(())
    }

    fn rename(names: &mut BTreeMap<String, usize>, change: &Name) {
        match change {
            Name::Create(name, file) => {
                names.insert(name.clone(), *file);
            }
            Name::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Name::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// A disk in memory that knows what has been synced.
#[derive(Clone, Default)]
pub(super) struct SimDisk(pub(super) Arc<Mutex<State>>);

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl SimDisk {
    /// Whether a file that has a name holds these bytes.
    pub(super) fn holds(&self, part: &[u8]) -> bool {
        let state = self.0.lock();
        let mut files = state.names.values().map(|file| &state.files[*file].seen);
        // Most blocks have nothing of it: the bytes are compared only from those on that have its first one.
        files.any(|seen| {
            seen.chunks(BLOCK_BYTES).enumerate().any(|(at, block)| {
                let mut from_here = seen[at * BLOCK_BYTES..].windows(part.len()).take(BLOCK_BYTES);
                block.contains(&part[0]) && from_here.any(|window| window == part)
            })
        })
    }

    /// What is left after a power cut: everything synced, and of the rest whatever `chance` says, sector by sector. Names
    /// are kept in the order in which they were changed, as a journal does.
    pub(super) fn after_power_cut(&self, mut chance: impl FnMut() -> bool) -> Self {
        let state = self.0.lock();
        let mut names = state.durable_names.clone();
        for change in &state.pending_names {
            if !chance() {
                break;
            }
            State::rename(&mut names, change);
        }
        let files = state.files.iter().map(|bytes| {
            let mut left = bytes.durable.clone();
            left.resize(bytes.seen.len(), 0);
            for (offset, written) in &bytes.pending {
                let mut at = *offset as usize;
                let mut rest = written.as_slice();
                while !rest.is_empty() {
                    let piece = (SECTOR - at % SECTOR).min(rest.len());
                    if chance() {
                        left[at..at + piece].copy_from_slice(&rest[..piece]);
                    }
                    at += piece;
                    rest = &rest[piece..];
                }
            }
            Bytes { seen: left.clone(), durable: left, pending: Vec::new() }
        });
        let state = State { files: files.collect(), durable_names: names.clone(), names, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn handle(&self, file: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), file })
    }

    pub(super) fn corrupt(&self, name: &str, offset: usize) {
        let mut state = self.0.lock();
        let file = state.names[name];
        state.files[file].seen[offset] ^= 1;
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        assert!(!state.names.contains_key(name), "{name} is there already");
        let file = state.files.len();
        // Whatever lay on the disk there before.
        let left = vec![0xa5; bytes as usize];
        state.files.push(Bytes { seen: left.clone(), durable: left, pending: Vec::new() });
        state.names.insert(name.to_owned(), file);
        state.pending_names.push(Name::Create(name.to_owned(), file));
        drop(state);
        Ok(self.handle(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = *self.0.lock().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        assert!(state.names.contains_key(from) && !state.names.contains_key(to), "{from} becomes {to}");
        let change = Name::Rename(from.to_owned(), to.to_owned());
        State::rename(&mut state.names, &change);
        state.pending_names.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = Name::Remove(name.to_owned());
        State::rename(&mut state.names, &change);
        state.pending_names.push(change);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.file].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.0.lock();
        let from = offset as usize;
        let bytes = state.files[self.file].seen.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, blocks: &Blocks, offset: u64) -> io::Result<()> {
        let bytes = blocks.as_slice();
        assert!(
            offset.is_multiple_of(BLOCK_BYTES as u64) && bytes.len().is_multiple_of(BLOCK_BYTES),
            "{offset}, {}",
            bytes.len()
        );
        assert_eq!(bytes.as_ptr().align_offset(BLOCK_BYTES), 0, "memory for direct writes is aligned");
        let mut state = self.disk.0.lock();
        let died = state.step();
        // A write that fails, or in which the power goes, may have reached the disk in part.
        let file = &mut state.files[self.file];
        let from = offset as usize;
        file.seen[from..from + bytes.len()].copy_from_slice(bytes);
        file.pending.push((offset, bytes.to_vec()));
        died
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        // A failed sync leaves open what of it is on the disk.
        state.step()?;
        let file = &mut state.files[self.file];
        for (offset, bytes) in std::mem::take(&mut file.pending) {
            let from = offset as usize;
            file.durable[from..from + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }
}
