//! Finds the types of a call in the contracts.

use crossdock_contract::{CallType, Contracts};
use crossdock_settings::{Reader, Spanned, nearest};

/// The types of the method `pkg.Service/Method`; `None` if an error was reported.
pub fn known_call(name: &Spanned<String>, contracts: &Contracts, reader: &mut Reader<'_>) -> Option<CallType> {
    let found = contracts.call(&name.value);
    if found.is_none() {
        let methods = contracts.methods();
        let help = match nearest(&name.value, methods.iter().map(String::as_str)) {
            Some(meant) => format!("write `{meant}`"),
            None if contracts.is_empty() => "add the file that declares it to `contracts`".to_owned(),
            None => "write `pkg.Service/Method`, with a service of a contract in `contracts`".to_owned(),
        };
        reader.error("unknown-method", name.span, format!("no contract has a method `{}`", name.value), help);
    }
    found
}
