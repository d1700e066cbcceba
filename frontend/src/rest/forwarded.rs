//! Who the client is where a proxy of HTTP stands before the listener: the Forwarded field (RFC 7239), or X-Forwarded-For.
//!
//! Invariant: only what proxies of the operator's networks wrote is believed. Each writes the address of whoever came to it at the
//! end, so the last address that is none of theirs is the client; what stands before it was written by the client.
//! Invariant: one of the two fields is read, never both: a proxy passes on the one that it does not know as the client sent it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::network::Networks;
use crate::rest::problem::{Kind, Problem};

/// Proxies that are read in one field; more than any chain has.
const HOPS_MAX: usize = 64;

/// Which field proxies write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedField {
    /// RFC 7239.
    #[default]
    Forwarded,
    /// What most proxies write.
    XForwardedFor,
}

/// Proxies whose word on the client is taken.
#[derive(Debug, Clone)]
pub struct ForwardedFrom {
    /// Where they are.
    pub networks: Networks,
    /// What they write.
    pub field: ForwardedField,
}

impl ForwardedFrom {
    /// Whether a connection of `peer` is a proxy's.
    pub(crate) fn includes(&self, peer: IpAddr) -> bool {
        self.networks.contain(peer)
    }

    /// The client behind a request that came from `peer`.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, Problem> {
        if !self.includes(peer) {
            return Ok(peer);
        }
        let name = self.name();
        let mut nearest = peer;
        let mut hops = 0;
        // The nearest proxy's line is the last, and the end of it is what it wrote.
        let lines: Vec<&HeaderValue> = headers.get_all(&name).iter().collect();
        for line in lines.into_iter().rev() {
            let nodes = self.nodes(line.as_bytes()).ok_or_else(|| malformed(&name))?;
            for node in nodes.into_iter().rev() {
                hops += 1;
                if hops > HOPS_MAX {
                    return Err(malformed(&name));
                }
                // A proxy that hides who came to it is as near to the client as can be told.
                let Some(node) = node else { return Ok(nearest) };
                let Some(address) = self::node(&node).ok_or_else(|| malformed(&name))? else { return Ok(nearest) };
                nearest = address;
                if !self.networks.contain(address) {
                    return Ok(address);
                }
            }
        }
        Ok(nearest)
    }

    fn name(&self) -> HeaderName {
        match self.field {
            ForwardedField::Forwarded => http::header::FORWARDED,
            ForwardedField::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
        }
    }

    /// What each proxy of one line wrote of who came to it; `None` where it wrote nothing of that.
    fn nodes(&self, line: &[u8]) -> Option<Vec<Option<String>>> {
        let line = std::str::from_utf8(line).ok()?;
        match self.field {
            ForwardedField::Forwarded => forwarded(line),
            ForwardedField::XForwardedFor => Some(x_forwarded_for(line)),
        }
    }
}

fn malformed(name: &HeaderName) -> Problem {
    Problem::new(Kind::InvalidHeader).detail(format!("{name} is not as it has to be")).member("header", name.as_str())
}

fn x_forwarded_for(line: &str) -> Vec<Option<String>> {
    let elements = line.split(',').map(|element| element.trim_matches([' ', '\t']));
    elements.filter(|element| !element.is_empty()).map(|element| Some(element.to_owned())).collect()
}

/// RFC 7239 section 4: elements are parted by commas, pairs within one by semicolons; a value is a token or a quoted string.
fn forwarded(line: &str) -> Option<Vec<Option<String>>> {
    let mut rest = line;
    let mut nodes = Vec::new();
    loop {
        let element = element(&mut rest)?;
        match element {
            Element::Empty => {}
            Element::Node(node) => nodes.push(node),
        }
        rest = rest.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if rest.is_empty() => return Some(nodes),
            None => return None,
        }
    }
}

enum Element {
    /// RFC 9110 section 5.6.1.2: a recipient passes over empty elements of a list.
    Empty,
    Node(Option<String>),
}

/// One element, up to its comma or the end.
fn element(rest: &mut &str) -> Option<Element> {
    let mut node = None;
    let mut is_empty = true;
    loop {
        *rest = rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() || rest.starts_with(',') {
            break;
        }
        if let Some(behind) = rest.strip_prefix(';') {
            *rest = behind;
            continue;
        }
        let (name, value) = pair(rest)?;
        is_empty = false;
        if name.eq_ignore_ascii_case("for") {
            // RFC 7239 section 4: a parameter must not occur more than once in an element.
            if node.is_some() {
                return None;
            }
            node = Some(value);
        }
        *rest = rest.trim_start_matches([' ', '\t']);
        if !(rest.is_empty() || rest.starts_with([',', ';'])) {
            return None;
        }
    }
    // An element that does not say for whom hides him.
    Some(if is_empty { Element::Empty } else { Element::Node(node) })
}

/// `token "=" ( token / quoted-string )`.
fn pair<'a>(rest: &mut &'a str) -> Option<(&'a str, String)> {
    let name = token(rest)?;
    *rest = rest.strip_prefix('=')?;
    let value = match rest.strip_prefix('"') {
        Some(behind) => {
            *rest = behind;
            quoted(rest)?
        }
        None => token(rest)?.to_owned(),
    };
    Some((name, value))
}

fn token<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let length = rest.bytes().position(|byte| !is_token(byte)).unwrap_or(rest.len());
    let (token, behind) = rest.split_at(length);
    *rest = behind;
    (!token.is_empty()).then_some(token)
}

/// The rest of a quoted string, without its quotes (RFC 9110 section 5.6.4).
fn quoted(rest: &mut &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                *rest = &rest[at + 1..];
                return Some(text);
            }
            '\\' => text.push(characters.next()?.1),
            character => text.push(character),
        }
    }
    None
}

/// RFC 7239 section 6: an address with or without a port, or (`None`) `unknown`, or a name that begins with `_` and tells nothing.
fn node(text: &str) -> Option<Option<IpAddr>> {
    let name = text.rsplit_once(':').map_or(text, |(name, _port)| name);
    let is_obfuscated = |name: &str| {
        name.len() > 1
            && name.starts_with('_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(None);
    }
    address(text).map(Some)
}

/// `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]`, `[2001:db8::1]:80`, and `2001:db8::1`, which proxies write although they should not.
fn address(text: &str) -> Option<IpAddr> {
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()
        .or_else(|| bracketed(text))
        .or_else(|| obfuscated_port(text))?;
    Some(address.to_canonical())
}

fn bracketed(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// A port may be hidden, too.
fn obfuscated_port(text: &str) -> Option<IpAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let is_port = port.len() > 1
        && port.starts_with('_')
        && port.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !is_port {
        return None;
    }
    bracketed(address).or_else(|| address.parse().ok())
}

/// Reads a field as a proxy might have sent it; for a fuzzer.
pub fn fuzz_forwarded(line: &str) {
    for field in [ForwardedField::Forwarded, ForwardedField::XForwardedFor] {
        let from = ForwardedFrom { networks: "10.0.0.0/8".parse().into_iter().collect(), field };
        let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) else { return };
        let mut headers = HeaderMap::new();
        headers.append(from.name(), value);
        let stranger = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(from.client(stranger, &headers).ok(), Some(stranger), "a stranger's word is not taken");
        // What a proxy adds decides, whatever stands before it in lines of their own.
        headers.append(
            from.name(),
            HeaderValue::from_static(match field {
                ForwardedField::Forwarded => "for=198.51.100.7",
                ForwardedField::XForwardedFor => "198.51.100.7",
            }),
        );
        let client = from.client(IpAddr::from([10, 0, 0, 1]), &headers).ok();
        assert_eq!(client, Some(IpAddr::from([198, 51, 100, 7])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(field: ForwardedField, peer: &str, lines: &[&str]) -> Result<String, Kind> {
        let networks = ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|text| text.parse().unwrap()).into_iter().collect();
        let from = ForwardedFrom { networks, field };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(from.name(), line.parse().unwrap());
        }
        let client = from.client(peer.parse().unwrap(), &headers);
        client.map(|address| address.to_string()).map_err(|problem| problem.kind())
    }

    #[track_caller]
    fn is(lines: &[&str], expected: &str) {
        assert_eq!(client(ForwardedField::Forwarded, "10.0.0.1", lines), Ok(expected.to_owned()), "{lines:?}");
    }

    #[test]
    fn the_last_hop_that_is_not_ours_is_the_client() {
        is(&[], "10.0.0.1");
        is(&["for=192.0.2.7"], "192.0.2.7");
        is(&["For=\"192.0.2.7:4711\";proto=https;by=10.0.0.1"], "192.0.2.7");
        is(&["proto=https; for=\"[2001:db8::9]:80\""], "2001:db8::9");
        is(&["for=\"[2001:db8::9]\""], "2001:db8::9");
        is(&["for=\"2001:db8::9\""], "2001:db8::9");
        is(&["for=\"[::ffff:192.0.2.7]\""], "192.0.2.7");
        is(&["for=\"192.0.2.7:_secret\""], "192.0.2.7");
        is(&["for=203.0.113.1, for=192.0.2.7, for=10.0.0.2"], "192.0.2.7");
        is(&["for=203.0.113.1", "for=192.0.2.7", "for=10.0.0.2,for=10.0.0.3"], "192.0.2.7");
        is(&["for=10.0.0.3"], "10.0.0.3");
        is(&[", for=192.0.2.7,, "], "192.0.2.7");
    }

    #[test]
    fn who_is_hidden_counts_as_the_proxy_that_hides_him() {
        for hidden in ["for=unknown", "for=_gazonk", "for=\"_gazonk:_p\"", "for=\"unknown:80\"", "proto=https"] {
            is(&[&format!("for=203.0.113.1, {hidden}")], "10.0.0.1");
            is(&[&format!("for=203.0.113.1, {hidden}, for=10.0.0.9")], "10.0.0.9");
        }
    }

    #[test]
    fn what_a_client_wrote_does_not_matter_and_what_is_malformed_is_refused() {
        // An open quote in a line of the client's own cannot swallow what the proxy adds.
        is(&["for=\"", "for=192.0.2.7"], "192.0.2.7");
        for line in
            ["for=\", for=192.0.2.7", "for", "for=", "for=a b", "for=192.0.2.7;for=192.0.2.8", "for=300.0.0.1", "=x"]
        {
            assert_eq!(client(ForwardedField::Forwarded, "10.0.0.1", &[line]), Err(Kind::InvalidHeader), "{line}");
        }
        let long = ["for=10.0.0.2"; HOPS_MAX + 1].join(",");
        assert_eq!(client(ForwardedField::Forwarded, "10.0.0.1", &[&long]), Err(Kind::InvalidHeader));
    }

    #[test]
    fn a_stranger_is_not_listened_to() {
        let stranger = client(ForwardedField::Forwarded, "192.0.2.66", &["for=10.0.0.1", "for=\""]);
        assert_eq!(stranger, Ok("192.0.2.66".to_owned()));
    }

    #[test]
    fn the_other_field_is_the_clients() {
        let networks = Some("10.0.0.0/8".parse().unwrap()).into_iter().collect();
        let from = ForwardedFrom { networks, field: ForwardedField::XForwardedFor };
        let mut headers = HeaderMap::new();
        headers.append(http::header::FORWARDED, "for=203.0.113.1".parse().unwrap());
        headers.append("x-forwarded-for", "203.0.113.9, 192.0.2.7".parse().unwrap());
        assert_eq!(from.client("10.0.0.1".parse().unwrap(), &headers).unwrap().to_string(), "192.0.2.7");
        let x = |lines: &[&str]| client(ForwardedField::XForwardedFor, "10.0.0.1", lines);
        assert_eq!(x(&["203.0.113.1, 192.0.2.7:80, 10.0.0.3"]), Ok("192.0.2.7".to_owned()));
        assert_eq!(x(&["2001:db8::9"]), Ok("2001:db8::9".to_owned()));
        assert_eq!(x(&["203.0.113.1, unknown"]), Ok("10.0.0.1".to_owned()));
        assert_eq!(x(&["not an address"]), Err(Kind::InvalidHeader));
        assert_eq!(
            x(&["not an address, 192.0.2.7"]),
            Ok("192.0.2.7".to_owned()),
            "what the client wrote does not matter"
        );
    }
}
