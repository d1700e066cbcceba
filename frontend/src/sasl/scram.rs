//! SCRAM (RFC 5802) without channel binding: the four messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{SaslError, name};

/// A proof of SCRAM-SHA-256, bytes.
pub(crate) const PROOF_BYTES: usize = 32;
/// The longest nonce of a client, bytes.
const NONCE_BYTES_MAX: usize = 128;

/// `client-first-message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    /// `n,,` or the like: comes again with the proof.
    pub(crate) gs2_header: String,
    /// What is behind it.
    pub(crate) bare: String,
    pub(crate) name: String,
    pub(crate) nonce: String,
}

impl ClientFirst {
    pub(crate) fn parse(response: &[u8]) -> Result<Self, SaslError> {
        let text = std::str::from_utf8(response).map_err(|_| SaslError::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(binding), Some(authorisation), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SaslError::Malformed);
        };
        match binding {
            // "y": the client could bind, and thinks that this server cannot, which is true.
            "n" | "y" => {}
            binding if binding.starts_with("p=") => return Err(SaslError::Unsupported),
            _ => return Err(SaslError::Malformed),
        }
        let mut attributes = bare.split(',');
        let user = match attributes.next().and_then(|attribute| attribute.split_once('=')) {
            Some(("n", user)) => sasl_name(user)?,
            Some(("m", _)) => return Err(SaslError::Unsupported),
            _ => return Err(SaslError::Malformed),
        };
        let nonce = match attributes.next().and_then(|attribute| attribute.split_once('=')) {
            Some(("r", nonce)) if is_nonce(nonce) => nonce.to_owned(),
            _ => return Err(SaslError::Malformed),
        };
        match authorisation.split_once('=') {
            _ if authorisation.is_empty() => {}
            Some(("a", other)) if sasl_name(other)?.eq_ignore_ascii_case(&user) => {}
            Some(("a", _)) => return Err(SaslError::Foreign),
            _ => return Err(SaslError::Malformed),
        }
        let gs2_header = text[..text.len() - bare.len()].to_owned();
        Ok(Self { gs2_header, bare: bare.to_owned(), name: user, nonce })
    }
}

/// `server-first-message`: the whole nonce, and how the password is hashed.
pub(crate) fn server_first(nonce: &str, salt: &[u8], iterations: u32) -> String {
    format!("r={nonce},s={},i={iterations}", STANDARD.encode(salt))
}

/// `client-final-message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFinal {
    /// What was said before the proof: part of what is proven.
    pub(crate) without_proof: String,
    /// The header of the first message again.
    pub(crate) gs2_header: Vec<u8>,
    pub(crate) nonce: String,
    pub(crate) proof: [u8; PROOF_BYTES],
}

impl ClientFinal {
    pub(crate) fn parse(response: &[u8]) -> Result<Self, SaslError> {
        let text = std::str::from_utf8(response).map_err(|_| SaslError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(SaslError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let (Some(binding), Some(nonce)) = (
            attributes.next().and_then(|attribute| attribute.strip_prefix("c=")),
            attributes.next().and_then(|attribute| attribute.strip_prefix("r=")),
        ) else {
            return Err(SaslError::Malformed);
        };
        let proof = STANDARD.decode(proof).map_err(|_| SaslError::Malformed)?;
        Ok(Self {
            gs2_header: STANDARD.decode(binding).map_err(|_| SaslError::Malformed)?,
            nonce: nonce.to_owned(),
            proof: proof.try_into().map_err(|_| SaslError::Malformed)?,
            without_proof: without_proof.to_owned(),
        })
    }
}

/// `server-final-message`: the server has the keys, too.
pub(crate) fn server_final(signature: &[u8]) -> String {
    format!("v={}", STANDARD.encode(signature))
}

/// RFC 5802 section 5.1: `=2C` and `=3D` stand for a comma and an equals sign, and no other `=` is there.
fn sasl_name(text: &str) -> Result<String, SaslError> {
    let mut name_text = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        name_text.push_str(before);
        name_text.push(match after.get(..2) {
            Some("2C") => ',',
            Some("3D") => '=',
            _ => return Err(SaslError::Malformed),
        });
        rest = &after[2..];
    }
    name_text.push_str(rest);
    name(name_text.as_bytes()).map(str::to_owned)
}

/// Printable ASCII without a comma.
fn is_nonce(text: &str) -> bool {
    (1..=NONCE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Result<ClientFirst, SaslError> {
        ClientFirst::parse(text.as_bytes())
    }

    #[test]
    fn first_messages() {
        let parsed = first("n,,n=user,r=abc").unwrap();
        assert_eq!((parsed.gs2_header.as_str(), parsed.bare.as_str()), ("n,,", "n=user,r=abc"));
        assert_eq!((parsed.name.as_str(), parsed.nonce.as_str()), ("user", "abc"));
        assert_eq!(first("y,a=USER,n=user,r=abc,x=more").unwrap().gs2_header, "y,a=USER,");
        assert_eq!(first("n,,n=a=2Cb=3D,r=x").unwrap().name, "a,b=");
        assert_eq!(first("n,a=bob,n=ada,r=x"), Err(SaslError::Foreign));
        assert_eq!(first("p=tls-unique,,n=ada,r=x"), Err(SaslError::Unsupported));
        assert_eq!(first("n,,m=ext,n=ada,r=x"), Err(SaslError::Unsupported));
        for bad in
            ["", "n", "n,", "n,,", "n,,n=,r=x", "n,,n=a", "n,,r=x,n=a", "x,,n=a,r=x", "n,,n=a=2X,r=x", "n,,n=a,r="]
        {
            assert_eq!(first(bad), Err(SaslError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn last_messages() {
        let proof = STANDARD.encode([7; PROOF_BYTES]);
        let parsed = ClientFinal::parse(format!("c=biws,r=abc,p={proof}").as_bytes()).unwrap();
        assert_eq!((parsed.without_proof.as_str(), parsed.nonce.as_str()), ("c=biws,r=abc", "abc"));
        assert_eq!((parsed.gs2_header.as_slice(), parsed.proof), (b"n,,".as_slice(), [7; PROOF_BYTES]));
        for bad in ["", "c=biws,r=abc", "c=biws,p=AAAA", "r=abc,c=biws,p=AAAA", "c=biws,r=abc,p=AAAA", "c=!,r=a,p=AAAA"]
        {
            assert_eq!(ClientFinal::parse(bad.as_bytes()), Err(SaslError::Malformed), "{bad:?}");
        }
    }
}
