//! How a request becomes the fields that steps see as `req`.

use crossdock_message::ByteString;

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
