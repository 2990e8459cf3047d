#![no_main]
drover_fuzz::fuzz!("history_entry");
