#![no_main]
drover_fuzz::fuzz!("cache_info");
