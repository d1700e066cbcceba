//! The module as a whole: the way in and back, real mail, hostile mail, threads.

mod compose;
mod corpus;
mod field;
mod hostile;
mod memory;
mod render;
mod round_trip;
mod suite;
mod threads;
