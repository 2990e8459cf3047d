#![no_main]
drover_fuzz::fuzz!("niks3");
