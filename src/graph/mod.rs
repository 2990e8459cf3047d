//! The derivation DAG: closure, critical path, cycles. Pure.
