//! What a peer sends, put into a host's inbox.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::ids::{GroupId, GroupIdentity, Incarnation, NodeId};
use crate::options::KEEPALIVE_MS_MAX;
use crate::transport::frames::{Frames, Quiet, ServerConnection};
use crate::transport::{Inbox, Socket};
use crate::wire::{
    Answer, Answers, ClientFrame, NodeAddress, Opening, Purpose, Reached, Refusal, Requests, ServerFrame, answer,
    client_frame, server_frame,
};

/// Messages of one connection that wait for their answer, or whose answer waits to be sent; past it, the connection is not read.
const RUNNING_MAX: usize = 4_096;
/// A message that its replica has not answered for this long is given up: its sender has, and a replica that hangs must
/// not fill the room of all others on the connection.
const DELIVERY_MAX: Duration = Duration::from_secs(10);
/// After a connection that could not be accepted: there may be no descriptors left, and it would be tried again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PARTS_AHEAD: usize = 4;
/// Whoever connects says within this time what for.
const OPENING_MAX: Duration = Duration::from_secs(5);
/// A peer that has sent nothing for this long, not even a question whether this is there, is gone. It asks when nothing has come to it: as long
/// as answers do, which may be so long after the last of its messages.
const SILENCE_MAX: Duration = DELIVERY_MAX.saturating_add(Duration::from_millis(3 * KEEPALIVE_MS_MAX));
/// Whoever is told why a connection ends has this long to read it.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// Takes what a peer sends over `stream`, until the connection ends. Returns why, if it is not that the peer wanted it.
pub(crate) async fn serve(stream: Box<dyn Socket>, inbox: Arc<dyn Inbox>) -> Result<(), String> {
    let mut connection = ServerConnection::new(stream, Frames::new());
    let first = tokio::time::timeout(OPENING_MAX, connection.next()).await.map_err(|_| "it does not say what for")?;
    let opening = match first.map(|frame| frame.map(|frame| frame.body)) {
        None => return Ok(()),
        Some(Ok(Some(client_frame::Body::Opening(opening)))) => opening,
        Some(Ok(_)) => return Err(end(connection, "it does not begin with its opening").await),
        Some(Err(error)) => return Err(error.to_string()),
    };
    let Opening { from, to, purpose, address } = opening;
    if to != inbox.node().0 {
        return Err(end(connection, "this is another node").await);
    }
    inbox.reached(NodeId(from), address);
    match Purpose::try_from(purpose) {
        Ok(Purpose::Exchange) => {
            let others = inbox.told_by_others(NodeId(from));
            if !others.is_empty() {
                let nodes = others.into_iter().map(|(node, address)| NodeAddress { node: node.0, address }).collect();
                let frame = ServerFrame { body: Some(server_frame::Body::Reached(Reached { nodes })) };
                connection.send(frame).await.map_err(|error| error.to_string())?;
            }
            let mut exchange = Exchange {
                inbox,
                from: NodeId(from),
                incoming: Incoming::new(connection, SILENCE_MAX),
                running: FuturesUnordered::new(),
                ready: Vec::new(),
                probed: false,
            };
            std::future::poll_fn(|cx| exchange.poll(cx)).await
        }
        Ok(Purpose::Install) => install(Incoming::new(connection, SILENCE_MAX), inbox).await,
        Ok(Purpose::Unspecified) | Err(_) => Err(end(connection, "what for is not known here").await),
    }
}

/// Serves every connection that comes, in plain text. They end when this is dropped.
pub(crate) async fn listen(listener: TcpListener, inbox: Arc<dyn Inbox>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => drop(connections.spawn(serve(Box::new(stream), inbox.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Tells whoever has connected over `stream` why it is not served.
pub fn refuse(stream: impl Socket + 'static, reason: String) -> BoxFuture<'static, ()> {
    let connection = ServerConnection::new(Box::new(stream), Frames::new());
    async move { drop(end(connection, &reason).await) }.boxed()
}

async fn end(connection: ServerConnection, reason: &str) -> String {
    finish(connection, server_frame::Body::Refused(reason.to_owned())).await;
    reason.to_owned()
}

/// Sends the last frame. What still comes is read and thrown away until the peer closes: a connection that is closed with something
/// unread in it is reset, and what was sent last is lost (RFC 2525, section 2.17).
async fn finish(mut connection: ServerConnection, body: server_frame::Body) {
    let finishing = async {
        connection.send(ServerFrame { body: Some(body) }).await?;
        connection.close().await?;
        let mut unread = [0; 4 << 10];
        while connection.get_mut().read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // It was the last thing to be said: that it was not heard changes nothing.
    drop(tokio::time::timeout(LINGER_MAX, finishing).await);
}

/// What comes on a connection, for as long as something does.
struct Incoming {
    connection: ServerConnection,
    quiet: Quiet,
    /// Of a frame that has not come whole.
    buffered: usize,
}

impl Incoming {
    /// Over when the peer closes it.
    fn new(connection: ServerConnection, silence_max: Duration) -> Self {
        Self { connection, quiet: Quiet::new(silence_max), buffered: 0 }
    }

    /// The next frame; an error when nothing comes for too long. On a slow link one may take longer than that: its bytes count.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<ClientFrame>>> {
        let frame = self.connection.poll_next_unpin(cx);
        let buffered = self.connection.read_buffer().len();
        if frame.is_ready() || buffered != self.buffered {
            self.buffered = buffered;
            self.quiet.hear();
        }
        if frame.is_pending() && self.quiet.poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer is silent"))));
        }
        frame
    }
}

/// Messages and their answers.
struct Exchange {
    inbox: Arc<dyn Inbox>,
    from: NodeId,
    incoming: Incoming,
    running: FuturesUnordered<BoxFuture<'static, Answer>>,
    ready: Vec<Answer>,
    /// The peer has asked whether this is there.
    probed: bool,
}

impl Exchange {
    /// Takes messages and sends answers until the connection ends.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        loop {
            if let Poll::Ready(ended) = self.poll_receive(cx) {
                return Poll::Ready(ended);
            }
            while let Poll::Ready(Some(answer)) = self.running.poll_next_unpin(cx) {
                self.ready.push(answer);
            }
            let sent = if self.ready.is_empty() && !self.probed {
                return ready!(self.incoming.connection.poll_flush_unpin(cx))
                    .map_or_else(|error| lost(&error), |()| Poll::Pending);
            } else {
                ready!(self.incoming.connection.poll_ready_unpin(cx)).and_then(|()| self.send())
            };
            if let Err(error) = sent {
                return lost(&error);
            }
        }
    }

    /// Ready only when nothing more can come.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        while self.running.len() + self.ready.len() < RUNNING_MAX {
            match ready!(self.incoming.poll_frame(cx)) {
                Some(Ok(_)) if self.inbox.closed() => return Poll::Ready(Ok(())),
                Some(Ok(frame)) => match frame.body {
                    Some(client_frame::Body::Requests(requests)) => self.accept(requests, cx),
                    None => self.probed = true,
                    Some(client_frame::Body::Opening(_) | client_frame::Body::Part(_)) => {
                        return Poll::Ready(Err("a frame that does not belong here".to_owned()));
                    }
                },
                // It sends again what it must.
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return lost(&error),
            }
        }
        // There is no room to read; that for answers comes only when the peer takes them.
        self.incoming.quiet.poll(cx).map(|_| Err("the peer takes no answers".to_owned()))
    }

    /// Puts the messages into their replicas' queues, in order.
    fn accept(&mut self, requests: Requests, cx: &mut Context<'_>) {
        for message in requests.messages {
            let id = message.id;
            let Some(body) = message.body else {
                let body = Some(answer::Body::Refused(Refusal::Malformed.into()));
                self.ready.push(Answer { id, body });
                continue;
            };
            let group = GroupIdentity { id: GroupId(message.group), incarnation: Incarnation(message.incarnation) };
            let delivery = self.inbox.deliver(self.from, group, body);
            let mut answer = async move {
                let late = || answer::Body::Refused(Refusal::Late.into());
                let body = tokio::time::timeout(DELIVERY_MAX, delivery).await.unwrap_or_else(|_| late());
                Answer { id, body: Some(body) }
            }
            .boxed();
            // The first poll is what queues the message, so it happens here and now, one after the other, also when the task has used up what
            // tokio lets it do at a time.
            match tokio::task::unconstrained(&mut answer).poll_unpin(cx) {
                Poll::Ready(answer) => self.ready.push(answer),
                Poll::Pending => self.running.push(answer),
            }
        }
    }

    /// All answers that there are, or that there are none but this is there.
    fn send(&mut self) -> io::Result<()> {
        self.probed = false;
        let answers = std::mem::take(&mut self.ready);
        let body = (!answers.is_empty()).then_some(server_frame::Body::Answers(Answers { answers }));
        self.incoming.connection.start_send_unpin(ServerFrame { body })
    }
}

fn lost<T>(error: &io::Error) -> Poll<Result<T, String>> {
    Poll::Ready(Err(error.to_string()))
}

/// Takes a snapshot.
async fn install(mut incoming: Incoming, inbox: Arc<dyn Inbox>) -> Result<(), String> {
    let (feed, fed) = mpsc::channel(PARTS_AHEAD);
    let installing = inbox.install(fed);
    tokio::pin!(installing);
    let feeding = async {
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| incoming.poll_frame(cx)).await {
            let part = match frame.body {
                Some(client_frame::Body::Part(part)) => part,
                // It is still there.
                None => continue,
                Some(client_frame::Body::Opening(_) | client_frame::Body::Requests(_)) => break,
            };
            if feed.send(part).await.is_err() {
                // Who installs has all, or has failed and says why.
                break;
            }
            // As long as nobody has room for it, nobody looks what else comes.
            incoming.quiet.hear();
        }
        // How the connection ended shows in what was installed.
        drop(feed);
    };
    let installed = tokio::select! {
        installed = &mut installing => installed,
        () = feeding => installing.await,
    };
    match installed {
        Ok(answer) => {
            finish(incoming.connection, server_frame::Body::Installed(answer)).await;
            Ok(())
        }
        Err(error) => Err(end(incoming.connection, &error.to_string()).await),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;
    use tokio_util::codec::Encoder;

    use super::*;

    const SILENCE: Duration = Duration::from_secs(2);
    const GAP: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_frame_may_take_longer_than_silence_and_silence_ends_it() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut incoming = Incoming::new(ServerConnection::new(Box::new(near), Frames::new()), SILENCE);
        let opening =
            Opening { from: u64::MAX, to: u64::MAX, purpose: Purpose::Exchange.into(), address: String::new() };
        let sent = ClientFrame { body: Some(client_frame::Body::Opening(opening)) };
        let mut bytes = BytesMut::new();
        Frames::<ServerFrame, ClientFrame>::new().encode(sent.clone(), &mut bytes).expect("a frame");
        assert!(GAP * bytes.len() as u32 > SILENCE);
        let writing = async {
            for byte in bytes {
                tokio::time::sleep(GAP).await;
                far.write_all(&[byte]).await.expect("a connection");
            }
        };
        let (frame, ()) = tokio::join!(std::future::poll_fn(|cx| incoming.poll_frame(cx)), writing);
        assert_eq!(frame.expect("a frame").expect("in time"), sent);

        let began = Instant::now();
        let frame = std::future::poll_fn(|cx| incoming.poll_frame(cx)).await;
        assert_eq!(frame.expect("an error").expect_err("nothing came").kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= SILENCE / 2);
    }
}
