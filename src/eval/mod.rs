//! Flake → stream of attrs.
