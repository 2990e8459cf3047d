#![no_main]
drover_fuzz::fuzz!("nix_settings");
