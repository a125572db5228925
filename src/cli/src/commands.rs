//! The commands.

mod check;
mod cluster;
mod cluster_backup;
mod cluster_bench;
mod cluster_bench_queue;
mod cluster_check;
mod cluster_large_state;
mod contract;
mod convert;
mod dlq;
mod eval;
mod explain;
mod generations;
mod locks;
mod queues;
mod route_tests;
mod routes;
mod routes_of_cluster;
mod schema;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::demo;
use crate::outcome::Failure;
use crate::run;

/// An integration gateway between legacy and new services, configured by route files.
#[derive(Parser)]
#[command(name = "crossdock", version, long_about = None, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 success, 1 a check or test failed, 2 the command could not run.\n\nStart with:  crossdock demo"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM; SIGHUP or a changed file reloads the routes.
    Run {
        /// The folder that contains crossdock.yaml and routes/.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
    /// Run the gateway with sample services, send requests through it and print them, and keep running.
    Demo {
        /// The folder that contains crossdock.yaml and routes/.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
        /// Exit after the requests, with 0 only if every one passed.
        #[arg(long)]
        once: bool,
        /// Instead, show what a cluster of three instances does: a lock is handed over, and an ordered stream survives the death of the leader.
        #[arg(long, conflicts_with_all = ["once", "config"])]
        cluster: bool,
    },
    /// Check settings and route files and report all errors at once.
    Check {
        /// Also connect to every endpoint of every service.
        #[arg(long)]
        connect: bool,
        /// The output format.
        #[arg(long, value_enum, default_value_t = CheckFormat::Human)]
        format: CheckFormat,
        /// Folders that contain crossdock.yaml, or files below one.
        #[arg(default_value = "config", value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Run the tests in route files, with stubs instead of services.
    Test {
        /// Folders that contain crossdock.yaml, or files below one.
        #[arg(default_value = "config", value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Explain a route: entries, policies, steps, services, timeouts.
    Explain {
        /// The name of the route.
        route: String,
        /// The folder that contains crossdock.yaml and routes/.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
    /// Convert a document from standard input to another format on standard output.
    Convert {
        /// The format of the input.
        #[arg(long, value_enum)]
        from: ConvertFormat,
        /// The format of the output.
        #[arg(long, value_enum)]
        to: ConvertFormat,
        /// The root element of XML output: `Name` or `{namespace}Name`.
        #[arg(long, value_name = "NAME")]
        root: Option<String>,
        /// The contract: a .proto file, a descriptor set, or `http://host:port` of a service with server reflection.
        #[arg(long, value_name = "FILE")]
        contract: Option<String>,
        /// The message type in the contract, such as `shop.v1.Order`.
        #[arg(long = "type", value_name = "NAME")]
        type_name: Option<String>,
        /// A folder to search for imports of .proto files; may be repeated.
        #[arg(long, value_name = "FOLDER")]
        include: Vec<PathBuf>,
    },
    /// Evaluate an expression as a route would, and print its value, type and cost.
    Eval {
        /// The expression, such as `req.lines.map(l, l.price * l.quantity)`.
        #[arg(value_name = "EXPRESSION", allow_hyphen_values = true)]
        expression: Option<String>,
        /// The file that contains `req`. Defaults to standard input if the expression uses `req`.
        #[arg(long, value_name = "FILE")]
        req: Option<PathBuf>,
        /// The format of that file.
        #[arg(long, value_enum, default_value_t = eval::EvalFormat::Json)]
        format: eval::EvalFormat,
        /// The contract of `req`: a .proto file, a descriptor set, or `http://host:port` of a service with server reflection.
        #[arg(long, value_name = "FILE")]
        contract: Option<String>,
        /// The message type in the contract, such as `shop.v1.Order`.
        #[arg(long = "type", value_name = "NAME")]
        type_name: Option<String>,
        /// A folder to search for imports of .proto files; may be repeated.
        #[arg(long, value_name = "FOLDER")]
        include: Vec<PathBuf>,
        /// Print the reference of all functions, with result types and costs, as Markdown.
        #[arg(long)]
        functions: bool,
    },
    /// Inspect a contract.
    Contract {
        #[command(subcommand)]
        command: ContractCommand,
    },
    /// Print a JSON Schema of route files or settings, for editors.
    Schema {
        /// The kind of file.
        #[arg(value_enum, default_value_t = SchemaKind::Routes)]
        kind: SchemaKind,
    },
    /// List, show, replay or delete dead letters.
    Dlq {
        #[command(subcommand)]
        command: dlq::DlqCommand,
    },
    /// Initialize, monitor and benchmark a cluster.
    Cluster {
        #[command(subcommand)]
        command: cluster::ClusterCommand,
    },
    /// Show the locks of a cluster and their holders, ask for one, or take it away.
    Locks {
        #[command(subcommand)]
        command: locks::LocksCommand,
    },
    /// Show the queues of a cluster, or delete the messages of one that no instance consumes.
    Queues {
        #[command(subcommand)]
        command: queues::QueuesCommand,
    },
    /// Make a token for a client of the API of a cluster, with the digest for the file of clients.
    Token,
    /// Run a command while a lock is held that all instances of the cluster share.
    Lock(locks::LockCommand),
    /// Show throughput, latency and availability of the routes of a running gateway; or push routes to all instances of a cluster.
    #[command(args_conflicts_with_subcommands = true)]
    Routes {
        #[command(subcommand)]
        command: Option<generations::GenerationsCommand>,
        /// Sum over the instances of the cluster: those of all `--admin`, or the members in the settings, each with the port of the admin listener
        /// there.
        #[arg(long)]
        cluster: bool,
        /// The address of the admin listener; repeat it for several instances. Defaults to the one in the settings.
        #[arg(long, value_name = "HOST:PORT")]
        admin: Vec<String>,
        /// The folder that contains crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum ContractCommand {
    /// Show the services, messages and enumerations of a contract.
    Show {
        /// A .proto file, a descriptor set, or `http://host:port` of a service with server reflection.
        source: String,
        /// The output format.
        #[arg(long = "as", value_enum, default_value_t = ShowAs::Outline, value_name = "FORM")]
        form: ShowAs,
        /// A folder to search for imports of .proto files; may be repeated.
        #[arg(long, value_name = "FOLDER")]
        include: Vec<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShowAs {
    /// A readable outline.
    Outline,
    /// A .proto file.
    Proto,
    /// JSON Schemas of the messages.
    JsonSchema,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// With the source line and a caret.
    Human,
    /// One line per diagnostic.
    Short,
    /// One JSON document.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConvertFormat {
    Json,
    Xml,
    /// Protobuf's wire format.
    Proto,
    /// Protobuf's text format.
    ProtoText,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SchemaKind {
    /// Route files.
    Routes,
    /// crossdock.yaml.
    Settings,
}

/// Parses the command line and runs the command.
#[must_use]
pub(crate) fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { config } => run::run(config),
        Command::Demo { cluster: true, .. } => demo::demo_cluster(),
        Command::Demo { config, once, cluster: false } => demo::demo(config, once),
        Command::Check { connect, format, paths } => check::check(&paths, connect, format),
        Command::Test { paths } => route_tests::test(&paths),
        Command::Explain { route, config } => explain::explain(&route, &config),
        Command::Convert { from, to, root, contract, type_name, include } => {
            convert::convert(&convert::Conversion { from, to, root, contract, type_name, include })
        }
        Command::Eval { expression, req, format, contract, type_name, include, functions } => {
            eval::eval(&eval::Evaluation { expression, req, format, contract, type_name, include, functions })
        }
        Command::Contract { command: ContractCommand::Show { source, form, include } } => {
            contract::show_contract(&source, &include, form)
        }
        Command::Schema { kind } => {
            schema::schema(kind);
            Ok(())
        }
        Command::Dlq { command } => dlq::dlq(command),
        Command::Cluster { command } => cluster::cluster(command),
        Command::Locks { command } => locks::locks(command),
        Command::Queues { command } => queues::queues(command),
        Command::Lock(command) => locks::lock(command),
        Command::Token => {
            token::token();
            Ok(())
        }
        Command::Routes { command: Some(command), .. } => generations::generations(command),
        Command::Routes { command: None, cluster: true, admin, config, json } => {
            routes_of_cluster::routes(admin, &config, json)
        }
        Command::Routes { command: None, cluster: false, mut admin, config, json } => match admin.len() {
            0 | 1 => routes::routes(admin.pop(), &config, json),
            _ => Err(Failure::Error("several `--admin` need `--cluster`".to_owned())),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed) => ExitCode::from(1),
        Err(Failure::Exit(code)) => ExitCode::from(code),
        Err(Failure::Error(problem)) => {
            eprintln!("crossdock: {problem}");
            ExitCode::from(2)
        }
    }
}

/// The folder that contains crossdock.yaml: the path itself or its nearest such ancestor.
pub(crate) fn config_folder(path: &std::path::Path) -> Result<PathBuf, Failure> {
    let absolute =
        path.canonicalize().map_err(|error| Failure::Error(format!("cannot find `{}`: {error}", path.display())))?;
    // Keep the path as given if it is the folder, so that messages name files as the user does.
    if path.join("crossdock.yaml").is_file() {
        return Ok(path.to_path_buf());
    }
    let found = absolute.ancestors().find(|folder| folder.join("crossdock.yaml").is_file());
    let missing = || format!("neither `{}` nor a folder above it contains crossdock.yaml", path.display());
    found.map(std::path::Path::to_path_buf).ok_or_else(|| Failure::Error(missing()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    /// Release builds skip these assertions.
    #[test]
    fn every_command_is_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
