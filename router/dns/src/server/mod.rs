//! The protocol: authoritative answers over UDP and TCP.
//!
//! A message goes through [`request`] (read), [`rate`] and [`cookie`] (is it answered), [`respond`] (looked up, and [`sign`]ed
//! with [`deny`] for what is not there) and comes out as bytes; [`udp`] and [`tcp`] carry them. The grammar of messages and
//! records, and the arithmetic of DNSSEC, are hickory-proto's; its server is not used (docs/adr/135-dns-of-our-own.md).

pub mod cookie;
mod deny;
mod listen;
pub mod rate;
mod request;
mod respond;
pub mod sign;
mod subnet;
mod tcp;
mod udp;

pub use self::listen::{ListenError, Server, ServerOptions};
pub use self::respond::{Responder, ResponderOptions, Transport};
