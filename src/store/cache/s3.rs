//! Caches in a bucket (`s3://`): HTTP caches whose requests are signed.

#![allow(dead_code, reason = "what opens them is the next step")]

mod credentials;
mod sign;

pub use credentials::ProfileError;
pub(super) use sign::Signer;
