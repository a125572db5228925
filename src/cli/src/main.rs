//! The `crossdock` command.
//!
//! | module | contents |
//! | --- | --- |
//! | `commands` | the command line: one file per command |
//! | `demo` | sample services, and real calls through the gateway |
//! | `run` | a gateway in this process: signals, reloads, the log |
//! | `client`, `grpc_client` | clients of HTTP and gRPC for the commands |
//! | `outcome` | how a command ends |

mod client;
mod commands;
mod demo;
mod grpc_client;
mod listed;
mod outcome;
mod run;

/// The data path allocates and frees small pieces; glibc's allocator spends a tenth of its time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    commands::main()
}
