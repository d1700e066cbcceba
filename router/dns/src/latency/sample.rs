//! Where measurements come from.

use std::net::IpAddr;
use std::time::Duration;

/// One round trip that a region measured to a client, of a connection that it had anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The client.
    pub client: IpAddr,
    /// There and back, as the kernel has it of the connection (`TCP_INFO`).
    pub round_trip: Duration,
}

/// A source of measurements: the frontends of a region, a log, a test.
pub trait Samples: Send {
    /// What was measured since it was asked last, at most `max`; the rest comes next time, or is lost where the source is full.
    fn take(&mut self, max: usize) -> Vec<Sample>;
}

impl Samples for Vec<Sample> {
    fn take(&mut self, max: usize) -> Vec<Sample> {
        self.drain(..self.len().min(max)).collect()
    }
}
