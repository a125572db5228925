//! Parses the tests from their text format, `cel.expr.conformance.test.SimpleTestFile`.

use std::collections::HashMap;
use std::path::Path;

use crossdock_expression::{Type, Val};
use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, Value};

use super::messages::Messages;
use super::values::{Unsupported, boolean, message, read_type, read_type_text, read_value, repeated, show, text};

/// The schema of the test files and of the messages in them.
const SCHEMAS: [&str; 4] = [
    "cel/expr/conformance/test/simple.proto",
    "cel/expr/conformance/proto2/test_all_types.proto",
    "cel/expr/conformance/proto2/test_all_types_extensions.proto",
    "cel/expr/conformance/proto3/test_all_types.proto",
];

/// One test.
pub(crate) struct Case {
    /// `file/section/test`.
    pub(crate) name: String,
    /// The expression.
    pub(crate) source: String,
    /// The namespace in which names are resolved first.
    pub(crate) container: String,
    /// Whether the test declares the types of its variables.
    pub(crate) is_typed: bool,
    /// Declared variables and their types.
    pub(crate) variables: Vec<(String, Type)>,
    /// The values of variables.
    pub(crate) bindings: Vec<(String, Result<Val<'static>, Unsupported>)>,
    /// Whether macros are expanded.
    pub(crate) has_macros: bool,
    /// Whether type checking is skipped.
    pub(crate) is_unchecked: bool,
    /// Whether the expression is only checked, not evaluated.
    pub(crate) is_check_only: bool,
    /// The expected result.
    pub(crate) expected: Expected,
}

/// The expected result.
pub(crate) enum Expected {
    /// A value.
    Value(Result<Val<'static>, Unsupported>),
    /// A compile error or a failure at run time.
    Failure,
    /// A type, and a value if evaluated.
    Typed { of: String, value: Option<Result<Val<'static>, Unsupported>> },
}

impl Expected {
    /// The notation for reports.
    pub(crate) fn show(&self) -> String {
        let value = |value: &Result<Val<'static>, Unsupported>| match value {
            Ok(value) => show(value),
            Err(unsupported) => unsupported.to_string(),
        };
        match self {
            Self::Value(expected) => value(expected),
            Self::Failure => "a failure".to_owned(),
            Self::Typed { of, value: None } => format!("type {of}"),
            Self::Typed { of, value: Some(expected) } => format!("{} of type {of}", value(expected)),
        }
    }
}

impl Case {
    /// The name of the test file.
    pub(crate) fn file(&self) -> &str {
        self.name.split('/').next().unwrap_or("")
    }
}

/// Reads all tests of the module in a folder.
pub(crate) fn read(folder: &Path) -> Vec<Case> {
    let files = protox::compile(SCHEMAS, [folder.join("proto")]).expect("the schema of the tests");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("the schema of the tests");
    let messages = Messages::compile(&folder.join("proto"));
    let schema = pool.get_message_by_name("cel.expr.conformance.test.SimpleTestFile").expect("the schema of a file");
    let folder = folder.join("tests/simple/testdata");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("the tests").map(|entry| entry.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "textproto"));
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let file = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let written = std::fs::read_to_string(&path).expect("a file of tests");
        let read = DynamicMessage::parse_text_format(schema.clone(), &written)
            .unwrap_or_else(|error| panic!("{file} cannot be read: {error:?}"));
        for section in repeated(&read, "section") {
            // Test names are not unique within a section.
            let mut name_counts: HashMap<String, usize> = HashMap::new();
            for test in repeated(&section, "test") {
                let mut name = format!("{file}/{}/{}", text(&section, "name"), text(&test, "name"));
                let count = name_counts.entry(name.clone()).or_default();
                *count += 1;
                if *count > 1 {
                    name.push_str(&format!("#{count}"));
                }
                cases.push(case(&test, name, &messages));
            }
        }
    }
    cases
}

fn case(test: &DynamicMessage, name: String, messages: &Messages) -> Case {
    let declarations = repeated(test, "type_env");
    let identifiers: Vec<_> = declarations
        .iter()
        .filter_map(|declaration| Some((text(declaration, "name"), message(&message(declaration, "ident")?, "type")?)))
        .collect();
    let mut bindings = Vec::new();
    if let Some(Value::Map(entries)) = test.get_field_by_name("bindings").as_deref() {
        for (key, value) in entries {
            let (MapKey::String(name), Value::Message(value)) = (key, value) else { continue };
            let value =
                message(value, "value").ok_or_else(|| Unsupported::Kind("a binding without a value".to_owned()));
            let value = value.and_then(|value| read_value(&value, messages));
            bindings.push((name.clone(), value));
        }
    }
    bindings.sort_by(|(left, _), (right, _)| left.cmp(right));
    Case {
        name,
        source: text(test, "expr"),
        container: text(test, "container"),
        is_typed: !declarations.is_empty(),
        variables: identifiers.iter().map(|(name, of)| (name.clone(), read_type(of, messages))).collect(),
        bindings,
        has_macros: !boolean(test, "disable_macros"),
        is_unchecked: boolean(test, "disable_check"),
        is_check_only: boolean(test, "check_only"),
        expected: expected(test, messages),
    }
}

fn expected(test: &DynamicMessage, messages: &Messages) -> Expected {
    if let Some(value) = message(test, "value") {
        return Expected::Value(read_value(&value, messages));
    }
    if let Some(typed) = message(test, "typed_result") {
        let value = message(&typed, "result").map(|value| read_value(&value, messages));
        return match message(&typed, "deduced_type") {
            Some(of) => Expected::Typed { of: read_type_text(&of, messages), value },
            None => Expected::Value(value.unwrap_or(Ok(Val::Bool(true)))),
        };
    }
    if test.has_field_by_name("eval_error") || test.has_field_by_name("any_eval_errors") {
        return Expected::Failure;
    }
    if test.has_field_by_name("unknown") || test.has_field_by_name("any_unknowns") {
        return Expected::Value(Err(Unsupported::Kind("an unknown".to_owned())));
    }
    // "An absent matcher means true."
    Expected::Value(Ok(Val::Bool(true)))
}
