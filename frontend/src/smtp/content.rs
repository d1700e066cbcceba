//! A message as it streams in, by DATA or by BDAT.
//!
//! Invariant: only CRLF "." CRLF ends DATA (RFC 5321 section 4.1.1.4); what a bare CR or LF might seem to end never does.
//! Invariant: from the first fault on nothing is kept, and everything up to the true end is thrown away.
//! Invariant: what is kept is accounted in the budget before it is kept, and nothing is set aside for what has not come.

use bytes::{Buf as _, Bytes, BytesMut};
use postrider_api::limit::COMMAND_BYTES_MAX;

use super::limit::READ_BYTES;
use super::reply::Reply;
use crate::budget::{Full, Share};

/// What a message counts while room for `bytes` of it is set aside: the room; what a command that carries its text takes once
/// more while it is encoded for a node, which is never longer than the message nor than a command may be; and what is read into
/// meanwhile. Decoded parts are not in it: they take the place of the message, which is gone when they are stored, and while
/// both are there [`INGEST_BYTES_MAX`](super::limit::INGEST_BYTES_MAX) bounds them.
pub fn accounted(bytes: usize) -> usize {
    bytes.saturating_add(bytes.min(COMMAND_BYTES_MAX)).saturating_add(READ_BYTES)
}

/// Why a message is refused while it streams. Of several the highest counts, so that what a client is told does not depend on
/// how the network cut its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The budget of all connections is used up.
    MemoryFull,
    /// This peer network's part of it is.
    PeerMemoryFull,
    /// Over the limit (RFC 1870 section 6.3).
    TooLarge,
    /// NUL.
    Nul,
    /// CR without LF or LF without CR (RFC 5321 section 2.3.8): the way of SMTP smuggling. It decides whether the connection
    /// goes on.
    BareLineEnding,
}

impl Fault {
    /// What the client is told at the end.
    pub fn reply(self) -> Reply {
        match self {
            Fault::TooLarge => Reply::MessageTooLarge,
            Fault::MemoryFull => Reply::MemoryFull,
            Fault::PeerMemoryFull => Reply::PeerMemoryFull,
            Fault::BareLineEnding => Reply::ContentBareLineEnding,
            Fault::Nul => Reply::ContentNul,
        }
    }

    /// Whether the connection ends with it. Where line endings are ambiguous, so is the end of the message: what follows might
    /// be its content for one side and commands for the other.
    pub fn closes(self) -> bool {
        self == Fault::BareLineEnding
    }
}

impl From<Full> for Fault {
    fn from(full: Full) -> Self {
        match full {
            Full::All => Fault::MemoryFull,
            Full::Peer => Fault::PeerMemoryFull,
        }
    }
}

/// The bytes of one message, with what the server puts on top.
#[derive(Debug)]
pub struct Content {
    /// Grows to the byte, so that what is accounted is what is taken.
    kept: Vec<u8>,
    share: Share,
    /// Bytes of `kept` that are accounted, used or not.
    room: usize,
    prefix: usize,
    bytes_max: u64,
    /// Bytes that arrived, kept or not.
    arrived: u64,
    fault: Option<Fault>,
}

impl Content {
    /// An empty message under `trace`, which does not count towards `bytes_max`. `announced` is SIZE, 0 without: a message that
    /// has no room now is refused before it comes, but room is set aside only for what does come.
    pub fn new(trace: &[u8], share: Share, bytes_max: u64, announced: u64) -> Self {
        let prefix = trace.len();
        let mut content = Self { kept: Vec::new(), share, room: 0, prefix, bytes_max, arrived: 0, fault: None };
        let announced = usize::try_from(announced.min(bytes_max)).unwrap_or(usize::MAX);
        let fits = content.share.check(accounted(prefix.saturating_add(announced)));
        match fits.and_then(|()| content.set_aside(prefix)) {
            Ok(()) => content.kept.extend_from_slice(trace),
            Err(full) => content.fail(full.into()),
        }
        content
    }

    /// Bytes that arrived so far, kept or not.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// What is wrong with it so far.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The whole message and the memory that it holds.
    ///
    /// # Errors
    /// Its fault.
    pub fn finish(self) -> Result<Finished, Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(Finished { bytes: Bytes::from(self.kept), trace: self.prefix, share: self.share }),
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.fault = self.fault.max(Some(fault));
        self.kept = Vec::new();
        self.room = 0;
        // What still comes is read before it is thrown away.
        self.share.shrink(READ_BYTES);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.arrived += bytes.len() as u64;
        if self.fault.is_some() || bytes.is_empty() {
            return;
        }
        if (self.kept.len() - self.prefix) as u64 + bytes.len() as u64 > self.bytes_max {
            return self.fail(Fault::TooLarge);
        }
        let wanted = self.kept.len() + bytes.len();
        if wanted > self.room {
            // Doubling keeps copies few, up to what a message may have; where it would not fit any more, what is wanted still may.
            let largest = usize::try_from(self.bytes_max).unwrap_or(usize::MAX).saturating_add(self.prefix);
            let doubled = wanted.max(self.room.saturating_mul(2).min(largest));
            if let Err(full) = self.set_aside(doubled).or_else(|_| self.set_aside(wanted)) {
                return self.fail(full.into());
            }
        }
        self.kept.extend_from_slice(bytes);
    }

    /// Room for `wanted` bytes in all, which are more than there is room for; accounted first.
    fn set_aside(&mut self, wanted: usize) -> Result<(), Full> {
        self.share.grow(accounted(wanted) - self.share.amount())?;
        self.kept.reserve_exact(wanted - self.kept.len());
        self.room = wanted;
        Ok(())
    }
}

/// A message that came in whole.
#[derive(Debug)]
pub struct Finished {
    /// Trace header fields, then what the client sent.
    pub bytes: Bytes,
    /// How many of them are trace header fields.
    pub trace: usize,
    /// Held until the message is stored or given up.
    pub share: Share,
}

impl Finished {
    /// What the client sent.
    pub fn sent(&self) -> &[u8] {
        &self.bytes[self.trace..]
    }
}

/// Where in the text of a message the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind CRLF, or at the very start.
    LineStart,
    /// Within a line.
    Line,
    /// Behind a CR.
    Cr,
    /// Behind a dot at the start of a line.
    Dot,
    /// Behind that and a CR.
    DotCr,
}

/// Takes a message in the form of DATA: lines, dots doubled (RFC 5321 section 4.5.2), CRLF.CRLF at the end.
#[derive(Debug)]
pub struct Dotted {
    content: Content,
    place: Place,
}

impl Dotted {
    /// Behind `354`.
    pub fn new(content: Content) -> Self {
        Self { content, place: Place::LineStart }
    }

    /// The message so far.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The message.
    pub fn into_content(self) -> Content {
        self.content
    }

    /// Takes from `input` what belongs to the message; true when it has ended. What follows the end stays in `input`.
    pub fn take(&mut self, input: &mut BytesMut) -> bool {
        // `run` is where the bytes that are to be kept in one piece begin, `at` the next byte to look at.
        let (mut run, mut at, mut ended) = (0, 0, false);
        while let Some(&byte) = input.get(at) {
            match (self.place, byte) {
                (Place::LineStart, b'.') => {
                    self.content.push(&input[run..at]);
                    at += 1;
                    run = at;
                    self.place = Place::Dot;
                }
                (Place::Dot, b'\r') => {
                    at += 1;
                    run = at;
                    self.place = Place::DotCr;
                }
                (Place::DotCr, b'\n') => {
                    at += 1;
                    run = at;
                    ended = true;
                    break;
                }
                (Place::Cr, b'\n') => {
                    at += 1;
                    self.place = Place::LineStart;
                }
                (Place::Cr | Place::DotCr, _) => {
                    self.content.fail(Fault::BareLineEnding);
                    self.place = Place::Line;
                }
                (Place::LineStart | Place::Line | Place::Dot, _) => {
                    (at, self.place) = within_line(&mut self.content, input, at);
                }
            }
        }
        self.content.push(&input[run..at]);
        input.advance(at);
        ended
    }
}

/// Goes on from `at` to behind the next byte that means something.
fn within_line(content: &mut Content, input: &[u8], at: usize) -> (usize, Place) {
    let Some(found) = memchr::memchr3(b'\r', b'\n', 0, &input[at..]) else {
        return (input.len(), Place::Line);
    };
    let at = at + found + 1;
    match input[at - 1] {
        b'\r' => (at, Place::Cr),
        b'\n' => {
            // Not a line start: a dot behind it ends nothing.
            content.fail(Fault::BareLineEnding);
            (at, Place::Line)
        }
        _ => {
            content.fail(Fault::Nul);
            (at, Place::Line)
        }
    }
}

/// Takes a message in the form of BDAT: chunks of announced length (RFC 3030). BINARYMIME is not offered, so it too consists of
/// lines.
#[derive(Debug)]
pub struct Chunked {
    content: Content,
    /// Bytes of the current chunk that are still to come.
    left: u64,
    /// Whether a CR came last.
    cr: bool,
}

impl Chunked {
    /// No chunk yet.
    pub fn new(content: Content) -> Self {
        Self { content, left: 0, cr: false }
    }

    /// The message so far.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// A chunk of `size` bytes follows.
    pub fn begin(&mut self, size: u64) {
        self.left = size;
        if self.content.arrived.saturating_add(size) > self.content.bytes_max {
            self.content.fail(Fault::TooLarge);
        }
    }

    /// Bytes of the current chunk that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes from `input` what belongs to the chunk; true when that has ended.
    pub fn take(&mut self, input: &mut BytesMut) -> bool {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let chunk = input.split_to(length);
        self.left -= length as u64;
        self.check(&chunk);
        self.content.push(&chunk);
        self.left == 0
    }

    /// The whole message, after the last chunk.
    pub fn into_content(mut self) -> Content {
        if self.cr {
            self.content.fail(Fault::BareLineEnding);
        }
        self.content
    }

    fn check(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while at < chunk.len() {
            if std::mem::take(&mut self.cr) {
                if chunk[at] == b'\n' {
                    at += 1;
                    continue;
                }
                self.content.fail(Fault::BareLineEnding);
            }
            let place;
            (at, place) = within_line(&mut self.content, chunk, at);
            self.cr = place == Place::Cr;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::budget::Budget;

    fn share_of(budget: &std::sync::Arc<Budget>) -> Share {
        budget.share(std::net::Ipv4Addr::LOCALHOST.into())
    }

    fn content(trace: &[u8], max: u64) -> Content {
        Content::new(trace, share_of(&Budget::new(4 << 20, 4 << 20)), max, 0)
    }

    fn dotted(max: u64) -> Dotted {
        Dotted::new(content(b"", max))
    }

    /// What a client sends for `message`, whose lines end with CRLF.
    fn stuff(message: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                sent.push(b'.');
            }
            sent.extend_from_slice(line);
        }
        sent.extend_from_slice(b".\r\n");
        sent
    }

    fn feed(dotted: &mut Dotted, sent: &[u8], splits: &[usize]) -> Option<Vec<u8>> {
        let mut input = BytesMut::new();
        let mut rest = sent;
        let mut splits = splits.iter().cycle();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at((*splits.next()?).clamp(1, rest.len()));
            rest = tail;
            input.extend_from_slice(head);
            if dotted.take(&mut input) {
                input.extend_from_slice(rest);
                return Some(input.to_vec());
            }
            assert!(input.is_empty());
        }
        None
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![3 => Just(b'.'), 5 => any::<u8>()];
        let line = prop::collection::vec(byte, 0..12).prop_map(|mut line| {
            line.retain(|byte| ![b'\r', b'\n', 0].contains(byte));
            line.extend_from_slice(b"\r\n");
            line
        });
        prop::collection::vec(line, 0..20).prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn dots_come_back_whatever_the_reads(message in message(), splits in prop::collection::vec(1usize..9, 1..8)) {
            let mut sent = stuff(&message);
            sent.extend_from_slice(b"QUIT\r\n");
            let mut dotted = dotted(1 << 20);
            let behind = feed(&mut dotted, &sent, &splits);
            prop_assert_eq!(behind.as_deref(), Some(b"QUIT\r\n".as_slice()));
            let finished = dotted.into_content().finish().unwrap();
            prop_assert_eq!(&finished.bytes[..], &message[..]);
        }

        #[test]
        fn chunks_come_back_whatever_the_reads(
            message in message(),
            chunks in prop::collection::vec(0usize..9, 1..8),
            reads in 1usize..9,
        ) {
            let mut chunked = Chunked::new(content(b"T: 1\r\n", 1 << 20));
            let mut rest = &message[..];
            let mut sizes = chunks.iter().cycle();
            loop {
                let size = if rest.len() < 9 { rest.len() } else { *sizes.next().unwrap() };
                let (chunk, tail) = rest.split_at(size.min(rest.len()));
                chunked.begin(chunk.len() as u64);
                for piece in chunk.chunks(reads) {
                    chunked.take(&mut BytesMut::from(piece));
                }
                prop_assert_eq!(chunked.left(), 0);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
                if chunks.iter().all(|size| *size == 0) {
                    return Ok(());
                }
            }
            let finished = chunked.into_content().finish().unwrap();
            prop_assert_eq!(finished.sent(), &message[..]);
            prop_assert_eq!(&finished.bytes[..finished.trace], b"T: 1\r\n");
        }

        #[test]
        fn any_bare_line_ending_is_found(
            before in message(),
            after in message(),
            bare in prop_oneof![Just(b"\n".to_vec()), Just(b"\r".to_vec()), Just(b"\r\r\n".to_vec()), Just(b"\n\r".to_vec())],
            splits in prop::collection::vec(1usize..9, 1..8),
        ) {
            let mut content = before;
            content.push(b'x');
            content.extend_from_slice(&bare);
            content.push(b'x');
            content.extend_from_slice(b"\r\n");
            content.extend_from_slice(&after);
            let mut dotted = dotted(1 << 20);
            prop_assert!(feed(&mut dotted, &stuff_after(&content), &splits).is_some());
            prop_assert_eq!(dotted.into_content().finish().unwrap_err(), Fault::BareLineEnding);
        }
    }

    /// Dots doubled only behind CRLF, as a correct client does that was given bare line endings.
    fn stuff_after(content: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        for (index, byte) in content.iter().enumerate() {
            if *byte == b'.' && (index == 0 || content[..index].ends_with(b"\r\n")) {
                sent.push(b'.');
            }
            sent.push(*byte);
        }
        sent.extend_from_slice(b".\r\n");
        sent
    }

    #[test]
    fn no_other_sequence_ends_a_message() {
        for ending in [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\r.\r\n",
            "\r\n.\r",
            "\r\n.\r\r\n",
            "\n.\r",
            "\r\r\n.\n",
            "\0.\r\n",
        ] {
            let mut dotted = dotted(1 << 20);
            let sent = format!("Subject: a\r\n\r\nbody{ending}MAIL FROM:<evil@x.example>\r\n");
            assert_eq!(feed(&mut dotted, sent.as_bytes(), &[3]), None, "{ending:?}");
            assert!(dotted.content().fault().is_some(), "{ending:?}");
            assert_eq!(feed(&mut dotted, b".\r\nRSET\r\n", &[1]), Some(b"RSET\r\n".to_vec()), "{ending:?}");
        }
    }

    #[test]
    fn too_large_keeps_nothing() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let mut dotted = Dotted::new(Content::new(b"", share_of(&budget), 100, 0));
        let sent = stuff(&b"0123456789\r\n".repeat(1000));
        assert_eq!(feed(&mut dotted, &sent, &[64]), Some(Vec::new()));
        // The connection still reads what it throws away.
        assert_eq!(budget.used(), READ_BYTES);
        assert_eq!(dotted.into_content().finish().unwrap_err(), Fault::TooLarge);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_budget_of_all_is_kept() {
        let bytes_max = 2 * READ_BYTES + 2000;
        let budget = Budget::new(bytes_max, 2 * bytes_max);
        let mut first = Dotted::new(Content::new(b"", share_of(&budget), 1 << 20, 0));
        let mut second = Dotted::new(Content::new(b"", share_of(&budget), 1 << 20, 0));
        assert_eq!(feed(&mut first, &b"0123456789\r\n".repeat(40), &[100]), None);
        assert_eq!(feed(&mut second, &b"0123456789\r\n".repeat(80), &[100]), None);
        assert_eq!(first.content().fault(), None);
        assert_eq!(second.content().fault(), Some(Fault::MemoryFull));
        assert!(budget.used() <= bytes_max);
    }

    #[test]
    fn the_part_of_a_peer_is_kept() {
        let budget = Budget::new(1 << 20, 2 * READ_BYTES);
        let mut dotted = Dotted::new(Content::new(b"", share_of(&budget), 1 << 20, 0));
        assert_eq!(feed(&mut dotted, &b"0123456789\r\n".repeat(8000), &[1000]), None);
        assert_eq!(dotted.content().fault(), Some(Fault::PeerMemoryFull));
    }

    #[test]
    fn nothing_is_set_aside_for_what_has_not_come() {
        let budget = Budget::new(1 << 20, 4 << 20);
        let announced = Content::new(b"T: 1\r\n", share_of(&budget), 1 << 20, 300_000);
        assert_eq!((announced.fault(), budget.used()), (None, accounted(6)));
        // What could not come now is refused before it does, without a byte taken.
        let too_much = Content::new(b"T: 1\r\n", share_of(&budget), 1 << 20, 1 << 20);
        assert_eq!((too_much.fault(), budget.used()), (Some(Fault::MemoryFull), accounted(6)));
    }

    proptest! {
        #[test]
        fn what_is_accounted_is_what_is_taken(pieces in prop::collection::vec(1usize..5000, 1..60)) {
            let budget = Budget::new(1 << 20, 1 << 20);
            let mut content = Content::new(b"T: 1\r\n", share_of(&budget), 150_000, 0);
            for piece in pieces {
                content.push(&vec![b'x'; piece]);
                let taken = if content.fault().is_some() { READ_BYTES } else { accounted(content.kept.capacity()) };
                prop_assert_eq!(budget.used(), taken);
                prop_assert!(content.kept.capacity() <= 150_000 + 6, "never more than a message may have");
            }
        }
    }
}
