//! A contract as an outline for terminals.

use super::{field_type, is_own, own_records};
use crate::model::{Cardinality, Contract, RecordType};

/// Services with their methods and bindings, records with their fields, enumerations with their values.
#[must_use]
pub fn outline(contract: &Contract) -> String {
    let mut out = String::new();
    for service in contract.services() {
        out.push_str(&format!("service {}\n", service.name));
        describe(&mut out, 2, &service.doc);
        for method in &service.methods {
            let stream = |streams: bool| if streams { "stream of " } else { "" };
            let (input, output) = (&contract.record(method.input).name, &contract.record(method.output).name);
            out.push_str(&format!(
                "  {}  {}{input} → {}{output}{}\n",
                method.name,
                stream(method.client_streaming),
                stream(method.server_streaming),
                if method.idempotent { "  (idempotent)" } else { "" },
            ));
            describe(&mut out, 4, &method.doc);
            for rule in &method.http {
                let body = if rule.body.is_empty() { String::new() } else { format!("  body: {}", rule.body) };
                out.push_str(&format!("    {} {}{body}\n", rule.method, rule.path));
            }
        }
        out.push('\n');
    }
    for record in own_records(contract) {
        out.push_str(&format!("record {}\n", record.name));
        describe(&mut out, 2, &record.doc);
        fields(&mut out, contract, record);
        out.push('\n');
    }
    for enumeration in contract.enumerations().iter().filter(|one| is_own(&one.name)) {
        out.push_str(&format!(
            "enumeration {}{}\n",
            enumeration.name,
            if enumeration.closed { "  (closed)" } else { "" }
        ));
        describe(&mut out, 2, &enumeration.doc);
        for (name, number) in &enumeration.values {
            out.push_str(&format!("  {number:>4}  {name}\n"));
        }
        out.push('\n');
    }
    let end = out.trim_end().len();
    out.truncate(end);
    out.push('\n');
    out
}

fn describe(out: &mut String, indent: usize, doc: &str) {
    if let Some(line) = doc.lines().next().filter(|line| !line.is_empty()) {
        out.push_str(&format!("{:indent$}{line}\n", ""));
    }
}

fn fields(out: &mut String, contract: &Contract, record: &RecordType) {
    let rows: Vec<[String; 3]> = record
        .fields
        .iter()
        .map(|field| {
            let mut notes = Vec::new();
            match field.cardinality {
                Cardinality::Required => notes.push("required".to_owned()),
                Cardinality::Optional if field.variant_of.is_none() => notes.push("optional".to_owned()),
                _ => {}
            }
            if let Some(oneof) = field.variant_of {
                notes.push(format!("one of {}", record.variants[usize::from(oneof)].name));
            }
            if field.json.name != field.name {
                notes.push(format!("in JSON {}", field.json.name));
            }
            if let Some(line) = field.doc.lines().next().filter(|line| !line.is_empty()) {
                notes.push(line.to_owned());
            }
            [field.name.to_string(), field_type(contract, field), notes.join("; ")]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (names, types) = (width(0), width(1));
    for (row, field) in rows.iter().zip(&record.fields) {
        let line = format!("  {:>4}  {:names$}  {:types$}  {}", field.protobuf.number, row[0], row[1], row[2]);
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
