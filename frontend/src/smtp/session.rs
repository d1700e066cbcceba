//! One SMTP session as a pure machine: bytes in, replies and requests to the outside out.
//!
//! Invariant: no socket, no cluster and no waiting here. [`Session::step`] takes what it can from the input and says what it
//! needs next; whatever the bytes are, it does not panic, and what it holds is bounded.
//! Invariant: while the outside works on a request, the session's state is in that request. Without its answer the session
//! is closed: there is no way to go on as if there had been one.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use postrider_api::address::Address;
use postrider_api::env::{Clock, Entropy, random};
use postrider_api::id::RequestId;

use super::auth::{AuthAnswer, AuthAsk, Exchange, MECHANISMS, Pending, Turn};
use super::command::{self, Command, Path, Reports, Wishes};
use super::content::{Chunked, Content, Dotted};
use super::envelope::{Addressee, Client, Forward, Here, Open, Receiving, Reverse, Transaction};
use super::header;
use super::limit::{
    AUTH_FAILURES_MAX, COMMANDS_IDLE_MAX, COMMANDS_MAX, CONTENT_DISCARD_BYTES_MAX, ERRORS_MAX, QUESTIONS_AT_ONCE_MAX,
    RECIPIENTS_REFUSED_MAX, REPLIES_BYTES_MAX,
};
use super::line::{Cut, Cutter};
use super::reply::{self, Offers, QueueId, Reply};
use crate::account::programs::Program;
use crate::budget::Budget;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Mail that comes in for our domains (port 25): nobody logs in.
    Receive,
    /// Mail that our users' programs send (RFC 6409): after TLS and AUTH only.
    Submit,
}

/// What all sessions of a server share.
pub struct Settings {
    /// What they are for.
    pub mode: Mode,
    /// How the server calls itself.
    pub host: String,
    /// What stands behind the name in the greeting.
    pub banner: String,
    /// A message, bytes.
    pub message_bytes_max: u64,
    /// Whether STARTTLS can be offered.
    pub has_certificate: bool,
    /// Memory for messages of all sessions.
    pub budget: Arc<Budget>,
    /// Dates trace fields.
    pub clock: Arc<dyn Clock>,
    /// Names transactions.
    pub entropy: Arc<dyn Entropy>,
}

/// What a session needs next.
pub enum Step {
    /// More input, after the replies are written.
    Read,
    /// The replies written.
    Flush,
    /// To know recipients: [`Session::answer`].
    Ask(Ask),
    /// To know whether a program may come in: [`Session::authenticated`].
    Authenticate(AuthAsk, Asking),
    /// A message made durable: [`Session::committed`].
    Commit(Transaction, Held),
    /// TLS, after the replies are written: [`Session::secured`].
    StartTls,
    /// The end, after the replies are written.
    Close,
}

/// Replies that wait to be written, and how many there are of each class.
#[derive(Debug, Default)]
pub struct Replies {
    /// What goes out.
    pub bytes: Vec<u8>,
    /// Replies by first digit of the code.
    pub classes: [u64; 6],
}

impl Replies {
    /// Appends one.
    pub fn push(&mut self, reply: Reply) {
        reply.write(&mut self.bytes);
        self.count(reply.row().code);
    }

    fn count(&mut self, code: u16) {
        // A code has three digits, the first of them 2 to 5 (RFC 5321 section 4.2.1).
        self.classes[usize::from(code / 100).min(5)] += 1;
    }
}

/// Recipients who came in one batch of pipelined commands. Their replies keep its order.
#[derive(Debug)]
pub struct Ask {
    open: Open,
    peer: IpAddr,
    questions: Vec<Question>,
}

#[derive(Debug)]
enum Question {
    Who(Path, Reports),
    /// This recipient gets no further.
    Refused(Reply),
    /// It was no command.
    Error(Reply),
    /// The connection ends here.
    End(Reply),
}

impl Ask {
    /// Whether it begins a transaction: nobody was accepted before.
    pub fn is_first(&self) -> bool {
        matches!(self.open, Open::Reverse(_))
    }

    /// Those to be answered, in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.questions.iter().filter_map(|question| match question {
            Question::Who(path, _) => Some(path),
            Question::Refused(_) | Question::Error(_) | Question::End(_) => None,
        })
    }

    /// Who asks.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Who submits, if it is a submission.
    pub fn program(&self) -> Option<&Program> {
        self.open.reverse().program.as_ref()
    }

    /// Whether the reverse-path is the null one: what reports come with.
    pub fn is_null(&self) -> bool {
        self.open.reverse().path.is_empty()
    }

    /// The announced size of the message, bytes; 0 without.
    pub fn size(&self) -> u64 {
        self.open.reverse().size
    }
}

/// A session while its message is made durable.
#[derive(Debug)]
pub struct Held(Client);

/// A session while the outside looks at a response.
pub struct Asking {
    client: Client,
    pending: Pending,
}

enum State {
    /// Nobody has said HELO, or not since TLS began.
    Start,
    Greeted(Client),
    Open(Open),
    /// Within DATA.
    Dotted(Receiving, Dotted),
    /// Within a BDAT chunk.
    Chunk {
        receiving: Receiving,
        chunked: Chunked,
        last: bool,
    },
    /// Within an AUTH exchange.
    Auth(Client, Exchange),
    /// Between two chunks.
    Chunks(Receiving, Chunked),
    /// Within a chunk that is thrown away.
    Skip {
        left: u64,
        reply: Reply,
        then: Box<State>,
    },
    Closed,
}

enum Next {
    Go(State),
    Read(State),
    Yield(Step),
}

/// One session.
pub struct Session {
    settings: Arc<Settings>,
    peer: IpAddr,
    tls: bool,
    /// Who has logged in.
    program: Option<Program>,
    state: State,
    cutter: Cutter,
    commands: u32,
    commands_idle: u32,
    errors: u32,
    refused: u32,
    /// Exchanges that let nobody in.
    failures: u32,
    turns: u64,
    contents: u64,
}

impl Session {
    /// A session with the client at `peer`, within TLS already or not; the greeting is in `replies`.
    pub fn new(settings: Arc<Settings>, peer: IpAddr, tls: bool, replies: &mut Replies) -> Self {
        reply::greeting(&mut replies.bytes, &settings.host, &settings.banner);
        replies.count(220);
        Self {
            settings,
            peer,
            tls,
            program: None,
            state: State::Start,
            cutter: Cutter::default(),
            commands: 0,
            commands_idle: 0,
            errors: 0,
            refused: 0,
            failures: 0,
            turns: 0,
            contents: 0,
        }
    }

    /// Goes on with `input` until something is needed.
    pub fn step(&mut self, input: &mut BytesMut, replies: &mut Replies) -> Step {
        loop {
            if replies.bytes.len() > REPLIES_BYTES_MAX {
                return Step::Flush;
            }
            let next = match std::mem::replace(&mut self.state, State::Closed) {
                State::Closed => return Step::Close,
                State::Dotted(receiving, dotted) => self.dotted(receiving, dotted, input, replies),
                State::Chunk { receiving, chunked, last } => self.chunk(receiving, chunked, last, input, replies),
                State::Skip { left, reply, then } => skip(left, reply, then, input, replies),
                State::Auth(client, exchange) => self.response(client, exchange, input, replies),
                state => self.line(state, input, replies),
            };
            match next {
                Next::Read(state) => {
                    self.state = state;
                    return Step::Read;
                }
                Next::Go(state) => {
                    self.turns += 1;
                    self.state = state;
                }
                Next::Yield(step) => {
                    self.turns += 1;
                    return step;
                }
            }
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Rises with everything that has come whole: a command, a chunk, a message. While it stays, the client owes the rest of
    /// something, however many bytes of it came.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Whether what comes in now is part of a message that is kept.
    pub fn is_receiving(&self) -> bool {
        matches!(self.state, State::Dotted(..) | State::Chunk { .. })
    }

    /// Whether what comes in now is not commands, kept or not.
    pub fn is_taking(&self) -> bool {
        self.is_receiving() || matches!(self.state, State::Skip { .. })
    }

    /// Which message, by its number on this connection, has begun and not ended: also between two of its chunks, and while the
    /// rest of it is thrown away.
    pub fn content(&self) -> Option<u64> {
        let has_begun = self.is_taking() || matches!(self.state, State::Chunks(..));
        has_begun.then_some(self.contents)
    }

    /// Whether nothing would be lost by closing now.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Start | State::Greeted(_) | State::Closed)
    }

    /// Answers [`Step::Ask`]: one verdict a path, in order.
    pub fn answer(&mut self, ask: Ask, verdicts: Vec<Result<Addressee, Reply>>, replies: &mut Replies) {
        let Ask { mut open, questions, .. } = ask;
        let mut verdicts = verdicts.into_iter();
        for question in questions {
            let (verdict, reports) = match question {
                // A verdict that is missing means that nobody knows.
                Question::Who(_, reports) => (verdicts.next().unwrap_or(Err(Reply::RecipientUnknownNow)), reports),
                Question::Refused(reply) => (Err(reply), Reports::default()),
                Question::Error(reply) => {
                    replies.push(reply);
                    self.errors += 1;
                    if self.errors > ERRORS_MAX {
                        return self.close(Reply::ErrorsTooMany, replies);
                    }
                    continue;
                }
                Question::End(reply) => return self.close(reply, replies),
            };
            match verdict {
                // RFC 5321 section 4.5.3.1.8: a hundred are accepted. Only now is it known how many are, so those who are refused
                // or named twice take nobody's place.
                _ if open.is_full() => replies.push(Reply::RecipientsTooMany),
                // Nothing that came in goes on to the outside, whatever the verdict is.
                Ok(Addressee::Outside(_)) if open.reverse().program.is_none() => replies.push(Reply::RelayDenied),
                Ok(addressee) if open.leaves_zone(&addressee) => replies.push(Reply::ZonesSeveral),
                Ok(addressee) => {
                    open = open.add(addressee, reports);
                    replies.push(Reply::RecipientOk);
                }
                Err(reply) => {
                    replies.push(reply);
                    self.refused += u32::from(reply.row().code >= 500);
                    if self.refused > RECIPIENTS_REFUSED_MAX {
                        return self.close(Reply::RefusedTooMany, replies);
                    }
                }
            }
        }
        self.state = State::Open(open);
    }

    /// Answers [`Step::Commit`]. `Ok` is a promise to keep (P-1).
    pub fn committed(&mut self, held: Held, outcome: Result<QueueId, Reply>, replies: &mut Replies) {
        match outcome {
            Ok(id) => {
                reply::queued(&mut replies.bytes, &id);
                replies.count(250);
                self.commands_idle = 0;
            }
            Err(reply) => replies.push(reply),
        }
        self.state = State::Greeted(held.0);
    }

    /// Answers [`Step::Authenticate`].
    pub fn authenticated(&mut self, asking: Asking, answer: Result<AuthAnswer, Reply>, replies: &mut Replies) {
        let Asking { client, pending } = asking;
        let turn = answer.and_then(|answer| pending.answered(answer, &*self.settings.entropy));
        self.state = match self.auth_turn(client, turn, replies) {
            Next::Go(state) | Next::Read(state) => state,
            // An answer leads to no further question.
            Next::Yield(_) => State::Closed,
        };
    }

    /// Answers [`Step::StartTls`]: everything that was said before is forgotten (RFC 3207 section 4.2).
    pub fn secured(&mut self) {
        self.tls = true;
        self.program = None;
        self.state = State::Start;
        self.cutter = Cutter::default();
    }

    /// Ends the session with a last reply.
    pub fn close(&mut self, reply: Reply, replies: &mut Replies) {
        replies.push(reply);
        self.state = State::Closed;
    }

    fn end(&mut self, reply: Reply, replies: &mut Replies) -> Next {
        replies.push(reply);
        Next::Go(State::Closed)
    }

    /// A command that was none, or out of order.
    fn error(&mut self, state: State, reply: Reply, replies: &mut Replies) -> Next {
        replies.push(reply);
        self.errors += 1;
        if self.errors > ERRORS_MAX {
            return self.end(Reply::ErrorsTooMany, replies);
        }
        Next::Go(state)
    }

    fn line(&mut self, state: State, input: &mut BytesMut, replies: &mut Replies) -> Next {
        let line = match self.cutter.cut(input) {
            Cut::Unfinished => return Next::Read(state),
            Cut::Line(line) => line,
            Cut::TooLong => return self.error(state, Reply::LineTooLong, replies),
            Cut::BareEnding => return self.end(Reply::BareLineEnding, replies),
            Cut::Endless => return self.end(Reply::DiscardedTooMuch, replies),
        };
        if self.is_command_too_many() {
            return self.end(Reply::CommandsTooMany, replies);
        }
        match command::parse(&line) {
            Ok(command) => self.carry_out(state, command, input, replies),
            Err(reply @ (Reply::ChunkSyntax | Reply::NotSmtp)) => self.end(reply, replies),
            Err(reply) => self.error(state, reply, replies),
        }
    }

    fn is_command_too_many(&mut self) -> bool {
        self.commands += 1;
        self.commands_idle += 1;
        self.commands > COMMANDS_MAX || self.commands_idle > COMMANDS_IDLE_MAX
    }

    fn carry_out(&mut self, state: State, command: Command, input: &mut BytesMut, replies: &mut Replies) -> Next {
        match (command, state) {
            (Command::Quit, _) => self.end(Reply::Bye, replies),
            (Command::Noop, state) => say(Reply::Noop, state, replies),
            (Command::Reset, state) => say(Reply::Reset, reset(state), replies),
            (Command::Hello { host, extended }, _) => self.hello(host, extended, replies),
            (Command::Chunk { size, last }, state) => self.chunk_begins(size, last, state, replies),
            (_, state @ State::Chunks(..)) => self.error(state, Reply::ChunksUnderWay, replies),
            (Command::Help, state) => say(Reply::Help, state, replies),
            (Command::Verify, state) => say(Reply::Verify, state, replies),
            (Command::Expand, state) => self.error(state, Reply::ExpandRefused, replies),
            (Command::NotImplemented, state) => self.error(state, Reply::NotImplemented, replies),
            (Command::StartTls, state) => self.start_tls(state, input, replies),
            (Command::Auth { .. }, state) if self.settings.mode == Mode::Receive => {
                self.error(state, Reply::AuthenticationNotHere, replies)
            }
            (_, state @ State::Start) => self.error(state, Reply::HelloFirst, replies),
            (Command::Auth { mechanism, initial }, state) => self.auth(&mechanism, initial, state, replies),
            (Command::Mail { path, size, utf8, wishes }, State::Greeted(client)) => {
                self.mail(Reverse { client, path, size, utf8, wishes, program: None }, replies)
            }
            (Command::Mail { .. }, state) => self.error(state, Reply::NestedTransaction, replies),
            (Command::Rcpt(path, reports), State::Open(open)) => self.rcpt(path, reports, open, input),
            (Command::Data, State::Open(Open::Forward(forward))) => self.data(forward, replies),
            (Command::Data, state @ State::Open(Open::Reverse(_))) => self.error(state, Reply::RecipientFirst, replies),
            (Command::Rcpt(..) | Command::Data, state) => self.error(state, Reply::SenderFirst, replies),
        }
    }

    fn hello(&mut self, host: String, extended: bool, replies: &mut Replies) -> Next {
        let settings = &self.settings;
        if extended {
            let is_submission = settings.mode == Mode::Submit;
            let offers = Offers {
                tls: settings.has_certificate && !self.tls,
                mechanisms: (is_submission && self.tls && self.program.is_none()).then_some(MECHANISMS),
                reports: is_submission,
                require_tls: is_submission && self.tls,
            };
            reply::extended_hello(&mut replies.bytes, &settings.host, settings.message_bytes_max, offers);
        } else {
            reply::hello(&mut replies.bytes, &settings.host);
        }
        replies.count(250);
        Next::Go(State::Greeted(Client { host, extended }))
    }

    fn start_tls(&mut self, state: State, input: &mut BytesMut, replies: &mut Replies) -> Next {
        match state {
            _ if self.tls => self.error(state, Reply::TlsAlready, replies),
            _ if !self.settings.has_certificate => self.error(state, Reply::TlsUnavailable, replies),
            State::Start => self.error(state, Reply::HelloFirst, replies),
            State::Greeted(_) => {
                // What was sent along in the clear could have been put there by anybody on the way (CVE-2011-0411).
                input.clear();
                replies.push(Reply::StartTls);
                Next::Yield(Step::StartTls)
            }
            state => self.error(state, Reply::NestedTransaction, replies),
        }
    }

    fn auth(&mut self, mechanism: &str, initial: Option<String>, state: State, replies: &mut Replies) -> Next {
        let client = match state {
            _ if !self.tls => return self.error(state, Reply::EncryptionRequired, replies),
            _ if self.program.is_some() => return self.error(state, Reply::AuthenticatedAlready, replies),
            State::Greeted(client) => client,
            state => return self.error(state, Reply::NestedTransaction, replies),
        };
        let Some(exchange) = Exchange::of(mechanism) else {
            return self.error(State::Greeted(client), Reply::MechanismUnknown, replies);
        };
        let turn = match initial {
            None => Ok(exchange.begin()),
            Some(initial) => exchange.respond(initial.as_bytes()),
        };
        self.auth_turn(client, turn, replies)
    }

    /// One line of an exchange.
    fn response(&mut self, client: Client, exchange: Exchange, input: &mut BytesMut, replies: &mut Replies) -> Next {
        let line = match self.cutter.cut_response(input) {
            Cut::Unfinished => return Next::Read(State::Auth(client, exchange)),
            Cut::Line(line) => line,
            Cut::TooLong => return self.auth_turn(client, Err(Reply::ResponseTooLong), replies),
            Cut::BareEnding => return self.end(Reply::BareLineEnding, replies),
            Cut::Endless => return self.end(Reply::DiscardedTooMuch, replies),
        };
        if self.is_command_too_many() {
            return self.end(Reply::CommandsTooMany, replies);
        }
        let turn = match line.strip_suffix(b"\r\n").unwrap_or(&line) {
            b"*" => Err(Reply::AuthenticationCancelled),
            response => exchange.respond(response),
        };
        self.auth_turn(client, turn, replies)
    }

    fn auth_turn(&mut self, client: Client, turn: Result<Turn, Reply>, replies: &mut Replies) -> Next {
        match turn {
            Ok(Turn::Challenge(exchange, challenge)) => {
                reply::challenge(&mut replies.bytes, &challenge);
                replies.count(334);
                Next::Go(State::Auth(client, exchange))
            }
            Ok(Turn::Ask(ask, pending)) => Next::Yield(Step::Authenticate(ask, Asking { client, pending })),
            Ok(Turn::LetIn(program)) => {
                self.program = Some(program);
                say(Reply::LetIn, State::Greeted(client), replies)
            }
            Err(reply) => {
                self.failures += 1;
                if self.failures >= AUTH_FAILURES_MAX {
                    replies.push(reply);
                    return self.end(Reply::AuthenticationsTooMany, replies);
                }
                self.error(State::Greeted(client), reply, replies)
            }
        }
    }

    /// Who may send, and what he may ask for with it.
    fn check_sender(&self, reverse: &Reverse) -> Result<Option<Program>, Reply> {
        match (self.settings.mode, &self.program) {
            (Mode::Receive, _) if reverse.wishes != Wishes::default() => Err(Reply::ParameterUnknown),
            (Mode::Receive, _) => Ok(None),
            (Mode::Submit, _) if !self.tls => Err(Reply::TlsRequired),
            (Mode::Submit, None) => Err(Reply::AuthenticationRequired),
            (Mode::Submit, Some(program)) => {
                let is_own = Address::parse(&reverse.path).is_ok_and(|address| address.as_str() == program.address);
                if is_own { Ok(Some(program.clone())) } else { Err(Reply::SenderForeign) }
            }
        }
    }

    fn mail(&mut self, mut reverse: Reverse, replies: &mut Replies) -> Next {
        reverse.program = match self.check_sender(&reverse) {
            Ok(program) => program,
            Err(reply) => return self.error(State::Greeted(reverse.client), reply, replies),
        };
        if let Some(program) = &reverse.program {
            // In the form that others know it by.
            reverse.path.clone_from(&program.address);
        }
        // RFC 1870 section 6.1.
        if reverse.size > self.settings.message_bytes_max {
            return say(Reply::MessageTooLarge, State::Greeted(reverse.client), replies);
        }
        say(Reply::SenderOk, State::Open(Open::Reverse(reverse)), replies)
    }

    /// Takes the RCPTs behind this one along, so that the directory is asked for all of them at once.
    fn rcpt(&mut self, first: Path, reports: Reports, open: Open, input: &mut BytesMut) -> Next {
        let mut questions = vec![question(first, reports, &open)];
        while questions.len() < QUESTIONS_AT_ONCE_MAX && starts_with_rcpt(input) {
            let line = match self.cutter.cut(input) {
                Cut::Line(line) => line,
                Cut::TooLong => {
                    questions.push(Question::Error(Reply::LineTooLong));
                    continue;
                }
                // Still there for the next step.
                Cut::Unfinished | Cut::BareEnding | Cut::Endless => break,
            };
            if self.is_command_too_many() {
                questions.push(Question::End(Reply::CommandsTooMany));
                break;
            }
            questions.push(match command::parse(&line) {
                Ok(Command::Rcpt(path, reports)) => question(path, reports, &open),
                Ok(_) => Question::Error(Reply::RecipientSyntax),
                Err(reply) => Question::Error(reply),
            });
        }
        Next::Yield(Step::Ask(Ask { open, peer: self.peer, questions }))
    }

    fn begin(&mut self, forward: Forward) -> (Receiving, Content) {
        self.contents += 1;
        let settings = &self.settings;
        let here = Here { host: &settings.host, peer: self.peer, tls: self.tls, now_ms: settings.clock.wall_ms() };
        let id = RequestId(random(&*settings.entropy));
        forward.begin(id, here, settings.budget.share(self.peer), settings.message_bytes_max)
    }

    fn data(&mut self, forward: Forward, replies: &mut Replies) -> Next {
        let (receiving, content) = self.begin(forward);
        if let Some(fault) = content.fault() {
            return say(fault.reply(), State::Open(Open::Forward(receiving.into_forward())), replies);
        }
        say(Reply::SendContent, State::Dotted(receiving, Dotted::new(content)), replies)
    }

    fn dotted(
        &mut self,
        receiving: Receiving,
        mut dotted: Dotted,
        input: &mut BytesMut,
        replies: &mut Replies,
    ) -> Next {
        if dotted.take(input) {
            return self.finish(receiving, dotted.into_content(), replies);
        }
        if dotted.content().arrived() > CONTENT_DISCARD_BYTES_MAX {
            return self.end(Reply::DiscardedTooMuch, replies);
        }
        Next::Read(State::Dotted(receiving, dotted))
    }

    fn chunk_begins(&mut self, size: u64, last: bool, state: State, replies: &mut Replies) -> Next {
        let (receiving, mut chunked) = match state {
            State::Chunks(receiving, chunked) => (receiving, chunked),
            State::Open(Open::Forward(forward)) => {
                let (receiving, content) = self.begin(forward);
                (receiving, Chunked::new(content))
            }
            state => {
                let reply = match state {
                    State::Start => Reply::HelloFirst,
                    State::Open(_) => Reply::RecipientFirst,
                    _ => Reply::SenderFirst,
                };
                self.contents += 1;
                return self.skip_chunk(size, reply, state, replies);
            }
        };
        chunked.begin(size);
        match chunked.content().fault() {
            Some(fault) => {
                let state = State::Greeted(receiving.into_client());
                self.skip_chunk(size, fault.reply(), state, replies)
            }
            None => Next::Go(State::Chunk { receiving, chunked, last }),
        }
    }

    /// RFC 3030 section 2: the bytes of a refused chunk are still to be taken, or they would be read as commands.
    fn skip_chunk(&mut self, size: u64, reply: Reply, then: State, replies: &mut Replies) -> Next {
        self.errors += u32::from(reply.row().code >= 500);
        if size > CONTENT_DISCARD_BYTES_MAX || self.errors > ERRORS_MAX {
            return self.end(reply, replies);
        }
        Next::Go(State::Skip { left: size, reply, then: Box::new(then) })
    }

    fn chunk(
        &mut self,
        receiving: Receiving,
        mut chunked: Chunked,
        last: bool,
        input: &mut BytesMut,
        replies: &mut Replies,
    ) -> Next {
        if !chunked.take(input) {
            return Next::Read(State::Chunk { receiving, chunked, last });
        }
        match chunked.content().fault() {
            Some(fault) if fault.closes() => self.end(fault.reply(), replies),
            Some(fault) => say(fault.reply(), State::Greeted(receiving.into_client()), replies),
            None if last => self.finish(receiving, chunked.into_content(), replies),
            None => say(Reply::ChunkOk, State::Chunks(receiving, chunked), replies),
        }
    }

    fn finish(&mut self, receiving: Receiving, content: Content, replies: &mut Replies) -> Next {
        let refusal = match content.finish() {
            Ok(message) => match header::check(message.sent()) {
                Ok(()) => {
                    let (client, transaction) = receiving.finish(message);
                    return Next::Yield(Step::Commit(transaction, Held(client)));
                }
                Err(reply) => reply,
            },
            Err(fault) if fault.closes() => return self.end(fault.reply(), replies),
            Err(fault) => fault.reply(),
        };
        say(refusal, State::Greeted(receiving.into_client()), replies)
    }
}

fn say(reply: Reply, state: State, replies: &mut Replies) -> Next {
    replies.push(reply);
    Next::Go(state)
}

fn reset(state: State) -> State {
    match state {
        State::Open(open) => State::Greeted(open.into_client()),
        State::Chunks(receiving, _) => State::Greeted(receiving.into_client()),
        state => state,
    }
}

fn skip(left: u64, reply: Reply, then: Box<State>, input: &mut BytesMut, replies: &mut Replies) -> Next {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    let _thrown_away = input.split_to(length);
    let left = left - length as u64;
    if left == 0 { say(reply, *then, replies) } else { Next::Read(State::Skip { left, reply, then }) }
}

fn question(path: Path, reports: Reports, open: &Open) -> Question {
    match &path {
        _ if open.reverse().program.is_none() && reports != Reports::default() => {
            Question::Error(Reply::ParameterUnknown)
        }
        // The directory need not be asked.
        _ if open.is_full() => Question::Refused(Reply::RecipientsTooMany),
        Path::Mailbox(address) if !address.is_ascii() && !open.reverse().utf8 => {
            Question::Refused(Reply::Utf8Unannounced)
        }
        _ => Question::Who(path, reports),
    }
}

fn starts_with_rcpt(input: &[u8]) -> bool {
    input.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"RCPT "))
}
