//! Tests of the scheduler: stories by hand here, random runs against a model in `random`.

mod model;
mod random;
