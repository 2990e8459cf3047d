#![no_main]
drover_fuzz::fuzz!("daemon_reply");
