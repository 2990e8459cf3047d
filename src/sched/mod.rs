//! What to do next: a pure state machine.
