//! Parse, set up tracing, run, exit code.

fn main() -> std::process::ExitCode {
    drover::cli::main().into()
}
