//! Shared code of the end-to-end tests.

pub mod document;
pub mod fail2ban;
pub mod fate;
pub mod guard;
pub mod judge;
pub mod nft;
pub mod place;
pub mod policies;
pub mod processor;
pub mod program;
pub mod property;
pub mod reader;
pub mod tables;
pub mod ufw;
pub mod wait;
