//! The `crossdock` command.

/// The data path allocates small pieces and frees them at once; glibc's allocator spends a tenth of its time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    crossdock_gateway::cli::main()
}
