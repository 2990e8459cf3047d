//! Words in, Settings out.
