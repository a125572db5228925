//! The root element of XML documents that the gateway writes.

use crossdock_message::xml::ExpandedName;
use crossdock_settings::{Reader, Span, Spanned};

/// Reads the name of the root element, which XML requires and other formats exclude. The outer `None` says that an error was reported.
pub fn xml_root(
    is_xml: bool,
    root: Option<&Spanned<String>>,
    span: Span,
    reader: &mut Reader<'_>,
) -> Option<Option<ExpandedName>> {
    match (is_xml, root) {
        (false, None) => Some(None),
        (true, Some(root)) => {
            let name = ExpandedName::parse(&root.value);
            if name.is_none() {
                let message = format!("`{}` is not an element name", root.value);
                reader.error("xml-name", root.span, message, "write `Name` or `{namespace}Name`");
            }
            name.map(Some)
        }
        (true, None) => {
            let help = "add `root: Name` or `root: \"{namespace}Name\"`";
            reader.error("missing-key", span, "an XML body needs `root`", help);
            None
        }
        (false, Some(root)) => {
            let help = "remove `root`, or set the format to `xml`";
            reader.error("root", root.span, "only an XML body has a root element", help);
            None
        }
    }
}
