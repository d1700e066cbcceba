//! A server of our own for each test.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::path::PathBuf;

use bytes::Bytes;
use postrider_blob::server::{S3ServerOptions, ServeError, key, serve};
use postrider_blob::{BlobHash, S3Options, S3Store, Zone};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub fn zone() -> Zone {
    Zone::new("eu").unwrap()
}

/// Content that is told apart from any other by its length.
pub fn blob(len: usize) -> (BlobHash, Bytes) {
    let content: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    (BlobHash::of(&content), content.into())
}

pub async fn store_of(endpoint: &str) -> S3Store {
    S3Store::connect(S3Options::new("seoul", endpoint, "mail", "key", "secret")).await.unwrap()
}

pub struct Server {
    pub options: S3ServerOptions,
    dir: TempDir,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_on(tempfile::tempdir().unwrap()).await
    }

    pub async fn start_on(dir: TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = S3ServerOptions {
            dir: dir.path().into(),
            address: listener.local_addr().unwrap(),
            access_key: "key".into(),
            secret_key: "secret".into(),
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(options.clone(), listener, async {
            stopped.await.ok();
        }));
        Self { options, dir, stop, task }
    }

    /// Gives the directory back once the server has ended.
    pub async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        self.dir
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.options.address)
    }

    pub async fn store(&self) -> S3Store {
        store_of(&self.endpoint()).await
    }

    pub fn object_path(&self, hash: &BlobHash) -> PathBuf {
        self.options.dir.join("buckets/mail").join(key::path_of_key(&zone().key(hash)).unwrap())
    }
}
