#![no_main]
drover_fuzz::fuzz!("nar_file");
