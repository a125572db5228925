//! The root element of XML that the gateway writes.

use crossdock_message::xml::ExpandedName;
use crossdock_settings::{Reader, Span, Spanned};

/// The name of the root element, which XML needs and no other format has; nothing where an error was reported.
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
                let message = format!("`{}` is not the name of an element", root.value);
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
            let help = "leave `root` out, or write the format `xml`";
            reader.error("root", root.span, "only an XML body has a root element", help);
            None
        }
    }
}
