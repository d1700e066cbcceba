//! One transaction: MAIL, RCPT for many, and the message.

use bytes::Bytes;

use super::content::{Shape, stuffed};
use super::envelope::{RemoteRecipient, ReturnContent, notify_parameter};
use super::path::is_value;
use super::reply::Reply;
use super::session::Session;
use super::{Step, Trouble};

/// What goes out at once of a message, bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// A message in its envelope, without its recipients.
#[derive(Debug, Clone)]
pub(crate) struct Letter<'a> {
    pub(crate) mail_from: &'a str,
    pub(crate) envelope_id: &'a str,
    pub(crate) return_content: ReturnContent,
    pub(crate) require_tls: bool,
    /// The sender may have addresses and header fields in UTF-8, and some are.
    pub(crate) needs_utf8: bool,
    pub(crate) shape: Shape,
    pub(crate) body: &'a Bytes,
}

/// What became of one recipient in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The peer has it.
    Accepted(Reply),
    /// The peer said no, for now or for good, to this recipient.
    RefusedRecipient(Reply),
    /// The same, to the sender or to the message.
    Refused(Reply),
    /// The peer cannot take the message as it is: enhanced code and reason.
    Unfit(&'static str, String),
    /// The peer wants no more recipients in this transaction.
    Again,
    /// The connection failed, and the message was certainly not taken.
    Failed(Trouble),
    /// The connection failed after the end of the message may have reached the peer.
    Unknown(Trouble),
}

impl Session {
    /// One transaction. Afterwards the session is of use unless a [`Trouble`] is among the outcomes, or 421.
    pub(crate) async fn send(&mut self, letter: &Letter<'_>, recipients: &[RemoteRecipient]) -> Vec<Outcome> {
        if let Some(unfit) = self.unfit(letter) {
            return vec![unfit; recipients.len()];
        }
        let mut outcomes: Vec<Option<Outcome>> = recipients.iter().map(|recipient| self.unfit_for(recipient)).collect();
        let open: Vec<usize> = (0..recipients.len()).filter(|index| outcomes[*index].is_none()).collect();
        if !open.is_empty() {
            self.transactions += 1;
            let said = self.transact(letter, &open.iter().map(|index| &recipients[*index]).collect::<Vec<_>>()).await;
            for (index, outcome) in open.into_iter().zip(said) {
                outcomes[index] = Some(outcome);
            }
        }
        // Each has been given one above.
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Again)).collect()
    }

    /// What the message needs and the peer does not offer.
    fn unfit(&self, letter: &Letter<'_>) -> Option<Outcome> {
        let offered = &self.extensions;
        let size = letter.body.len() as u64;
        let unfit = |code, why: &str| Some(Outcome::Unfit(code, why.to_owned()));
        if let Some(max) = offered.size.filter(|max| size > *max) {
            return unfit("5.3.4", &format!("the message has {size} bytes and the peer takes {max}"));
        }
        if letter.require_tls && !(self.is_encrypted() && offered.require_tls) {
            // RFC 8689 section 4.2.1.
            return unfit("5.7.30", "the sender asks for TLS on the whole way, and the peer does not offer REQUIRETLS");
        }
        if letter.needs_utf8 && !offered.smtp_utf8 {
            // RFC 6531 section 3.5.
            return unfit(
                "5.6.7",
                "the message has addresses or header fields that are not ASCII, and the peer does not take them",
            );
        }
        if letter.shape.is_eight_bit && !offered.eight_bit {
            // RFC 6152 section 3: we do not convert what was signed.
            return unfit("5.6.3", "the message is not ASCII, and the peer takes nothing else");
        }
        None
    }

    fn unfit_for(&self, recipient: &RemoteRecipient) -> Option<Outcome> {
        let needs_utf8 = !recipient.address.is_ascii() && !self.extensions.smtp_utf8;
        needs_utf8.then(|| Outcome::Unfit("5.6.7", "the address is not ASCII, and the peer takes no other".to_owned()))
    }

    async fn transact(&mut self, letter: &Letter<'_>, recipients: &[&RemoteRecipient]) -> Vec<Outcome> {
        let all = |outcome: Outcome| vec![outcome; recipients.len()];
        if self.is_dirty {
            match self.connection.ask(Step::Reset, "RSET\r\n", self.timeouts.data).await {
                Ok(reply) if reply.is_positive() => self.is_dirty = false,
                Ok(reply) => return all(Outcome::Failed(Trouble::OutOfStep(Step::Reset, reply.to_string()))),
                Err(trouble) => return all(Outcome::Failed(trouble)),
            }
        }
        self.is_dirty = true;
        let mail = self.mail(letter, recipients);
        let rcpts: Vec<String> = recipients.iter().map(|recipient| self.rcpt(recipient)).collect();
        let said = match self.extensions.pipelining {
            true => self.envelope_at_once(&mail, &rcpts).await,
            false => self.envelope_by_steps(&mail, &rcpts).await,
        };
        let mut outcomes = match said {
            Ok(outcomes) => outcomes,
            Err(outcome) => return all(outcome),
        };
        let accepted: Vec<usize> = (0..outcomes.len()).filter(|index| outcomes[*index].is_none()).collect();
        if !accepted.is_empty() {
            let outcome = self.message(letter).await;
            for index in accepted {
                outcomes[index] = Some(outcome.clone());
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Again)).collect()
    }

    fn mail(&self, letter: &Letter<'_>, recipients: &[&RemoteRecipient]) -> String {
        let offered = &self.extensions;
        let mut mail = format!("MAIL FROM:<{}>", letter.mail_from);
        if offered.takes_size {
            mail.push_str(&format!(" SIZE={}", letter.body.len()));
        }
        if letter.shape.is_eight_bit && offered.eight_bit {
            mail.push_str(" BODY=8BITMIME");
        }
        let is_utf8 = letter.needs_utf8 || recipients.iter().any(|recipient| !recipient.address.is_ascii());
        if is_utf8 && offered.smtp_utf8 {
            mail.push_str(" SMTPUTF8");
        }
        if letter.require_tls {
            mail.push_str(" REQUIRETLS");
        }
        if offered.dsn {
            match letter.return_content {
                ReturnContent::Unspecified => {}
                ReturnContent::Full => mail.push_str(" RET=FULL"),
                ReturnContent::Headers => mail.push_str(" RET=HDRS"),
            }
            if is_value(letter.envelope_id, false) {
                mail.push_str(&format!(" ENVID={}", letter.envelope_id));
            }
        }
        mail.push_str("\r\n");
        mail
    }

    fn rcpt(&self, recipient: &RemoteRecipient) -> String {
        let mut rcpt = format!("RCPT TO:<{}>", recipient.address);
        if self.extensions.dsn {
            if let Some(notify) = notify_parameter(recipient.notify) {
                rcpt.push_str(&format!(" NOTIFY={notify}"));
            }
            if is_value(&recipient.original, self.extensions.smtp_utf8) {
                rcpt.push_str(&format!(" ORCPT={}", recipient.original));
            }
        }
        rcpt.push_str("\r\n");
        rcpt
    }

    /// MAIL and all RCPT in one piece (RFC 2920); `None` stands for a recipient who was taken.
    async fn envelope_at_once(&mut self, mail: &str, rcpts: &[String]) -> Result<Vec<Option<Outcome>>, Outcome> {
        let failed = Outcome::Failed;
        let whole = [mail, &rcpts.concat()].concat();
        let first = self.connection.ask(Step::Mail, &whole, self.timeouts.mail).await.map_err(failed)?;
        let mut outcomes = Vec::with_capacity(rcpts.len());
        for _ in rcpts {
            // RFC 5321 section 3.8: after 421 nothing more comes.
            if first.code == 421 {
                break;
            }
            let reply = match self.connection.read(Step::Rcpt, self.timeouts.rcpt).await {
                Ok(reply) => reply,
                // What MAIL was refused for is worth more than that the peer then went.
                Err(_) if !first.is_positive() => break,
                Err(trouble) => return Err(Outcome::Failed(trouble)),
            };
            if reply.code == 421 {
                return Err(Outcome::Refused(reply));
            }
            let is_first = !outcomes.contains(&None);
            outcomes.push(recipient(reply, is_first));
        }
        if !first.is_positive() {
            return Err(Outcome::Refused(first));
        }
        Ok(outcomes)
    }

    async fn envelope_by_steps(&mut self, mail: &str, rcpts: &[String]) -> Result<Vec<Option<Outcome>>, Outcome> {
        let reply = self.connection.ask(Step::Mail, mail, self.timeouts.mail).await.map_err(Outcome::Failed)?;
        if !reply.is_positive() {
            return Err(Outcome::Refused(reply));
        }
        let mut outcomes = Vec::with_capacity(rcpts.len());
        for rcpt in rcpts {
            let reply = self.connection.ask(Step::Rcpt, rcpt, self.timeouts.rcpt).await.map_err(Outcome::Failed)?;
            if reply.code == 421 {
                return Err(Outcome::Refused(reply));
            }
            let is_first = !outcomes.contains(&None);
            outcomes.push(recipient(reply, is_first));
        }
        Ok(outcomes)
    }

    async fn message(&mut self, letter: &Letter<'_>) -> Outcome {
        let sent = match self.extensions.chunking {
            true => self.chunk(letter).await,
            false => self.data(letter).await,
        };
        match sent {
            Ok(reply) => {
                self.is_dirty = false;
                if reply.is_positive() { Outcome::Accepted(reply) } else { Outcome::Refused(reply) }
            }
            Err(outcome) => outcome,
        }
    }

    async fn data(&mut self, letter: &Letter<'_>) -> Result<Reply, Outcome> {
        let failed = Outcome::Failed;
        let reply = self.connection.ask(Step::Data, "DATA\r\n", self.timeouts.data).await.map_err(failed)?;
        match reply.code {
            354 => {}
            _ if reply.is_transient() || reply.is_permanent() => return Err(Outcome::Refused(reply)),
            _ => return Err(Outcome::Failed(Trouble::OutOfStep(Step::Data, reply.to_string()))),
        }
        let mut block = Vec::with_capacity(BLOCK_BYTES + 8);
        for piece in stuffed(letter.body) {
            let mut rest = piece;
            while block.len() + rest.len() > BLOCK_BYTES {
                let (now, later) = rest.split_at(BLOCK_BYTES - block.len());
                block.extend_from_slice(now);
                rest = later;
                self.body(&block).await?;
                block.clear();
            }
            block.extend_from_slice(rest);
        }
        block.extend_from_slice(b".\r\n");
        self.end(&block).await
    }

    /// BDAT (RFC 3030): one round trip less than DATA, and a message whose end no byte of it can feign.
    async fn chunk(&mut self, letter: &Letter<'_>) -> Result<Reply, Outcome> {
        let command = format!("BDAT {} LAST\r\n", letter.body.len());
        let (most, last) = letter.body.split_at(letter.body.len() - letter.body.len() % BLOCK_BYTES);
        let mut blocks = most.chunks(BLOCK_BYTES);
        // There is always a last block, be it empty: what is written with it ends the message.
        let last = match last.is_empty() {
            true => blocks.next_back().unwrap_or_default(),
            false => last,
        };
        let mut head = command.into_bytes();
        for block in blocks {
            head.extend_from_slice(block);
            self.body(&head).await?;
            head.clear();
        }
        head.extend_from_slice(last);
        self.end(&head).await
    }

    /// Writes a piece of the message that is not its end.
    async fn body(&mut self, block: &[u8]) -> Result<(), Outcome> {
        let Err(trouble) = self.connection.write(Step::Body, block, self.timeouts.block).await else { return Ok(()) };
        // A peer that has seen enough may say why before it goes.
        match self.connection.read(Step::Body, self.timeouts.quit).await {
            Ok(reply) if reply.is_transient() || reply.is_permanent() => Err(Outcome::Refused(reply)),
            _ => Err(Outcome::Failed(trouble)),
        }
    }

    /// Writes what ends the message. From here on only a reply tells what became of it.
    async fn end(&mut self, block: &[u8]) -> Result<Reply, Outcome> {
        let unknown = Outcome::Unknown;
        self.connection.write(Step::End, block, self.timeouts.block).await.map_err(unknown)?;
        let reply = self.connection.read(Step::End, self.timeouts.end).await.map_err(unknown)?;
        match reply.code / 100 {
            2 | 4 | 5 => Ok(reply),
            _ => Err(Outcome::Unknown(Trouble::OutOfStep(Step::End, reply.to_string()))),
        }
    }
}

/// What a reply to RCPT says; `None`: taken.
fn recipient(reply: Reply, is_first: bool) -> Option<Outcome> {
    // RFC 5321 section 4.5.3.1.10: too many recipients is 452, and 552 of old servers means the same. Whoever already has some
    // takes the others in the next transaction.
    let is_many = match (reply.code, reply.enhanced) {
        (452 | 552, Some(enhanced)) => (enhanced.1, enhanced.2) == (5, 3),
        (452 | 552, None) => true,
        _ => false,
    };
    match reply {
        reply if reply.is_positive() => None,
        _ if is_many && !is_first => Some(Outcome::Again),
        mut reply if is_many => {
            reply.code = 452;
            reply.enhanced = None;
            Some(Outcome::RefusedRecipient(reply))
        }
        reply if reply.is_transient() || reply.is_permanent() => Some(Outcome::RefusedRecipient(reply)),
        reply => Some(Outcome::Failed(Trouble::OutOfStep(Step::Rcpt, reply.to_string()))),
    }
}
