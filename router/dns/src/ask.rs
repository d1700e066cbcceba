//! Asks a server for records, to see what the world sees.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::DecodeError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::zone::file;

/// How often a datagram is sent before a server counts as silent.
const ATTEMPTS: u32 = 3;
/// What is taken in one datagram (RFC 9715).
const UDP_BYTES_MAX: u16 = 1232;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// What was asked for is no name or no type.
    #[error("{what:?} cannot be asked for")]
    Unaskable {
        /// What was given.
        what: String,
    },
    /// The server said nothing, or the network failed.
    #[error("{server}: {error}")]
    Network {
        /// Which.
        server: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// It said something that is no answer.
    #[error("{server}: its answer cannot be read: {error}")]
    Unreadable {
        /// Which.
        server: SocketAddr,
        /// What is wrong.
        error: DecodeError,
    },
    /// It refused, or failed.
    #[error("{server}: {code}")]
    Refused {
        /// Which.
        server: SocketAddr,
        /// Its reason.
        code: ResponseCode,
    },
}

/// The data of the records of a type at a name, each as in a zone file, in an order of its own; none where there are none.
///
/// # Errors
/// When the server does not answer, or refuses.
pub async fn ask(
    server: SocketAddr,
    name: &str,
    rtype: &str,
    id: u16,
    limit: Duration,
) -> Result<Vec<String>, AskError> {
    let unaskable = |what: &str| AskError::Unaskable { what: what.to_owned() };
    let mut owner = Name::from_ascii(name).map_err(|_| unaskable(name))?;
    owner.set_fqdn(true);
    let rtype: RecordType = rtype.parse().map_err(|_| unaskable(rtype))?;
    let mut question = Message::query();
    question.metadata.id = id;
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(owner, rtype));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(|_| unaskable(name))?;

    let network = |error| AskError::Network { server, error };
    let mut answer = over_udp(server, &bytes, id, limit).await.map_err(network)?;
    // A cut answer, or none: the other way may be open.
    if answer.as_ref().is_none_or(|answer| answer.metadata.truncation) {
        let silent = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let long = timeout(limit, over_tcp(server, &bytes)).await.map_err(|_| network(silent()))?.map_err(network)?;
        answer = Some(Message::from_vec(&long).map_err(|error| AskError::Unreadable { server, error })?);
    }
    let Some(answer) = answer else { return Ok(Vec::new()) };
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(AskError::Refused { server, code }),
    }
    let records = answer.answers.iter().filter(|record| record.record_type() == rtype);
    let mut data: Vec<String> = records.map(|record| file::written(&record.data)).collect();
    data.sort();
    Ok(data)
}

/// `None`: nothing came that was an answer to this question.
async fn over_udp(server: SocketAddr, question: &[u8], id: u16, limit: Duration) -> std::io::Result<Option<Message>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let mut buffer = [0; UDP_BYTES_MAX as usize];
    for _ in 0..ATTEMPTS {
        socket.send(question).await?;
        let heard = async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                // Anything else was not meant for this question.
                if let Ok(answer) = Message::from_vec(&buffer[..length])
                    && answer.metadata.id == id
                    && answer.metadata.message_type == MessageType::Response
                {
                    return std::io::Result::Ok(answer);
                }
            }
        };
        if let Ok(answer) = timeout(limit / ATTEMPTS, heard).await {
            return answer.map(Some);
        }
    }
    Ok(None)
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
