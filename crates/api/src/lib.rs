//! The local protocol of nfguard: the messages of its guard, and a blocking client.
//!
//! `nfguard guard` keeps a firewall as it was loaded, and bans addresses for other programs. Each of
//! these programs connects to the guard's socket. One line of JSON is one request, and one line of
//! JSON answers it.
//!
//! ```text
//!   your program            this crate                     nfguard guard
//!  ┌────────────┐   ┌──────────────────────┐  a line  ┌─────────────────────┐
//!  │ log reader │──▶│ GuardClient          │─────────▶│ ban, unban, replace │──▶ kernel
//!  │ block list │   │   message::Request   │          │ bans, status        │
//!  │ dashboard  │◀──│   message::Response  │◀─────────│ subscribe           │
//!  └────────────┘   │   message::Event     │  a line  └─────────────────────┘
//!                   └──────────────────────┘
//!                     codec · local_socket
//! ```
//!
//! - [`message`] has the lines: [`Request`](message::Request), [`Response`](message::Response) and
//!   [`Event`](message::Event) of the guard, and the lines of the rollback
//!   [`watchdog`](message::watchdog), which speaks the same way.
//! - [`GuardClient`] sends a request and waits for its answer, within a time limit. It speaks only to
//!   a guard that runs as root, or as the user of this process.
//! - [`local_socket`] finds the guard and the watchdog of a network namespace, and says which user
//!   is at the other end.
//! - [`codec`] turns messages into lines and lines into messages, and bounds their length.
//!
//! The crate knows neither the policy nor how bans lie in the kernel. It opens no socket but the
//! guard's and the watchdog's, needs no privilege, and starts no thread.
//!
//! # Example
//!
//! A program bans an address for an hour. Here a thread stands in for the guard; a real program
//! connects to `/run/nfguard/guard.sock`.
//!
//! ```
//! use std::os::unix::net::UnixListener;
//! use std::time::Duration;
//!
//! use nfguard_api::GuardClient;
//! use nfguard_api::local_socket::Connection;
//! use nfguard_api::message::{Did, NewBan, Request, Response};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("guard.sock");
//! let listener = UnixListener::bind(&path)?;
//! let guard = std::thread::spawn(move || {
//!     let (stream, _) = listener.accept()?;
//!     let mut connection = Connection::new(stream, Some(Duration::from_secs(10)))?;
//!     let request: Request = connection.receive()?;
//!     connection.send(&Response::did(Did::Added))?;
//!     Ok::<_, nfguard_api::Error>(request)
//! });
//!
//! let mut client = GuardClient::connect(&path)?;
//! let ban = NewBan::of("203.0.113.7").lasting(Duration::from_secs(3600)).source("my-tool");
//! assert_eq!(client.ban(ban.clone())?, Did::Added);
//! # assert_eq!(guard.join().expect("no panic")?, Request::Ban(ban));
//! # Ok(())
//! # }
//! ```

pub mod codec;
pub mod local_socket;
pub mod message;

mod client;
mod credentials;
mod error;
mod rendezvous;

pub use client::{GuardClient, Subscription};
pub use error::Error;
