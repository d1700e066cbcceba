//! Replies of SMTP servers, in any pieces.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use postrider_outgoing::limit::{REPLY_LINES_MAX, REPLY_TEXT_BYTES_MAX};
use postrider_outgoing::smtp::{Extensions, Reply, ReplyReader};

fn all(pieces: &[&[u8]]) -> (Vec<Reply>, bool) {
    let (mut reader, mut buffer, mut replies) = (ReplyReader::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match reader.take(&mut buffer) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(_) => return (replies, false),
            }
        }
    }
    (replies, true)
}

fuzz_target!(|data: &[u8]| {
    let (first, rest) = data.split_first().map_or((0, data), |(first, rest)| (usize::from(*first), rest));
    let whole = all(&[rest]);
    let (before, after) = rest.split_at(first.min(rest.len()));
    assert_eq!(whole, all(&[before, after]), "it does not matter how bytes come");
    for reply in &whole.0 {
        assert!((200..600).contains(&reply.code) && reply.lines.len() <= REPLY_LINES_MAX);
        let text = reply.to_string();
        assert!(text.len() <= REPLY_TEXT_BYTES_MAX && !text.contains(char::is_control));
        Extensions::of(reply);
    }
});
