#![no_main]
drover_fuzz::fuzz!("s3");
