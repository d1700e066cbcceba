//! REST v1 over real connections, on a cluster in memory that applies the very commands that storage nodes apply.
//!
//! Every answer that a test gets is checked against the OpenAPI document that the server gives: see [`client`].

mod client;
mod cluster;
mod operators;
mod redis_server;
mod scan;
mod schema;
mod world;

mod accounts;
mod admin;
mod app_passwords;
mod browser;
mod conditional;
mod cookies;
mod drafts;
mod edge;
mod events;
mod files;
mod folders;
mod http;
mod isolation;
mod labels;
mod messages;
mod near;
mod operations;
mod outbox;
mod search;
mod second_factor;
mod sending;
mod submission;
mod threads;
mod troubles;
mod uploads;
mod view;
mod webmail;
mod zones;
