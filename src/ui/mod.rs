//! Live view and CI log of events.
