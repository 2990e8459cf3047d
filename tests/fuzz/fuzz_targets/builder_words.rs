#![no_main]
drover_fuzz::fuzz!("builder_words");
