# Commands of CONTRIBUTING.md. `just` lists them; each can also be run by hand.

# All checks and tests, as in continuous integration.
test:
    tests/run

# Format, lints and documentation: what must pass before a commit.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet --locked

# One file of end-to-end tests, such as `just e2e keyed`; `just e2e amqp --include-ignored` needs its peers.
e2e name *arguments:
    cargo test --workspace --test {{name}} -- {{arguments}}

# Sample services, real calls through the gateway, then it stays up.
demo:
    cargo run --release -- demo

# The optimized binary that is shipped and measured.
dist:
    cargo build --profile dist --bin crossdock

# Starts RabbitMQ for tests, or stops it: `just services up rabbitmq`, `just services down`.
services *arguments:
    tests/services/services {{arguments}}

# Rewrites golden files after an intended change: `just bless settings`. Read the difference.
bless name:
    CROSSDOCK_BLESS=1 cargo test --workspace --test {{name}}

# Rewrites the JSON Schemas after a change of settings.
schemas:
    cargo run --quiet --bin crossdock -- schema routes > schemas/routes.schema.json
    cargo run --quiet --bin crossdock -- schema settings > schemas/crossdock.schema.json

# Runs `just check` before each commit.
hooks:
    git config core.hooksPath tests/hooks
