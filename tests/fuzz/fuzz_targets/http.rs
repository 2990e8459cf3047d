#![no_main]
drover_fuzz::fuzz!("http");
