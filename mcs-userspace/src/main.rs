//! The `mcs` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    mcs::cli::main()
}
