//! What things are called in the audit log. It is kept longer than any mailbox, in every zone, so a mailbox is an id and a
//! hash of its address there, and a message a hash of its Message-ID: never what they stand for (ADR 070).

use crate::address::Address;
use crate::id::{MessageIdHash, NodeId, ShardId, UserId};

/// Bytes of an address's hash that are told: enough to tell two apart.
const ADDRESS_HASH_BYTES: usize = 16;

/// An address, whether or not anybody has it.
pub fn address(address: &Address) -> String {
    let hash = blake3::hash(address.as_str().as_bytes());
    format!("address {}", hex::encode(&hash.as_bytes()[..ADDRESS_HASH_BYTES]))
}

/// A user.
pub fn user(user: UserId) -> String {
    format!("user {user}")
}

/// A shard.
pub fn shard(shard: ShardId) -> String {
    format!("shard {shard}")
}

/// A storage node.
pub fn node(node: NodeId) -> String {
    format!("node {node}")
}

/// Messages with this Message-ID.
pub fn message_id(hash: MessageIdHash) -> String {
    format!("message-id {hash}")
}

/// A sentence without the addresses in it: each word that has an `@` is left out.
pub fn without_addresses(sentence: &str) -> String {
    let words = sentence.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let kept: Vec<&str> = words.map(|word| if word.contains('@') { "[address]" } else { word }).collect();
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_by_its_canonical_form_and_not_by_itself() {
        let told = |text: &str| address(&Address::parse(text).unwrap());
        assert_eq!(told("Ada@X.example"), told("ada@x.example"));
        assert_ne!(told("ada@x.example"), told("bob@x.example"));
        assert!(!told("ada@x.example").contains("ada"));
    }

    #[test]
    fn sentences_lose_their_addresses() {
        assert_eq!(
            without_addresses("nobody has the address ada@x.example: it\r\nis  free"),
            "nobody has the address [address] it is free"
        );
    }
}
