#![no_main]
drover_fuzz::fuzz!("drv");
