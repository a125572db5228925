//! How a request becomes the fields that steps see as `req`.

use crossdock_message::{Body, ByteString, Limits, Message, Value};

/// Where the body goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BodyBinding {
    /// The body's own fields are the fields, next to those of the path and query.
    #[default]
    Fields,
    /// The body is one field of this name.
    Field(ByteString),
}

/// How a request becomes the fields that steps see as `req`. A name that is given twice is an error of the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// Where the body goes.
    pub body: BodyBinding,
    /// Fields that the address gives: names of the path template and of bound query parameters.
    pub params: Vec<ByteString>,
}

/// The text of a field that the address of an operation needs: of what the caller's address said, or of a body that a step made
/// or a contract describes.
#[must_use]
pub fn address_field(message: &Message, name: &ByteString) -> Option<ByteString> {
    let of_body = match &message.body {
        Body::Value(value) => value.get(name),
        // A typed body is known to be what it says it is; another may be anything.
        typed @ Body::Raw { of_type: Some(_), .. } => {
            typed.value(&Limits::default()).ok().flatten().and_then(|value| value.get(name))
        }
        _ => None,
    };
    message.params.get(name).or(of_body).and_then(Value::scalar_text)
}
