#![no_main]
drover_fuzz::fuzz!("forge_event");
