//! Every kind of Redis that can be configured, with a real one.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;

use super::*;
use crate::cache::redis_server::RedisServer;
use crate::cache::settings::{RedisTls, Topology};

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Puts and finds a value, and counts.
async fn works(link: &Link) {
    eventually("it answers", async || link.is_up()).await;
    for n in 0..20 {
        let (key, value) = (Key([n; 16]), Bytes::from(vec![n; 1000]));
        eventually("what was put is found", async || {
            link.put(&key, value.clone(), Duration::from_secs(60)).await;
            link.get(&key).await.as_ref() == Some(&value)
        })
        .await;
    }
    let script = "return redis.call('TIME')[1] + (redis.call('GET', KEYS[1]) and 1 or 0)";
    let mut evaluate = cmd("EVAL");
    evaluate.arg(script).arg(1).arg(Key([1; 16]).text());
    eventually("scripts run", async || link.write::<i64>(&evaluate, BACKGROUND_WAIT_MAX).await.is_ok()).await;
    link.remove(&Key([1; 16])).await;
    eventually("what was taken away is gone", async || link.get(&Key([1; 16])).await.is_none()).await;
}

#[tokio::test]
async fn over_tls_as_a_user_of_its_own() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    let (port, cert, key) = (port().to_string(), cert.display().to_string(), key.display().to_string());
    let arguments =
        ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &cert];
    let server = RedisServer::with(&[&arguments[..], &["--tls-auth-clients", "no"]].concat());
    // What docs/operating/roles.md says that it needs.
    let rights = "+get +set +unlink +del +eval +evalsha +time +ping +hello +client";
    let user: Vec<&str> = ["ACL", "SETUSER", "postrider", "on", ">secret", "~postrider:*"].into_iter().collect();
    assert_eq!(server.cli(&[&user[..], &rights.split(' ').collect::<Vec<_>>()].concat()), "OK");
    let settings = RedisSettings {
        user: Some("postrider".to_owned()),
        password: Some("secret".to_owned()),
        tls: Some(RedisTls { ca: Some(issued.cert.pem().into_bytes()), identity: None }),
        ..RedisSettings::single(format!("rediss://localhost:{port}"))
    };
    works(&Link::start(&settings).unwrap()).await;
    // Another password, and an authority that did not sign.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem().into_bytes();
    for wrong in [
        RedisSettings { password: Some("guess".to_owned()), ..settings.clone() },
        RedisSettings { tls: Some(RedisTls { ca: Some(other), identity: None }), ..settings.clone() },
        RedisSettings { tls: None, ..settings },
    ] {
        let server = Server::new(&wrong).unwrap();
        assert!(server.connect().await.is_err());
    }
}

#[tokio::test]
async fn a_cluster() {
    let (port, bus) = (port().to_string(), port().to_string());
    let server = RedisServer::with(&[
        "--port",
        &port,
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-announce-ip",
        "127.0.0.1",
    ]);
    assert_eq!(server.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    eventually("the cluster is whole", async || server.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")).await;
    let settings =
        RedisSettings { topology: Topology::Cluster, ..RedisSettings::single(format!("redis://127.0.0.1:{port}")) };
    works(&Link::start(&settings).unwrap()).await;
}

struct Sentinel(Child);

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn whom_a_sentinel_names() {
    let (master, port) = (port().to_string(), port().to_string());
    let _server = RedisServer::with(&["--port", &master]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sentinel.conf");
    std::fs::write(&file, format!("port {port}\nsentinel monitor mail 127.0.0.1 {master} 1\n")).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _sentinel = Sentinel(command.spawn().unwrap());
    let settings = RedisSettings {
        topology: Topology::Sentinel { master: "mail".to_owned() },
        ..RedisSettings::single(format!("redis://127.0.0.1:{port}"))
    };
    works(&Link::start(&settings).unwrap()).await;
}

#[tokio::test]
async fn who_is_full_is_read_and_not_written_to() {
    let server = RedisServer::start();
    let link = Link::start(&RedisSettings::single(server.address())).unwrap();
    works(&link).await;
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let mut set = cmd("SET");
    set.arg("postrider:x").arg("y");
    eventually("it says so", async || link.write::<()>(&set, BACKGROUND_WAIT_MAX).await == Err(AskError::Full)).await;
    let mut evaluate = cmd("EVAL");
    evaluate.arg("return redis.call('SET', KEYS[1], 'y')").arg(1).arg("postrider:x");
    eventually("scripts as well", async || link.ask::<()>(&evaluate, BACKGROUND_WAIT_MAX).await == Err(AskError::Full))
        .await;
    assert!(link.is_up(), "it answers");
    eventually("it is read", async || link.get(&Key([2; 16])).await.is_some()).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("it is written again", async || link.write::<()>(&set, BACKGROUND_WAIT_MAX).await.is_ok()).await;
}
