//! What OpenDKIM says of signatures: `opendkim-testmsg` of Debian's opendkim-tools, which asks the resolver that the machine names. In a mount namespace of
//! its own that is this process, which answers with the records of a test.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{may_be_passed_over, may_unshare};

const TESTMSG: &str = "/usr/sbin/opendkim-testmsg";
const TXT: u16 = 16;

/// Whether each signature of a message holds by these records, one at a time: the program is content with one that does. `None` where it
/// is not here.
pub fn verdicts(message: &str, records: &[(String, String)]) -> Option<Vec<bool>> {
    if !Path::new(TESTMSG).exists() || !may_unshare() {
        may_be_passed_over("opendkim", &format!("no root, or no {TESTMSG}: OpenDKIM judges no signature of ours"));
        return None;
    }
    let (header, body) = message.split_once("\r\n\r\n").expect("a header and a body");
    let mut fields = Vec::<String>::new();
    for line in header.split("\r\n") {
        match fields.last_mut() {
            // RFC 5322 section 2.2.3: it goes on with the line before.
            Some(field) if line.starts_with([' ', '\t']) => *field += &format!("\r\n{line}"),
            _ => fields.push(line.to_owned()),
        }
    }
    let is_signature = |field: &String| field.to_ascii_lowercase().starts_with("dkim-signature:");
    let (signatures, others): (Vec<_>, Vec<_>) = fields.into_iter().partition(is_signature);
    let dir = tempfile::tempdir().expect("a directory");
    let resolver = answer(records.to_vec());
    let names = dir.path().join("resolv.conf");
    std::fs::write(&names, format!("nameserver {resolver}\n")).expect("write it");
    let alone = |signature: &String| format!("{signature}\r\n{}\r\n\r\n{body}", others.join("\r\n"));
    Some(signatures.iter().map(|signature| is_good(&alone(signature), &names)).collect())
}

fn is_good(message: &str, names: &Path) -> bool {
    use std::io::Write as _;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$1\" /etc/resolv.conf && exec \"$2\"", "sh"]);
    command.arg(names).arg(TESTMSG).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run it");
    child.stdin.take().expect("it is piped").write_all(message.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    // Anything else would be no verdict.
    assert!(output.status.success() || said.contains("Bad signature"), "{said}");
    output.status.success()
}

/// Answers TXT queries with these records, at port 53 of some loopback address, until nobody has asked for a while.
fn answer(records: Vec<(String, String)>) -> Ipv4Addr {
    let bind = |last| {
        let address = Ipv4Addr::new(127, 99, 53, last);
        UdpSocket::bind((address, 53)).ok().map(|socket| (socket, address))
    };
    let (socket, address) = (1..255).find_map(bind).expect("port 53 of some loopback address");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
    std::thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            if let Some(answer) = reply(&query[..length], &records) {
                socket.send_to(&answer, client).ok();
            }
        }
    });
    address
}

/// RFC 1035 section 4.1: the question again, and the record where there is one.
fn reply(query: &[u8], records: &[(String, String)]) -> Option<Vec<u8>> {
    let (mut name, mut at) = (String::new(), 12);
    while let Some(length) = query.get(at).copied().map(usize::from).filter(|length| *length > 0) {
        name += std::str::from_utf8(query.get(at + 1..=at + length)?).ok()?;
        name.push('.');
        at += length + 1;
    }
    let question = query.get(12..at + 5)?;
    let is_txt = question[question.len() - 4..question.len() - 2] == TXT.to_be_bytes();
    let is_named = |(known, _): &&(String, String)| name.trim_end_matches('.').eq_ignore_ascii_case(known);
    let found = records.iter().find(is_named).filter(|_| is_txt);
    let mut answer = query[..2].to_vec();
    answer.extend_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(found.is_some()), 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    if let Some((_, value)) = found {
        let strings = value.as_bytes().chunks(255).flat_map(|part| [&[part.len() as u8], part].concat());
        let data: Vec<u8> = strings.collect();
        // The name of the question, TXT, IN, a minute.
        answer.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        answer.extend_from_slice(&(data.len() as u16).to_be_bytes());
        answer.extend_from_slice(&data);
    }
    Some(answer)
}
