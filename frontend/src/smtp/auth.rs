//! An AUTH exchange as a pure machine (RFC 4954): responses in, challenges and questions to the outside out.
//!
//! Invariant: who is let in is said by the outside alone, as [`AuthAnswer`]; nothing that a client sends makes one.

use postrider_api::env::{Entropy, random};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::reply::Reply;
use crate::account::programs::{Program, Scram};
use crate::sasl::{self, SaslError, plain, scram};

/// What EHLO offers.
pub(super) const MECHANISMS: &str = "SCRAM-SHA-256 PLAIN LOGIN";
/// Random bytes of the server's part of a nonce.
const NONCE_BYTES: usize = 18;

/// What the client's next response is. Not `Debug`: it holds keys.
pub(super) enum Exchange {
    Plain,
    LoginName,
    LoginPassword {
        name: String,
    },
    ScramFirst,
    ScramFinal {
        scram: Box<Scram>,
        said: Said,
    },
    /// The server has shown its signature, and the client has nothing to say to it.
    ScramEnd {
        program: Program,
    },
}

/// What was said in a SCRAM exchange so far.
pub(super) struct Said {
    gs2_header: String,
    first: String,
    nonce: String,
    challenge: String,
}

/// What is asked of the outside. Not `Debug`: it holds passwords.
pub enum AuthAsk {
    /// Whether a program may come in that sends this password: [`AuthAnswer::LetIn`].
    Password {
        /// The address.
        name: String,
        /// The application password.
        password: String,
    },
    /// How the password of an address is hashed: [`AuthAnswer::Begun`].
    Begin {
        /// The address.
        name: String,
    },
    /// Whether the proof is right: [`AuthAnswer::Proven`].
    Prove {
        /// As it was begun.
        scram: Box<Scram>,
        /// What the proof is for.
        said: String,
        /// The proof.
        proof: [u8; scram::PROOF_BYTES],
    },
}

/// What the outside says to an [`AuthAsk`].
pub enum AuthAnswer {
    /// The program is in.
    LetIn(Program),
    /// To `Begin`.
    Begun(Box<Scram>),
    /// To `Prove`, with the server's signature.
    Proven(Program, [u8; scram::PROOF_BYTES]),
}

/// What the outside's answer is an answer to.
pub(super) enum Pending {
    Password,
    Begin { first: scram::ClientFirst },
    Prove,
}

/// What comes of a response or an answer.
pub(super) enum Turn {
    /// The client is to respond to this.
    Challenge(Exchange, Vec<u8>),
    /// The outside is to answer.
    Ask(AuthAsk, Pending),
    /// It is over.
    LetIn(Program),
}

impl Exchange {
    /// The exchange of a mechanism, in upper case.
    pub(super) fn of(mechanism: &str) -> Option<Self> {
        match mechanism {
            "PLAIN" => Some(Self::Plain),
            "LOGIN" => Some(Self::LoginName),
            "SCRAM-SHA-256" => Some(Self::ScramFirst),
            _ => None,
        }
    }

    /// Without an initial response: the first challenge.
    pub(super) fn begin(self) -> Turn {
        let challenge = match self {
            // What programs expect; none of it means anything.
            Self::LoginName => b"Username:".to_vec(),
            _ => Vec::new(),
        };
        Turn::Challenge(self, challenge)
    }

    /// Goes on with a response, as the line has it.
    pub(super) fn respond(self, line: &[u8]) -> Result<Turn, Reply> {
        let response = sasl::response(line).map_err(refusal)?;
        match self {
            Self::Plain => {
                let plain::Plain { name, password } = plain::parse(&response).map_err(refusal)?;
                let ask = AuthAsk::Password { name: name.to_owned(), password: password.to_owned() };
                Ok(Turn::Ask(ask, Pending::Password))
            }
            Self::LoginName => {
                let name = sasl::name(&response).map_err(refusal)?.to_owned();
                Ok(Turn::Challenge(Self::LoginPassword { name }, b"Password:".to_vec()))
            }
            Self::LoginPassword { name } => {
                let password = sasl::password(&response).map_err(refusal)?.to_owned();
                Ok(Turn::Ask(AuthAsk::Password { name, password }, Pending::Password))
            }
            Self::ScramFirst => {
                let first = scram::ClientFirst::parse(&response).map_err(refusal)?;
                Ok(Turn::Ask(AuthAsk::Begin { name: first.name.clone() }, Pending::Begin { first }))
            }
            Self::ScramFinal { scram, said } => {
                let last = scram::ClientFinal::parse(&response).map_err(refusal)?;
                if last.nonce != said.nonce || last.gs2_header != said.gs2_header.as_bytes() {
                    return Err(Reply::WrongCredentials);
                }
                let said = format!("{},{},{}", said.first, said.challenge, last.without_proof);
                Ok(Turn::Ask(AuthAsk::Prove { scram, said, proof: last.proof }, Pending::Prove))
            }
            Self::ScramEnd { program } if response.is_empty() => Ok(Turn::LetIn(program)),
            Self::ScramEnd { .. } => Err(Reply::ResponseMalformed),
        }
    }
}

impl Pending {
    /// Goes on with the outside's answer.
    pub(super) fn answered(self, answer: AuthAnswer, entropy: &dyn Entropy) -> Result<Turn, Reply> {
        match (self, answer) {
            (Self::Password, AuthAnswer::LetIn(program)) => Ok(Turn::LetIn(program)),
            (Self::Begin { first }, AuthAnswer::Begun(scram)) => {
                let own = STANDARD_NO_PAD.encode(random::<NONCE_BYTES>(entropy));
                let nonce = first.nonce + &own;
                let challenge = scram::server_first(&nonce, &scram.salt, scram.iterations);
                let bytes = challenge.clone().into_bytes();
                let said = Said { gs2_header: first.gs2_header, first: first.bare, nonce, challenge };
                Ok(Turn::Challenge(Exchange::ScramFinal { scram, said }, bytes))
            }
            (Self::Prove, AuthAnswer::Proven(program, signature)) => {
                let challenge = scram::server_final(&signature).into_bytes();
                Ok(Turn::Challenge(Exchange::ScramEnd { program }, challenge))
            }
            // An answer to another question lets nobody in.
            _ => Err(Reply::Broken),
        }
    }
}

fn refusal(error: SaslError) -> Reply {
    match error {
        SaslError::Base64 | SaslError::Malformed => Reply::ResponseMalformed,
        SaslError::Unsupported => Reply::MechanismUnknown,
        SaslError::Foreign => Reply::WrongCredentials,
    }
}
