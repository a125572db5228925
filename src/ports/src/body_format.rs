//! The format of bodies, as settings of message brokers write it.

use crossdock_settings::{Reader, Span, Spanned};

use crate::{WriteFormat, xml_root};

crossdock_settings::choices! {
    /// The format of a body.
    pub enum BodyFormat {
        /// JSON.
        Json = "json",
        /// XML; if the gateway encodes it, with the root element that `root` names.
        Xml = "xml",
        /// Protobuf; needs a contract.
        Protobuf = "protobuf",
        /// Text or bytes, unchanged.
        Raw = "raw",
    }
}

impl BodyFormat {
    /// How bodies that the gateway encodes are written; `None` if an error was reported at `span`.
    pub fn to_write_format(
        self,
        root: Option<&Spanned<String>>,
        has_contract: bool,
        span: Span,
        reader: &mut Reader<'_>,
    ) -> Option<WriteFormat> {
        match (self, xml_root(self == Self::Xml, root, span, reader)?) {
            (_, Some(root)) => Some(WriteFormat::xml(root)),
            (Self::Protobuf, None) if has_contract => Some(WriteFormat::protobuf()),
            (Self::Protobuf, None) => {
                let help = "add `as: pkg.Service/Method`, from a contract listed in `contracts:`";
                reader.error("format", span, "`protobuf` needs a contract", help);
                None
            }
            (Self::Raw, None) => Some(WriteFormat::raw()),
            (Self::Json | Self::Xml, None) => Some(WriteFormat::json()),
        }
    }
}
