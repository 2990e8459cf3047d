#![no_main]
drover_fuzz::fuzz!("eval_answer");
