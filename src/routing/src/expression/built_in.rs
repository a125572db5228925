//! The types of names that every route has: `msg`, `auth` and `peer`.

use std::sync::Arc;

use crossdock_expression::{RecordInfo, Type};

/// A record whose fields are fixed.
#[derive(Debug)]
struct BuiltIn {
    name: &'static str,
    fields: Vec<(&'static str, Type)>,
}

impl RecordInfo for BuiltIn {
    fn name(&self) -> &str {
        self.name
    }

    fn field(&self, name: &str) -> Option<Type> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, ty)| ty.clone())
    }

    fn field_names(&self) -> Vec<String> {
        self.fields.iter().map(|(field, _)| (*field).to_owned()).collect()
    }
}

/// The type of a name that every route has.
pub(super) fn built_in(name: &str) -> Option<Type> {
    let (name, fields) = match name {
        "msg" => (
            "msg",
            vec![("id", Type::Text), ("source", Type::Text), ("content_type", Type::Text), ("status", Type::Int)],
        ),
        "auth" => ("auth", vec![("principal", Type::Text), ("claims", Type::map(Type::Text, Type::Dyn))]),
        "peer" => (
            "peer",
            vec![
                ("address", Type::Text),
                ("port", Type::Int),
                ("server_name", Type::Text),
                ("certificate_sha256", Type::Text),
            ],
        ),
        _ => return None,
    };
    Some(Type::Record(Arc::new(BuiltIn { name, fields })))
}
