#![no_main]
drover_fuzz::fuzz!("store_path");
