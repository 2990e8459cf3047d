#![no_main]
drover_fuzz::fuzz!("path_info");
