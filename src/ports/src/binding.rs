//! How a request becomes the fields that steps see as `req`.

use crossdock_message::{Body, ByteString, Limits, Message, Value};

/// Which fields of `req` the body sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BodyBinding {
    /// The fields of the body are fields of `req`, next to those of path and query.
    #[default]
    Fields,
    /// The body is one field with this name.
    Field(ByteString),
}

/// How a request becomes the fields that steps see as `req`. A request that sets a field twice is rejected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// Which fields the body sets.
    pub body: BodyBinding,
    /// Fields that the address sets: variables of the path template and bound query parameters.
    pub params: Vec<ByteString>,
}

/// The text of a field that the address of an operation needs, from the parameters of the message, or from its body if a step made it or a
/// contract describes it.
#[must_use]
pub fn address_field(message: &Message, name: &ByteString) -> Option<ByteString> {
    let of_body = match &message.body {
        Body::Value(value) => value.get(name),
        // A body without a type is opaque.
        typed @ Body::Raw { of_type: Some(_), .. } => {
            typed.value(&Limits::default()).ok().flatten().and_then(|value| value.get(name))
        }
        _ => None,
    };
    message.params.get(name).or(of_body).and_then(Value::scalar_text)
}
