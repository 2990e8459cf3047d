#![no_main]
drover_fuzz::fuzz!("log_text");
