//! The commands.

mod check;
mod cluster;
mod cluster_bench;
mod contract;
mod convert;
mod dlq;
mod eval;
mod explain;
mod route_tests;
mod routes;
mod schema;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::demo;
use crate::outcome::Failure;
use crate::run;

/// An integration gateway between legacy and new services, configured by route files.
#[derive(Parser)]
#[command(name = "crossdock", version, about, long_about = None, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 all is well, 1 a check or test failed, 2 misuse.\n\nStart with:  crossdock demo")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM; SIGHUP or a changed file reloads the routes.
    Run {
        /// The folder with crossdock.yaml and routes/.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
    /// Run the gateway with sample services, make real calls through it, show them, and stay up.
    Demo {
        /// The folder with crossdock.yaml and routes/.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
        /// End after the calls; exit 0 only if every one was right.
        #[arg(long)]
        once: bool,
    },
    /// Load and check settings and route files, and show everything that is wrong with them.
    Check {
        /// Also reach each service.
        #[arg(long)]
        connect: bool,
        /// How errors are shown.
        #[arg(long, value_enum, default_value_t = CheckFormat::Human)]
        format: CheckFormat,
        /// Folders with crossdock.yaml, or files below one.
        #[arg(default_value = "config", value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Run the tests that route files hold, with stubs in the place of services.
    Test {
        /// Folders with crossdock.yaml, or files below one.
        #[arg(default_value = "config", value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Show what a route does: entries, steps, services, times.
    Explain {
        /// The route's name.
        route: String,
        /// The folder with crossdock.yaml and routes/.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
    /// Convert a document through the canonical form: standard input to standard output.
    Convert {
        /// The format of the input.
        #[arg(long, value_enum)]
        from: ConvertFormat,
        /// The format of the output.
        #[arg(long, value_enum)]
        to: ConvertFormat,
        /// The root element of an output in XML: `Name` or `{namespace}Name`.
        #[arg(long, value_name = "NAME")]
        root: Option<String>,
        /// The contract: a .proto file, a descriptor set, or `http://host:port` of a service with reflection.
        #[arg(long, value_name = "FILE")]
        contract: Option<String>,
        /// The type in the contract, such as `shop.v1.Order`.
        #[arg(long = "type", value_name = "NAME")]
        type_name: Option<String>,
        /// A folder in which imports of a .proto file are looked for; may stand several times.
        #[arg(long, value_name = "FOLDER")]
        include: Vec<PathBuf>,
    },
    /// Evaluate an expression as a route would: its value, its type and its cost.
    Eval {
        /// The expression, such as `req.lines.map(l, l.price * l.quantity)`.
        #[arg(value_name = "EXPRESSION", allow_hyphen_values = true)]
        expression: Option<String>,
        /// The file that `req` is read from; standard input where it is missing and the expression looks at `req`.
        #[arg(long, value_name = "FILE")]
        req: Option<PathBuf>,
        /// The format of that file.
        #[arg(long, value_enum, default_value_t = eval::EvalFormat::Json)]
        format: eval::EvalFormat,
        /// The contract that describes it: a .proto file, a descriptor set, or `http://host:port` of a service with reflection.
        #[arg(long, value_name = "FILE")]
        contract: Option<String>,
        /// The type in the contract, such as `shop.v1.Order`.
        #[arg(long = "type", value_name = "NAME")]
        type_name: Option<String>,
        /// A folder in which imports of a .proto file are looked for; may stand several times.
        #[arg(long, value_name = "FOLDER")]
        include: Vec<PathBuf>,
        /// List all functions, with what they give and cost, in Markdown.
        #[arg(long)]
        functions: bool,
    },
    /// Show what a contract says.
    Contract {
        #[command(subcommand)]
        command: ContractCommand,
    },
    /// Print the JSON Schema of a kind of file, for editors.
    Schema {
        /// Which kind.
        #[arg(value_enum, default_value_t = SchemaKind::Routes)]
        kind: SchemaKind,
    },
    /// Look after messages that were set aside: list, show, replay or drop them.
    Dlq {
        #[command(subcommand)]
        command: dlq::DlqCommand,
    },
    /// Make an instance one of a cluster, and show how it fares.
    Cluster {
        #[command(subcommand)]
        command: cluster::ClusterCommand,
    },
    /// Show the routes of a running gateway and how they fare.
    Routes {
        /// The admin address; the one of the settings where nothing is said.
        #[arg(long, value_name = "HOST:PORT")]
        admin: Option<String>,
        /// The folder with crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
        /// Print the JSON that the gateway gives.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum ContractCommand {
    /// Show its services, records and enumerations.
    Show {
        /// A .proto file, a descriptor set, or `http://host:port` of a service with reflection.
        source: String,
        /// The form.
        #[arg(long = "as", value_enum, default_value_t = ShowAs::Outline, value_name = "FORM")]
        form: ShowAs,
        /// A folder in which imports of a .proto file are looked for; may stand several times.
        #[arg(long, value_name = "FOLDER")]
        include: Vec<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShowAs {
    /// For a terminal.
    Outline,
    /// A .proto file.
    Proto,
    /// JSON Schemas of its records.
    JsonSchema,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// With the line and a caret.
    Human,
    /// One line each.
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

/// Reads the command line and carries it out.
#[must_use]
pub(crate) fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { config } => run::run(config),
        Command::Demo { config, once } => demo::demo(config, once),
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
        Command::Routes { admin, config, json } => routes::routes(admin, &config, json),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed) => ExitCode::from(1),
        Err(Failure::Misuse(problem)) => {
            eprintln!("crossdock: {problem}");
            ExitCode::from(2)
        }
    }
}

/// The folder with crossdock.yaml that a path is, or stands below.
pub(crate) fn config_folder(path: &std::path::Path) -> Result<PathBuf, Failure> {
    let absolute =
        path.canonicalize().map_err(|error| Failure::Misuse(format!("cannot find `{}`: {error}", path.display())))?;
    // The path as it was written, where it is the folder itself: messages then name files as the caller does.
    if path.join("crossdock.yaml").is_file() {
        return Ok(path.to_path_buf());
    }
    let found = absolute.ancestors().find(|folder| folder.join("crossdock.yaml").is_file());
    let missing = || format!("neither `{}` nor a folder above it has crossdock.yaml", path.display());
    found.map(std::path::Path::to_path_buf).ok_or_else(|| Failure::Misuse(missing()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    /// A release does not look, and would show it to whoever asks for the command.
    #[test]
    fn every_command_is_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
