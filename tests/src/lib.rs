//! What the end-to-end tests share.

pub mod nft;
pub mod tables;
