//! The select loop: inputs in, actions out.
