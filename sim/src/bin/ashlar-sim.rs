//! The simulator's command line.

fn main() -> std::process::ExitCode {
    ashlar_sim::cli::main()
}
