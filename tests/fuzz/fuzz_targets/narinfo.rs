#![no_main]
drover_fuzz::fuzz!("narinfo");
