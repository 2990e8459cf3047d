#![no_main]
drover_fuzz::fuzz!("flake_metadata");
