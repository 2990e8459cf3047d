//! Outputs → caches.
//!
//! A push of many paths is three small things that the driver connects: [`mod@closure`] says which paths, [`queue`] says in
//! which order (pure), [`mod@upload`] moves one of them; [`mod@verify`] reads back what was pushed.

pub mod closure;
pub mod findings;
pub mod leave_out;
pub mod named;
pub mod prune;
pub mod queue;
mod room;
pub mod sizes;
#[cfg(test)]
mod testing;
pub mod upload;
pub mod verify;

pub use crate::nix_compat::daemon::PathInfo;
pub use crate::store::cache::Nar;
pub use closure::{Closure, Source, closure};
pub use leave_out::LeaveOut;
pub use queue::Queue;
pub use upload::{UploadError, finish, upload, upload_files};
pub use verify::{Verified, read_back, verify, verify_nars};
