//! The end of a connection whose client has not read everything yet.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long a client that was told goodbye may take to say so itself; what it still sends would reset the connection, and
/// the reset would take the last words away from it.
const LINGER: Duration = Duration::from_secs(1);
/// What is read meanwhile, bytes.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Ends `stream` so that the client can read what was written last.
pub(crate) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let read = async {
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        let mut bytes = 0;
        while bytes < LINGER_BYTES_MAX {
            match stream.read(&mut rest).await? {
                0 => break,
                read => bytes += read,
            }
        }
        io::Result::Ok(())
    };
    // The client was told everything; whether it says goodbye changes nothing.
    let _said_or_not = timeout(LINGER, read).await;
}
