#![no_main]
drover_fuzz::fuzz!("internal_json");
