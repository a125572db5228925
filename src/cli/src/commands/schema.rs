//! `crossdock schema`.

use super::SchemaKind;
use crossdock_gateway::{adapters, settings_schema};

pub(super) fn schema(kind: SchemaKind) {
    let schema = match kind {
        SchemaKind::Routes => crossdock_routing::route_file_schema(&adapters()),
        SchemaKind::Settings => settings_schema(&adapters()),
    };
    println!("{schema:#}");
}
