//! A client that we did not write: Python's smtplib.

use std::process::Stdio;
use std::time::Duration;

use super::harness::{Harness, PATIENCE, without_trace};

const SCRIPT: &str = r#"
import smtplib, sys
host, port = sys.argv[1], int(sys.argv[2])
message = (b"From: sender@client.example\r\nTo: ada@postrider.example\r\nSubject: smtplib\r\n"
           b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
           b".leading dot\r\n..two\r\n" + "äöü\r\n".encode() + b"x" * 5000 + b"\r\n")
with smtplib.SMTP(host, port, local_hostname="client.example", timeout=60) as smtp:
    code, reply = smtp.ehlo()
    assert code == 250, reply
    for word in ("pipelining", "8bitmime", "smtputf8", "chunking", "enhancedstatuscodes"):
        assert smtp.has_extn(word), word
    refused = smtp.sendmail("sender@client.example", ["ada@postrider.example", "nobody@postrider.example"], message,
                            mail_options=["BODY=8BITMIME"])
    assert list(refused) == ["nobody@postrider.example"] and refused["nobody@postrider.example"][0] == 550, refused
    try:
        smtp.sendmail("sender@client.example", ["someone@elsewhere.example"], message)
        raise AssertionError("relayed")
    except smtplib.SMTPRecipientsRefused as error:
        assert error.recipients["someone@elsewhere.example"][0] == 550
    assert smtp.verify("ada")[0] == 252
    assert smtp.noop()[0] == 250
sys.stdout.buffer.write(message)
"#;

#[tokio::test]
async fn smtplib_delivers() {
    let harness = Harness::start().await;
    let python = tokio::process::Command::new("python3")
        .args(["-c", SCRIPT, "127.0.0.1", &harness.address.port().to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(PATIENCE + Duration::from_secs(60), python).await.unwrap().expect("python3 is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let inbox = harness.cluster.inbox(harness.ada);
    assert_eq!(inbox.len(), 1);
    assert_eq!(without_trace(&inbox[0]), output.stdout);
}
