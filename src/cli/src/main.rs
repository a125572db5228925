//! The `crossdock` command.
//!
//! | module | contents |
//! | --- | --- |
//! | `commands` | the command line: one file per command |
//! | `demo` | sample services, and requests through the gateway |
//! | `run` | a gateway in this process: signals, reloads, logging |
//! | `client`, `grpc_client` | HTTP and gRPC clients |
//! | `json_stream` | message streams written as JSON arrays |
//! | `outcome` | results and exit codes of commands |

mod client;
mod commands;
mod demo;
mod grpc_client;
mod json_stream;
mod outcome;
mod run;

/// The data path makes many small allocations; with glibc's allocator, they take a tenth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    commands::main()
}
