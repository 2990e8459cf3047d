//! Folds over events.
