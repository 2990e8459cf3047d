#![no_main]
drover_fuzz::fuzz!("config_file");
