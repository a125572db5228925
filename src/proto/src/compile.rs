//! Compiles `.proto` files to descriptors with protox; `protoc` is not needed.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use crossdock_contract::{Contract, ProtoError, SourceRange, from_descriptor_set};
use miette::Diagnostic as _;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

/// Access to the files of contracts.
pub trait Files {
    /// The content of a file, by its name in imports; `None` if there is no such file.
    ///
    /// # Errors
    /// A message, if the file exists but cannot be read.
    fn read(&self, name: &str) -> Result<Option<Bytes>, String>;
}

/// Files that many contracts import. Those of `google/protobuf/` come with protox.
const SHIPPED: &[(&str, &str)] = &[
    ("google/api/annotations.proto", include_str!("shipped/annotations.proto")),
    ("google/api/http.proto", include_str!("shipped/http.proto")),
    ("google/rpc/status.proto", include_str!("shipped/status.proto")),
    ("google/rpc/error_details.proto", include_str!("shipped/error_details.proto")),
    ("google/type/date.proto", include_str!("shipped/type_date.proto")),
    ("google/type/dayofweek.proto", include_str!("shipped/type_dayofweek.proto")),
    ("google/type/decimal.proto", include_str!("shipped/type_decimal.proto")),
    ("google/type/latlng.proto", include_str!("shipped/type_latlng.proto")),
    ("google/type/money.proto", include_str!("shipped/type_money.proto")),
    ("google/type/timeofday.proto", include_str!("shipped/type_timeofday.proto")),
    // Schemas of registries import them without a reference, as Confluent's clients have them.
    ("confluent/meta.proto", include_str!("shipped/confluent_meta.proto")),
    ("confluent/type/decimal.proto", include_str!("shipped/confluent_decimal.proto")),
];

/// The maximum bytes of one file.
const SOURCE_LEN_MAX: usize = 16 << 20;

/// Owned, because protox requires resolvers with a static lifetime.
struct Sources(BTreeMap<String, String>);

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Compiles `.proto` files and their imports.
///
/// ```
/// use std::sync::Arc;
///
/// use bytes::Bytes;
/// use crossdock_contract::{TypeRef, UnknownFields};
/// use crossdock_message::Limits;
/// use crossdock_proto::{Files, compile};
///
/// struct Shop;
///
/// impl Files for Shop {
///     fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
///         let text = "syntax = \"proto3\"; package shop; message Order { int64 id = 1; repeated string lines = 2; }";
///         Ok((name == "shop.proto").then(|| Bytes::from_static(text.as_bytes())))
///     }
/// }
///
/// let contract = Arc::new(compile(&["shop.proto"], &Shop).expect("a contract"));
/// let order = contract.find_record("shop.Order").map(|id| TypeRef::new(contract, id)).expect("the type");
/// let json = Bytes::from_static(br#"{"id":"9007199254740993","lines":["a"]}"#);
/// let wire = order.json_to_wire(&json, UnknownFields::Refuse, &Limits::default()).expect("an order");
/// assert_eq!(wire, b"\x08\x81\x80\x80\x80\x80\x80\x80\x10\x12\x01a");
///
/// let misspelt = Bytes::from_static(br#"{"Id":1}"#);
/// let error = order.json_to_wire(&misspelt, UnknownFields::Refuse, &Limits::default()).expect_err("no such field");
/// assert!(error.to_string().contains("`Id`"), "{error}");
/// ```
///
/// # Errors
/// [`ProtoError`] with its location, for an error in one of the files or a missing file.
pub fn compile(names: &[&str], files: &dyn Files) -> Result<Contract, ProtoError> {
    let mut texts = BTreeMap::new();
    for name in names {
        collect(name, files, &mut texts)?;
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources(texts.clone()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for name in names {
        compiler.open_file(Path::new(name)).map_err(|error| located(&error, &texts))?;
    }
    from_descriptor_set(&Bytes::from(compiler.encode_file_descriptor_set()))
}

/// Reads a file and the files that it imports.
fn collect(name: &str, files: &dyn Files, texts: &mut BTreeMap<String, String>) -> Result<(), ProtoError> {
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        if texts.contains_key(&name) {
            continue;
        }
        let own = files.read(&name).map_err(ProtoError::plain)?;
        let not_text = |_| ProtoError::plain(format!("`{name}` is not valid UTF-8"));
        let own = own.map(|bytes| String::from_utf8(bytes.into()).map_err(not_text)).transpose()?;
        let shipped = || SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| (*text).to_owned());
        // The compiler reports missing files, with the location of the import.
        let Some(text) = own.or_else(shipped) else { continue };
        if text.len() > SOURCE_LEN_MAX {
            return Err(ProtoError::plain(format!("`{name}` is larger than {SOURCE_LEN_MAX} bytes")));
        }
        // A file with errors has no imports here; the compiler reports them, with their location.
        if let Ok(parsed) = File::from_source(&name, &text) {
            open.extend(parsed.file_descriptor_proto().dependency.iter().cloned());
        }
        texts.insert(name, text);
    }
    Ok(())
}

fn located(error: &protox::Error, texts: &BTreeMap<String, String>) -> ProtoError {
    let problem = error.to_string();
    let label = error.labels().and_then(|mut labels| labels.next());
    let file = error.file().map(str::to_owned);
    let location = file.zip(label).and_then(|(file, label)| {
        let text = match texts.get(&file) {
            Some(text) => text.clone(),
            None => {
                let whole = error.source_code()?.read_span(label.inner(), 0, 0).ok()?;
                String::from_utf8_lossy(whole.data()).into_owned()
            }
        };
        let start = label.offset().min(text.len());
        let end = (start + label.len()).min(text.len());
        Some(SourceRange { file, text, range: start..end })
    });
    let problem = match label_text(error) {
        Some(label) if !label.ends_with(" here") && !problem.contains(&label) => format!("{problem}: {label}"),
        _ => problem,
    };
    ProtoError { problem, location }
}

fn label_text(error: &protox::Error) -> Option<String> {
    error.labels()?.next()?.label().map(str::to_owned)
}
