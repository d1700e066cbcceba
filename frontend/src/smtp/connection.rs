//! One client's connection: moves bytes between the socket and the [`Session`], and asks the cluster what the session wants
//! to know.
//!
//! Invariant: everything that waits has a time limit, and bytes that trickle in put none off: a command is timed as a whole, a
//! message as a whole and by its rate. Replies that come together are written together.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::join_all;
use postrider_api::env::Clock;
use postrider_api::pb::AppScope;
use postrider_api::trace::{self, Kind, Span};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::auth::{AuthAnswer, AuthAsk};
use super::commit::Committer;
use super::envelope::{Addressee, Transaction};
use super::limit::{COMMAND_READ_BYTES, READ_BYTES, SmtpLimits};
use super::measure;
use super::pace::Pace;
use super::recipient::Recipients;
use super::reply::{QueueId, Reply};
use super::session::{Ask, Replies, Session, Step};
use crate::account::programs::Program;
use crate::account::{AccountError, Accounts};
use crate::limits::{Counter, LimitKind, Limiter};
use crate::network::Network;
use crate::proxy::linger;

/// What a connection reaches beyond its socket.
pub(super) struct Outside {
    pub(super) recipients: Recipients,
    pub(super) committer: Committer,
    /// Who lets programs in; `None`: nobody does, and nothing is submitted.
    pub(super) programs: Option<Arc<Accounts>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: SmtpLimits,
    pub(super) limiter: Limiter,
    pub(super) drain: CancellationToken,
}

/// Why [`Connection::serve`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    /// The client waits for a TLS handshake.
    StartTls,
}

/// One connection, over plain text and then over TLS.
pub(super) struct Connection {
    outside: Arc<Outside>,
    session: Session,
    input: BytesMut,
    replies: Replies,
    began: Duration,
    /// What the session had taken whole when it last began to wait, and when that was.
    waits: (u64, Duration),
    /// The message that is coming in, by its number.
    content: Option<(u64, Pace)>,
    /// The transaction that is open, from its first recipient to the reply to its message.
    span: Span,
}

enum Got {
    Bytes,
    End,
    Late(Reply),
    Draining,
}

impl Connection {
    pub(super) fn new(outside: Arc<Outside>, session: Session, replies: Replies) -> Self {
        let began = outside.clock.monotonic();
        let waits = (session.turns(), began);
        Self { outside, session, input: BytesMut::new(), replies, began, waits, content: None, span: Span::default() }
    }

    /// TLS is there.
    pub(super) fn secured(&mut self) {
        self.session.secured();
    }

    /// Serves until the end or until TLS is to begin.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) async fn serve<S>(&mut self, stream: &mut S) -> io::Result<End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            if self.outside.drain.is_cancelled() && self.session.is_idle() {
                self.session.close(Reply::Draining, &mut self.replies);
            }
            match self.session.step(&mut self.input, &mut self.replies) {
                Step::Flush => self.flush(stream).await?,
                Step::Read => {
                    if self.session.is_idle() {
                        // A transaction that was taken back is over.
                        self.span = Span::default();
                    }
                    self.flush(stream).await?;
                    match self.read(stream).await? {
                        Got::Bytes | Got::Draining => {}
                        Got::End => return Ok(End::Closed),
                        Got::Late(reply) => self.session.close(reply, &mut self.replies),
                    }
                }
                Step::Ask(ask) => {
                    if ask.is_first() {
                        // How long the whole takes is up to the client.
                        self.span = trace::root("smtp transaction", Kind::Server).patient();
                    }
                    // Taken out: what is done within it borrows the connection.
                    let span = std::mem::take(&mut self.span);
                    span.scope(self.answer(ask)).await;
                    self.span = span;
                }
                Step::Authenticate(ask, asking) => {
                    let answer = self.authenticate(ask).await;
                    self.session.authenticated(asking, answer, &mut self.replies);
                }
                Step::Commit(transaction, held) => {
                    let mut span = std::mem::take(&mut self.span);
                    let outcome = span.scope(self.commit(transaction)).await;
                    span.enter(|| self.session.committed(held, outcome, &mut self.replies));
                    match outcome {
                        Ok(queued) => span.set_with("postrider.queue_id", || queued.to_string()),
                        Err(reply) if reply.is_passing() => span.fail(reply.row().enhanced),
                        Err(reply) => span.set("smtp.refused", reply.row().enhanced),
                    }
                }
                Step::StartTls => {
                    self.flush(stream).await?;
                    return Ok(End::StartTls);
                }
                Step::Close => {
                    self.flush(stream).await?;
                    linger(stream).await;
                    return Ok(End::Closed);
                }
            }
        }
    }

    async fn answer(&mut self, ask: Ask) {
        let mut span = trace::child("recipients", Kind::Internal);
        span.set("smtp.recipients", ask.paths().count());
        span.scope(self.answer_within(ask)).await;
    }

    async fn answer_within(&mut self, ask: Ask) {
        let recipients = &self.outside.recipients;
        if let Some(program) = ask.program() {
            // At the earliest moment, as far as this process knows; counted is a message when it is here.
            let verdicts = match self.outside.limiter.check(&self.sent_by(program)) {
                Ok(()) => {
                    let verdicts = join_all(ask.paths().map(|path| recipients.addressee(path))).await;
                    recipients.without_suppressed(program, verdicts).await
                }
                Err(_) => ask.paths().map(|_| Err(Reply::AccountMessagesTooMany)).collect(),
            };
            return self.session.answer(ask, verdicts, &mut self.replies);
        }
        let (peer, size, is_null) = (ask.peer(), ask.size(), ask.is_null());
        // At the earliest moment, as far as this process knows; counted is a message when it is here.
        let verdicts = match self.outside.limiter.check(&self.messages_of(peer)) {
            Ok(()) => {
                let resolved = join_all(ask.paths().map(|path| recipients.resolve(path, peer, size, is_null))).await;
                resolved.into_iter().map(|resolved| resolved.map(Addressee::Here)).collect()
            }
            Err(_) => ask.paths().map(|_| Err(Reply::NetworkMessagesTooMany)).collect(),
        };
        self.session.answer(ask, verdicts, &mut self.replies);
    }

    async fn authenticate(&self, ask: AuthAsk) -> Result<AuthAnswer, Reply> {
        let Some(programs) = &self.outside.programs else { return Err(Reply::Broken) };
        let (scope, peer) = (AppScope::SmtpSubmission, self.session.peer());
        let answered = match ask {
            AuthAsk::Password { name, password } => {
                programs.log_in_program(&name, password, scope, peer).await.map(AuthAnswer::LetIn)
            }
            AuthAsk::Begin { name } => {
                programs.begin_scram(&name, scope, peer).await.map(|scram| AuthAnswer::Begun(Box::new(scram)))
            }
            AuthAsk::Prove { scram, said, proof } => {
                let ended = programs.end_scram(*scram, said.as_bytes(), &proof, peer).await;
                ended.map(|(program, signature)| AuthAnswer::Proven(program, signature))
            }
        };
        answered.map_err(|error| match error {
            AccountError::WrongCredentials => Reply::WrongCredentials,
            AccountError::Suspended => Reply::AccountSuspended,
            AccountError::TooManyAttempts(_) | AccountError::Busy(_) => Reply::AuthenticationLater,
            AccountError::Route(error) => {
                tracing::warn!(%error, "an application password could not be checked");
                Reply::AuthenticationUnknownNow
            }
            error => {
                tracing::error!(%error, "an application password could not be checked");
                Reply::AuthenticationUnknownNow
            }
        })
    }

    /// A submission, of a program that is still in.
    async fn submit(&self, transaction: Transaction, program: &Program) -> Result<QueueId, Reply> {
        let Some(programs) = &self.outside.programs else { return Err(Reply::Broken) };
        match programs.is_still_in(program).await {
            Ok(true) => {}
            Ok(false) => return Err(Reply::CredentialsRevoked),
            Err(error) => {
                tracing::warn!(%error, "an application password could not be checked again");
                return Err(Reply::NoQuorum);
            }
        }
        let limiter = &self.outside.limiter;
        let recipients = limiter.of_user(LimitKind::SentRecipients, program.user);
        let messages = limiter.of_user(LimitKind::SentMessages, program.user);
        let counted = transaction.recipients.len() + transaction.submission.as_ref().map_or(0, |of| of.outside.len());
        let within = async {
            limiter.check(recipients.as_slice())?;
            limiter.take_all(messages.as_slice()).await
        };
        within.await.map_err(|_| Reply::AccountMessagesTooMany)?;
        // As many as it has, also beyond the limit: the next message waits for them.
        (0..counted).for_each(|_| limiter.count(recipients.as_slice()));
        self.outside.committer.submit(transaction).await
    }

    async fn commit(&mut self, transaction: Transaction) -> Result<QueueId, Reply> {
        let mut span = trace::child("message", Kind::Internal);
        span.set("smtp.bytes", transaction.message.bytes.len());
        span.scope(self.commit_within(transaction)).await
    }

    async fn commit_within(&mut self, transaction: Transaction) -> Result<QueueId, Reply> {
        let bytes = transaction.message.bytes.len();
        let began = self.outside.clock.monotonic();
        let program = transaction.submission.as_ref().map(|submission| submission.program.clone());
        let outcome = match program {
            Some(program) => self.submit(transaction, &program).await,
            None => match self.outside.limiter.take_all(&self.messages_of(transaction.peer)).await {
                Ok(()) => self.outside.committer.commit(transaction).await,
                Err(_) => Err(Reply::NetworkMessagesTooMany),
            },
        };
        measure::message(bytes, self.outside.clock.monotonic().saturating_sub(began), &outcome);
        outcome
    }

    /// What an account has sent.
    fn sent_by(&self, program: &Program) -> Vec<Counter> {
        let kinds = [LimitKind::SentMessages, LimitKind::SentRecipients];
        kinds.into_iter().filter_map(|kind| self.outside.limiter.of_user(kind, program.user)).collect()
    }

    /// Who pays for a message.
    fn messages_of(&self, peer: IpAddr) -> Vec<Counter> {
        self.outside.limiter.of_network(LimitKind::Messages, Network::of(peer), "")
    }

    async fn flush<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        if self.replies.bytes.is_empty() {
            return Ok(());
        }
        let write = async {
            stream.write_all(&self.replies.bytes).await?;
            stream.flush().await
        };
        in_time(self.outside.limits.write, write).await?;
        measure::replies(&mut self.replies.classes);
        self.replies.bytes.clear();
        Ok(())
    }

    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<Got> {
        self.make_room();
        let (patience, late) = self.patience(self.outside.clock.monotonic());
        if patience.is_zero() {
            // A client that always has another byte ready would be read for ever.
            return Ok(Got::Late(late));
        }
        let idle = self.session.is_idle();
        tokio::select! {
            biased;
            () = self.outside.drain.cancelled(), if idle => Ok(Got::Draining),
            read = timeout(patience, stream.read_buf(&mut self.input)) => match read {
                Ok(Ok(0)) => Ok(Got::End),
                Ok(Ok(bytes)) => {
                    measure::received(bytes);
                    self.came(bytes);
                    Ok(Got::Bytes)
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Ok(Got::Late(late)),
            },
        }
    }

    /// A large buffer while a message comes in that is kept, a small one otherwise.
    fn make_room(&mut self) {
        if self.session.is_receiving() {
            self.input.reserve(READ_BYTES);
        } else {
            if self.input.is_empty() && self.input.capacity() > COMMAND_READ_BYTES {
                self.input = BytesMut::new();
            }
            self.input.reserve(COMMAND_READ_BYTES);
        }
    }

    /// How long the next read may take, and what is said when it takes longer.
    fn patience(&mut self, now: Duration) -> (Duration, Reply) {
        let limits = &self.outside.limits;
        if self.waits.0 != self.session.turns() {
            self.waits = (self.session.turns(), now);
        }
        match self.session.content() {
            None => self.content = None,
            Some(number) if self.content.is_some_and(|(known, _)| known == number) => {}
            Some(number) => self.content = Some((number, Pace::begin(now, limits))),
        }
        let connection = (self.began.saturating_add(limits.connection), Reply::ConnectionTooLong);
        let command = (self.waits.1.saturating_add(limits.idle), Reply::IdleTooLong);
        // Content is timed by clocks of its own; between two chunks both count.
        let command = (!self.session.is_taking()).then_some(command);
        let content = self.content.map(|(_, pace)| (pace.until(), Reply::ContentTooSlow));
        let ends = command.into_iter().chain(content);
        let (end, late) = ends.fold(connection, |first, end| if end.0 < first.0 { end } else { first });
        (end.saturating_sub(now), late)
    }

    fn came(&mut self, bytes: usize) {
        if self.session.is_taking()
            && let Some((_, pace)) = &mut self.content
        {
            pace.came(bytes, self.outside.clock.monotonic());
        }
    }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
