#![no_main]
drover_fuzz::fuzz!("plan_file");
