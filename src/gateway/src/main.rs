//! The `crossdock` command.

fn main() -> std::process::ExitCode {
    crossdock_gateway::cli::main()
}
