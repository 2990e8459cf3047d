//! All targets in one program, which takes minutes less to link than thirty: it is the target by whose name it is called.
#![no_main]
drover_fuzz::fuzz!(drover_fuzz::called());
