//! The policy file: its JSON, its keys and values, and its schema.

pub(crate) mod address;
mod comments;
pub(crate) mod file;
mod interface;
pub(crate) mod log;
pub(crate) mod port;
pub(crate) mod protocol;
mod schema;
mod services;
pub(crate) mod values;

pub(crate) use nfguard_json::{document, reader, suggest};

pub use comments::keep_comments;
pub use protocol::{protocol_number, protocol_word};
pub use schema::schema;
pub use services::service_ports;
