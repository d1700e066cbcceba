//! Frames: how messages lie on a connection.
//!
//! A frame is a length, four bytes, most significant first, and a protobuf message of so many bytes. It needs no stream numbers, windows
//! or headers: a connection carries one class of messages, or one snapshot, and TCP has the windows.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use prost::Message;
use tokio::time::{Instant, Sleep};
use tokio_util::codec::{Decoder, Encoder, Framed};

use crate::transport::Socket;
use crate::wire::{ClientFrame, FRAME_BYTES_MAX, FRAME_BYTES_TARGET, ServerFrame};

/// The length in front of a message.
const LENGTH_BYTES: usize = size_of::<u32>();
/// What is read into when nothing is known yet of what comes.
const BUFFER_BYTES: usize = 8 << 10;
/// A buffer that a large frame has made larger than this is not kept for small ones.
const BUFFER_KEPT_BYTES_MAX: usize = 2 * FRAME_BYTES_TARGET;

/// Reads frames of one kind and writes those of another.
pub(crate) struct Frames<In, Out>(PhantomData<fn(Out) -> In>);

/// A connection, for the one who has made it.
pub(crate) type ClientConnection = Framed<Box<dyn Socket>, Frames<ServerFrame, ClientFrame>>;
/// The same, for the one who has accepted it.
pub(crate) type ServerConnection = Framed<Box<dyn Socket>, Frames<ClientFrame, ServerFrame>>;

impl<In, Out> Frames<In, Out> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<In: Message + Default, Out> Decoder for Frames<In, Out> {
    type Item = In;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<In>> {
        let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            let reason = format!("a frame of {length} bytes; {FRAME_BYTES_MAX} is the most");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let missing = (LENGTH_BYTES + length).saturating_sub(bytes.len());
        if missing > 0 {
            bytes.reserve(missing);
            return Ok(None);
        }
        bytes.advance(LENGTH_BYTES);
        // The commands in it stay where they are.
        let message = In::decode(bytes.split_to(length).freeze());
        if bytes.is_empty() && length > BUFFER_KEPT_BYTES_MAX {
            *bytes = BytesMut::with_capacity(BUFFER_BYTES);
        }
        message.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl<In, Out: Message> Encoder<Out> for Frames<In, Out> {
    type Error = io::Error;

    fn encode(&mut self, message: Out, bytes: &mut BytesMut) -> io::Result<()> {
        let length = message.encoded_len();
        if length > FRAME_BYTES_MAX {
            let reason = format!("a frame of {length} bytes; {FRAME_BYTES_MAX} is the most");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let wanted = LENGTH_BYTES + length;
        // First, since this is where a buffer gets back what has been sent of it.
        bytes.reserve(wanted);
        if bytes.is_empty() && bytes.capacity() > BUFFER_KEPT_BYTES_MAX.max(wanted) {
            *bytes = BytesMut::with_capacity(wanted);
        }
        // Below the limit, which fits.
        bytes.put_u32(length as u32);
        message.encode(bytes).map_err(io::Error::other)
    }
}

/// Notices that nothing comes. Cheap to tell that something has: the timer runs on, and looks when it is due.
pub(crate) struct Quiet {
    every: Duration,
    heard: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Quiet {
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, heard: Instant::now(), timer: Box::pin(tokio::time::sleep(every)) }
    }

    /// Something has come.
    pub(crate) fn hear(&mut self) {
        self.heard = Instant::now();
    }

    /// Ready whenever nothing has come for so long again, with for how long nothing has.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let silence = self.heard.elapsed();
            if silence >= self.every {
                self.timer.as_mut().reset(Instant::now() + self.every);
                return Poll::Ready(silence);
            }
            self.timer.as_mut().reset(self.heard + self.every);
        }
    }
}

/// Reads all frames in `data`, each of which is written and read again as the same. For fuzzing.
///
/// # Panics
/// When it is not.
pub(crate) fn fuzz<M: Message + Default + Clone + PartialEq>(data: &[u8]) {
    let mut frames = Frames::<M, M>::new();
    let mut bytes = BytesMut::from(data);
    while let Ok(Some(frame)) = frames.decode(&mut bytes) {
        let mut written = BytesMut::new();
        // What is not in the shortest form may be longer when read than the limit allows, never when written.
        frames.encode(frame.clone(), &mut written).expect("not longer than what was read");
        let again = frames.decode(&mut written).expect("our own frame");
        assert!(again == Some(frame) && written.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Message as One, Opening, Requests, client_frame};

    fn frame(messages: u32) -> ClientFrame {
        let messages = (1..=messages).map(|group| One { id: 7, group, ..One::default() }).collect();
        ClientFrame { body: Some(client_frame::Body::Requests(Requests { messages })) }
    }

    fn written(frames: impl IntoIterator<Item = ClientFrame>) -> BytesMut {
        let mut bytes = BytesMut::new();
        for frame in frames {
            Frames::<ClientFrame, ClientFrame>::new().encode(frame, &mut bytes).expect("a frame");
        }
        bytes
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let sent = [ClientFrame::default(), frame(1), frame(0), frame(300)];
        let whole = written(sent.clone());
        for step in [1, 2, 3, 5, 64, whole.len()] {
            let (mut bytes, mut came) = (BytesMut::new(), Vec::new());
            for piece in whole.chunks(step) {
                bytes.extend_from_slice(piece);
                while let Some(frame) = Frames::<ClientFrame, ClientFrame>::new().decode(&mut bytes).expect("a frame") {
                    came.push(frame);
                }
            }
            assert_eq!(came, sent);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_there_is_room_for_it() {
        let mut frames = Frames::<ClientFrame, ClientFrame>::new();
        let mut long = BytesMut::from(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()[..]);
        assert_eq!(frames.decode(&mut long).expect_err("too long").kind(), io::ErrorKind::InvalidData);
        assert!(long.capacity() < FRAME_BYTES_MAX);
        let mut garbage = BytesMut::from(&[0, 0, 0, 2, 0xff, 0xff][..]);
        assert_eq!(frames.decode(&mut garbage).expect_err("garbage").kind(), io::ErrorKind::InvalidData);
        let opening = Opening { from: 1, to: 2, purpose: 9, address: "a:1".to_owned() };
        let mut unknown = written([ClientFrame { body: Some(client_frame::Body::Opening(opening.clone())) }]);
        let read = frames.decode(&mut unknown).expect("protobuf keeps what it does not know");
        assert_eq!(read.expect("whole").body, Some(client_frame::Body::Opening(opening)));
    }

    #[test]
    fn the_room_of_a_large_frame_is_given_back() {
        let mut frames = Frames::<ClientFrame, ClientFrame>::new();
        let mut bytes = BytesMut::new();
        frames.encode(frame(500_000), &mut bytes).expect("a frame");
        assert!(bytes.len() > BUFFER_KEPT_BYTES_MAX);
        bytes.advance(bytes.len());
        frames.encode(frame(1), &mut bytes).expect("a frame");
        assert!(bytes.capacity() <= BUFFER_KEPT_BYTES_MAX);
    }

    #[tokio::test]
    async fn silence_is_counted_from_what_came_last() {
        let every = Duration::from_millis(50);
        let mut quiet = Quiet::new(every);
        tokio::time::sleep(every / 2).await;
        let heard = Instant::now();
        quiet.hear();
        let first = std::future::poll_fn(|cx| quiet.poll(cx)).await;
        assert!(first >= every && heard.elapsed() >= every);
        let second = std::future::poll_fn(|cx| quiet.poll(cx)).await;
        assert!(second >= 2 * every && heard.elapsed() >= 2 * every);
    }
}
