//! One attempt on one builder.
