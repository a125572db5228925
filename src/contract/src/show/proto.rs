//! A contract as one `.proto` file per package, regardless of its source.

use std::collections::BTreeMap;

use super::{field_type, is_own, own_records};
use crate::model::{Cardinality, Contract, EnumType, Field, RecordType, Service};
use crate::proto::camel_case;

/// The declarations of one package.
#[derive(Default)]
struct Package<'c> {
    records: Vec<&'c RecordType>,
    enums: Vec<&'c EnumType>,
    services: Vec<&'c Service>,
}

/// The contract as `.proto` text: `proto3`, or edition 2023 if `proto3` cannot express it.
#[must_use]
pub fn proto(contract: &Contract) -> String {
    let mut packages: BTreeMap<&str, Package<'_>> = BTreeMap::new();
    for record in own_records(contract) {
        packages.entry(package_of(contract, &record.name)).or_default().records.push(record);
    }
    for enumeration in contract.enumerations().iter().filter(|one| is_own(&one.name)) {
        packages.entry(package_of(contract, &enumeration.name)).or_default().enums.push(enumeration);
    }
    for service in contract.services() {
        packages.entry(package_of(contract, &service.name)).or_default().services.push(service);
    }
    packages.iter().map(|(name, package)| write_package(contract, name, package)).collect::<Vec<_>>().join("\n")
}

/// The package of a full name, without the records in which it is declared.
fn package_of<'n>(contract: &Contract, name: &'n str) -> &'n str {
    let mut outer = name.rsplit_once('.').map_or("", |(outer, _)| outer);
    while contract.find_record(outer).is_some() {
        outer = outer.rsplit_once('.').map_or("", |(outer, _)| outer);
    }
    outer
}

fn needs_edition(package: &Package<'_>) -> bool {
    let special = |field: &Field| {
        field.cardinality == Cardinality::Required || field.protobuf.delimited || field.name.starts_with('[')
    };
    package.enums.iter().any(|one| one.closed) || package.records.iter().any(|record| record.fields.iter().any(special))
}

struct Writer<'c> {
    contract: &'c Contract,
    out: String,
    edition: bool,
}

fn write_package(contract: &Contract, name: &str, package: &Package<'_>) -> String {
    let edition = needs_edition(package);
    let head = if edition { "edition = \"2023\";\n" } else { "syntax = \"proto3\";\n" };
    let mut writer = Writer { contract, out: head.to_owned(), edition };
    if !name.is_empty() {
        writer.out.push_str(&format!("\npackage {name};\n"));
    }
    let mut first = true;
    for import in imports(contract, package) {
        writer.out.push_str(&format!("{}import \"{import}\";\n", if first { "\n" } else { "" }));
        first = false;
    }
    for service in &package.services {
        writer.service(service);
    }
    let top = |of: &str| of.rsplit_once('.').map_or("", |(outer, _)| outer) == name;
    for record in package.records.iter().filter(|record| top(&record.name)) {
        writer.record(record, package, 0);
    }
    for enumeration in package.enums.iter().filter(|one| top(&one.name)) {
        writer.enumeration(enumeration, 0);
    }
    writer.out
}

/// The well-known files that a package imports.
fn imports(contract: &Contract, package: &Package<'_>) -> Vec<&'static str> {
    const FILES: &[(&str, &str)] = &[
        ("google.protobuf.Any", "google/protobuf/any.proto"),
        ("google.protobuf.Duration", "google/protobuf/duration.proto"),
        ("google.protobuf.Empty", "google/protobuf/empty.proto"),
        ("google.protobuf.FieldMask", "google/protobuf/field_mask.proto"),
        ("google.protobuf.ListValue", "google/protobuf/struct.proto"),
        ("google.protobuf.NullValue", "google/protobuf/struct.proto"),
        ("google.protobuf.Struct", "google/protobuf/struct.proto"),
        ("google.protobuf.Value", "google/protobuf/struct.proto"),
        ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
    ];
    let fields = package.records.iter().flat_map(|record| &record.fields);
    let mut used: Vec<String> = fields.map(|field| super::type_name(contract, field)).collect();
    for method in package.services.iter().flat_map(|service| &service.methods) {
        used.extend([method.input, method.output].map(|id| contract.record(id).name.to_string()));
    }
    let mut files: Vec<&str> =
        FILES.iter().filter(|(name, _)| used.iter().any(|used| used == name)).map(|(_, file)| *file).collect();
    if used.iter().any(|name| {
        name.starts_with("google.protobuf.") && name.ends_with("Value") && !FILES.iter().any(|(known, _)| known == name)
    }) {
        files.push("google/protobuf/wrappers.proto");
    }
    if package.services.iter().flat_map(|service| &service.methods).any(|method| !method.http.is_empty()) {
        files.push("google/api/annotations.proto");
    }
    files.sort_unstable();
    files.dedup();
    files
}

impl Writer<'_> {
    fn line(&mut self, depth: usize, text: &str) {
        self.out.push_str(&format!("{:width$}{text}\n", "", width = depth * 2));
    }

    fn doc(&mut self, depth: usize, doc: &str) {
        for line in doc.lines() {
            self.line(depth, format!("// {line}").trim_end());
        }
    }

    fn service(&mut self, service: &Service) {
        self.out.push('\n');
        self.doc(0, &service.doc);
        self.line(0, &format!("service {} {{", last(&service.name)));
        for method in &service.methods {
            self.doc(1, &method.doc);
            let stream = |streams: bool| if streams { "stream " } else { "" };
            let (input, output) = (&self.contract.record(method.input).name, &self.contract.record(method.output).name);
            let head = format!(
                "rpc {}({}.{input}) returns ({}.{output})",
                method.name,
                stream(method.client_streaming),
                stream(method.server_streaming)
            );
            if method.http.is_empty() && !method.idempotent {
                self.line(1, &format!("{head};"));
                continue;
            }
            self.line(1, &format!("{head} {{"));
            if method.idempotent {
                self.line(2, "option idempotency_level = IDEMPOTENT;");
            }
            if let Some((first, others)) = method.http.split_first() {
                self.line(2, "option (google.api.http) = {");
                self.http_rule(first, 3);
                for other in others {
                    self.line(3, "additional_bindings {");
                    self.http_rule(other, 4);
                    self.line(3, "}");
                }
                self.line(2, "};");
            }
            self.line(1, "}");
        }
        self.line(0, "}");
    }

    fn http_rule(&mut self, rule: &crate::model::HttpRule, depth: usize) {
        match rule.method.as_str() {
            "GET" | "PUT" | "POST" | "DELETE" | "PATCH" => {
                self.line(depth, &format!("{}: {:?}", rule.method.to_ascii_lowercase(), rule.path));
            }
            other => self.line(depth, &format!("custom {{ kind: {other:?} path: {:?} }}", rule.path)),
        }
        for (name, value) in [("body", &rule.body), ("response_body", &rule.response_body)] {
            if !value.is_empty() {
                self.line(depth, &format!("{name}: {value:?}"));
            }
        }
    }

    fn record(&mut self, record: &RecordType, package: &Package<'_>, depth: usize) {
        self.out.push('\n');
        self.doc(depth, &record.doc);
        self.line(depth, &format!("message {} {{", last(&record.name)));
        let inside = |name: &str| name.rsplit_once('.').is_some_and(|(outer, _)| outer == &*record.name);
        for field in record.fields.iter().filter(|field| field.variant_of.is_none()) {
            self.field(field, depth + 1);
        }
        for (index, oneof) in (0..).zip(&record.variants) {
            self.line(depth + 1, &format!("oneof {} {{", oneof.name));
            for field in record.fields.iter().filter(|field| field.variant_of == Some(index)) {
                self.field(field, depth + 2);
            }
            self.line(depth + 1, "}");
        }
        for nested in package.records.iter().filter(|nested| inside(&nested.name)) {
            self.record(nested, package, depth + 1);
        }
        for nested in package.enums.iter().filter(|nested| inside(&nested.name)) {
            self.enumeration(nested, depth + 1);
        }
        self.line(depth, "}");
    }

    fn field(&mut self, field: &Field, depth: usize) {
        if field.name.starts_with('[') {
            self.line(depth, &format!("// extended by {} = {}", field.name, field.protobuf.number));
            return;
        }
        self.doc(depth, &field.doc);
        let mut options = Vec::new();
        let record = matches!(field.kind, crate::model::Kind::Record(_));
        let label = match field.cardinality {
            Cardinality::Optional if !self.edition && field.variant_of.is_none() && !record => "optional ",
            _ => "",
        };
        if self.edition {
            match field.cardinality {
                Cardinality::Required => options.push("features.field_presence = LEGACY_REQUIRED".to_owned()),
                Cardinality::Implicit => options.push("features.field_presence = IMPLICIT".to_owned()),
                _ => {}
            }
            if field.protobuf.delimited {
                options.push("features.message_encoding = DELIMITED".to_owned());
            }
        }
        let packable = field.cardinality == Cardinality::Repeated
            && !field.protobuf.packed
            && !record
            && field.protobuf.encoding.is_packable();
        if packable {
            let expanded = if self.edition { "features.repeated_field_encoding = EXPANDED" } else { "packed = false" };
            options.push(expanded.to_owned());
        }
        if field.json.name != camel_case(&field.name) {
            options.push(format!("json_name = {:?}", &*field.json.name));
        }
        let options = if options.is_empty() { String::new() } else { format!(" [{}]", options.join(", ")) };
        let kind = field_type(self.contract, field);
        let dotted = kind
            .rsplit_once(' ')
            .map_or_else(|| absolute(&kind), |(before, name)| format!("{before} {}", absolute(name)));
        self.line(depth, &format!("{label}{dotted} {} = {}{options};", field.name, field.protobuf.number));
    }

    fn enumeration(&mut self, enumeration: &EnumType, depth: usize) {
        self.out.push('\n');
        self.doc(depth, &enumeration.doc);
        self.line(depth, &format!("enum {} {{", last(&enumeration.name)));
        if enumeration.closed {
            self.line(depth + 1, "option features.enum_type = CLOSED;");
        }
        if enumeration.by_number.len() < enumeration.values.len() {
            self.line(depth + 1, "option allow_alias = true;");
        }
        for (name, number) in &enumeration.values {
            self.line(depth + 1, &format!("{name} = {number};"));
        }
        self.line(depth, "}");
    }
}

/// A full name with a leading dot; scalars are unchanged.
fn absolute(name: &str) -> String {
    match name.strip_suffix('>') {
        Some(inner) => format!("{}>", absolute(inner)),
        None if name.contains('.') => format!(".{name}"),
        None => name.to_owned(),
    }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
