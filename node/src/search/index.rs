//! One index directory: opened, written, merged. The watermark stands in the commit itself, so that the two cannot part.

use std::path::Path;
use std::sync::Arc;

use postrider_api::id::UserId;
use tantivy::columnar::ColumnValues;
use tantivy::index::{Index, InvertedIndexReader, SegmentId, SegmentReader};
use tantivy::indexer::{IndexWriterOptions, NoMergePolicy};
use tantivy::{IndexWriter, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term};

use super::schema::{self, DocKey, Fields};
use super::words::{Words, field};

/// Memory of the one thread that writes, bytes; the least that tantivy takes.
const WRITER_BYTES: usize = 15_000_000;
/// The same while an index is built anew: fewer and larger segments.
const BUILD_WRITER_BYTES: usize = 64 * 1024 * 1024;
/// Segments of about one size that are merged into one.
const MERGED_AT_ONCE: usize = 8;
/// Segments with more documents are not merged any more: it would take minutes.
const MERGED_DOCS_MAX: u32 = 400_000;

/// A message as it goes into the index.
pub(super) struct Doc {
    pub(super) user: UserId,
    pub(super) key: DocKey,
    pub(super) sequence: u64,
    pub(super) size: u64,
    pub(super) words: Words,
}

impl Doc {
    /// Memory that it takes, bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.words.bytes()
    }
}

/// What a commit takes in and takes out.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) deleted: Vec<DocKey>,
    /// All of whose messages go.
    pub(super) gone: Vec<UserId>,
    pub(super) docs: Vec<Arc<Doc>>,
}

/// What a commit says of itself.
fn payload(through: u64) -> String {
    format!("{} {through}", schema::VERSION)
}

fn watermark(payload: Option<&str>) -> Option<u64> {
    let (version, through) = payload?.split_once(' ')?;
    if version != schema::VERSION.to_string() {
        return None;
    }
    through.parse().ok()
}

/// An index as one commit left it, ready to be read. It holds files mapped, and no thread.
pub(super) struct View {
    pub(super) segments: Vec<Segment>,
    /// The watermark.
    pub(super) through: u64,
    pub(super) docs: u64,
    pub(super) bytes: u64,
    _searcher: Searcher,
}

/// One segment of a view.
pub(super) struct Segment {
    pub(super) words: Arc<InvertedIndexReader>,
    pub(super) sequence: Arc<dyn ColumnValues<u64>>,
    pub(super) length: Arc<dyn ColumnValues<u64>>,
    pub(super) size: Arc<dyn ColumnValues<u64>>,
    pub(super) checksum: Arc<dyn ColumnValues<u64>>,
    pub(super) reader: SegmentReader,
}

/// An open index.
pub(super) struct Opened {
    index: Index,
    fields: Fields,
}

impl Opened {
    /// Opens what is in a directory.
    ///
    /// # Errors
    /// When there is no index, or none that can be read.
    pub(super) fn open(dir: &Path) -> Result<Self, TantivyError> {
        let index = Index::open_in_dir(dir)?;
        let fields = schema::fields();
        if index.schema() != fields.schema {
            return Err(TantivyError::SchemaError("it is of another build".to_owned()));
        }
        schema::register(&index);
        Ok(Self { index, fields })
    }

    /// Makes an empty one.
    pub(super) fn create(dir: &Path) -> Result<Self, TantivyError> {
        std::fs::create_dir_all(dir)?;
        let fields = schema::fields();
        let index = Index::create_in_dir(dir, fields.schema.clone())?;
        schema::register(&index);
        Ok(Self { index, fields })
    }

    /// The watermark of the last commit; `None` where it was never complete.
    pub(super) fn through(&self) -> Result<Option<u64>, TantivyError> {
        Ok(watermark(self.index.load_metas()?.payload.as_deref()))
    }

    /// Whether every file is what was written.
    pub(super) fn damaged(&self) -> Result<usize, TantivyError> {
        Ok(self.index.validate_checksum()?.len())
    }

    pub(super) fn view(&self) -> Result<View, TantivyError> {
        loop {
            let view = self.view_of_a_moment()?;
            // A commit may have come between its watermark and its segments.
            if self.through()? == Some(view.through) {
                return Ok(view);
            }
        }
    }

    fn view_of_a_moment(&self) -> Result<View, TantivyError> {
        let through = self.through()?.ok_or_else(|| TantivyError::SchemaError("it is not complete".to_owned()))?;
        let reader = self.index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let searcher: Searcher = reader.searcher();
        let segments =
            searcher.segment_readers().iter().map(|reader| self.segment(reader)).collect::<Result<_, _>>()?;
        let bytes = searcher.space_usage()?.total().get_bytes();
        Ok(View { segments, through, docs: searcher.num_docs(), bytes, _searcher: searcher })
    }

    fn segment(&self, reader: &SegmentReader) -> Result<Segment, TantivyError> {
        let number = |name| reader.fast_fields().column_first_or_default::<u64>(name);
        Ok(Segment {
            words: reader.inverted_index(self.fields.words)?,
            sequence: number("sequence")?,
            length: number("length")?,
            size: number("size")?,
            checksum: number("checksum")?,
            reader: reader.clone(),
        })
    }

    fn writer(&self, bytes: usize) -> Result<IndexWriter, TantivyError> {
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(bytes)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let writer = self.index.writer_with_options(options)?;
        // Merges are begun and waited for here, not whenever it suits.
        writer.set_merge_policy(Box::new(NoMergePolicy));
        Ok(writer)
    }

    /// Takes in and out what a batch says, and moves the watermark, in one commit; then merges what has become many.
    pub(super) fn commit(&self, batch: &Batch, through: u64) -> Result<(), TantivyError> {
        let mut writer = self.writer(WRITER_BYTES)?;
        for key in &batch.deleted {
            writer.delete_term(Term::from_field_bytes(self.fields.key, key));
        }
        for user in &batch.gone {
            let mut term = schema::prefix(*user);
            term.push(char::from(field::ANY_MESSAGE));
            writer.delete_term(Term::from_field_text(self.fields.words, &term));
        }
        for doc in &batch.docs {
            writer.add_document(self.document(doc))?;
        }
        commit(&mut writer, through)?;
        metrics::counter!("postrider_node_search_commits_total").increment(1);
        self.merge(&mut writer)
    }

    fn document(&self, doc: &Doc) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        document.add_text(self.fields.words, schema::text(doc.user, &doc.words));
        document.add_bytes(self.fields.key, &doc.key);
        document.add_u64(self.fields.sequence, doc.sequence);
        document.add_u64(self.fields.length, doc.words.length().into());
        document.add_u64(self.fields.size, doc.size);
        document.add_u64(self.fields.checksum, doc.words.checksum().into());
        document
    }

    /// Rewrites every segment that has deleted documents.
    pub(super) fn vacuum(&self) -> Result<(), TantivyError> {
        let mut writer = self.writer(WRITER_BYTES)?;
        for meta in self.index.searchable_segment_metas()?.iter().filter(|meta| meta.num_deleted_docs() > 0) {
            writer.merge(&[meta.id()]).wait()?;
        }
        writer.garbage_collect_files().wait()?;
        Ok(())
    }

    fn merge(&self, writer: &mut IndexWriter) -> Result<(), TantivyError> {
        while let Some(segments) = self.to_merge()? {
            writer.merge(&segments).wait()?;
            metrics::counter!("postrider_node_search_merges_total").increment(1);
        }
        writer.garbage_collect_files().wait()?;
        Ok(())
    }

    /// Segments of one order of size, once there are [`MERGED_AT_ONCE`]; or one that is mostly deleted.
    fn to_merge(&self) -> Result<Option<Vec<SegmentId>>, TantivyError> {
        let metas = self.index.searchable_segment_metas()?;
        let mut orders: std::collections::BTreeMap<u32, Vec<SegmentId>> = std::collections::BTreeMap::new();
        for meta in &metas {
            if meta.num_deleted_docs() * 2 > meta.max_doc() {
                return Ok(Some(vec![meta.id()]));
            }
            if meta.num_docs() < MERGED_DOCS_MAX {
                // Powers of eight.
                orders.entry(meta.num_docs().max(1).ilog2() / 3).or_default().push(meta.id());
            }
        }
        Ok(orders.into_values().find(|segments| segments.len() >= MERGED_AT_ONCE))
    }
}

fn commit(writer: &mut IndexWriter, through: u64) -> Result<(), TantivyError> {
    let mut prepared = writer.prepare_commit()?;
    prepared.set_payload(&payload(through));
    prepared.commit()?;
    Ok(())
}

/// An index that is being built from nothing, beside the one that is in use.
pub(super) struct Build {
    opened: Opened,
    writer: IndexWriter,
}

impl Build {
    pub(super) fn begin(dir: &Path) -> Result<Self, TantivyError> {
        let opened = Opened::create(dir)?;
        let writer = opened.writer(BUILD_WRITER_BYTES)?;
        Ok(Self { opened, writer })
    }

    pub(super) fn add(&self, doc: &Doc) -> Result<(), TantivyError> {
        self.writer.add_document(self.opened.document(doc))?;
        Ok(())
    }

    /// Makes it complete.
    pub(super) fn end(mut self, through: u64) -> Result<(), TantivyError> {
        commit(&mut self.writer, through)?;
        self.opened.merge(&mut self.writer)
    }
}
