//! The `crossdock` command.
//!
//! | module | contents |
//! | --- | --- |
//! | `commands` | the command line: one file per command |
//! | `demo` | sample services, and requests through the gateway |
//! | `run` | a gateway in this process: signals, reloads, logging |
//! | `outcome` | results and exit codes of commands |
//! | `watch` | the files that cause a reload when they change |

mod commands;
mod demo;
mod outcome;
mod run;
mod watch;

/// The data path makes many small allocations; with glibc's allocator, they take a tenth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    commands::main()
}
