//! Sessions that wait for the next message to the same host.
//!
//! Invariant: a session is used again only for what it was opened for: the same host and port, the same policy for TLS, the same
//! source address. No more than [`IDLE_CONNECTIONS_MAX`] wait, none longer than [`IDLE_MAX`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::dns::Domain;
use crate::limit::{IDLE_CONNECTIONS_MAX, IDLE_MAX};
use crate::smtp::Session;
use crate::tls::Security;

/// What a session was opened for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Purpose {
    pub(crate) host: Domain,
    pub(crate) port: u16,
    pub(crate) security: Security,
    pub(crate) sources: Vec<IpAddr>,
}

struct Idle {
    id: u64,
    session: Session,
}

#[derive(Default)]
struct Inner {
    idle: HashMap<Purpose, Vec<Idle>>,
    count: usize,
    next_id: u64,
}

/// Sessions that wait. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Inner>>);

impl Pool {
    /// The session that has waited for the shortest time.
    pub(crate) fn take(&self, purpose: &Purpose) -> Option<Session> {
        let mut inner = self.0.lock();
        let waiting = inner.idle.get_mut(purpose)?;
        let idle = waiting.pop();
        if waiting.is_empty() {
            inner.idle.remove(purpose);
        }
        inner.count -= usize::from(idle.is_some());
        idle.map(|idle| idle.session)
    }

    /// Keeps a session; says goodbye to it where there are too many, or once nobody has wanted it.
    pub(crate) fn put(&self, purpose: Purpose, session: Session) {
        let id = {
            let mut inner = self.0.lock();
            if inner.count >= IDLE_CONNECTIONS_MAX {
                drop(inner);
                tokio::spawn(session.quit());
                return;
            }
            inner.count += 1;
            inner.next_id += 1;
            let id = inner.next_id;
            inner.idle.entry(purpose.clone()).or_default().push(Idle { id, session });
            id
        };
        let pool = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_MAX).await;
            if let Some(session) = pool.take_one(&purpose, id) {
                session.quit().await;
            }
        });
    }

    fn take_one(&self, purpose: &Purpose, id: u64) -> Option<Session> {
        let mut inner = self.0.lock();
        let waiting = inner.idle.get_mut(purpose)?;
        let at = waiting.iter().position(|idle| idle.id == id)?;
        let idle = waiting.swap_remove(at);
        if waiting.is_empty() {
            inner.idle.remove(purpose);
        }
        inner.count -= 1;
        Some(idle.session)
    }
}
