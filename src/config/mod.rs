//! Settings with provenance.
