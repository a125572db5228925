//! Finding what a contract says of a call.

use crossdock_contract::{CallType, Contracts};
use crossdock_settings::{Reader, Spanned, nearest};

/// The call that `pkg.Service/Method` names; nothing where an error was reported.
pub fn known_call(name: &Spanned<String>, contracts: &Contracts, reader: &mut Reader<'_>) -> Option<CallType> {
    let found = contracts.call(&name.value);
    if found.is_none() {
        let methods = contracts.methods();
        let help = match nearest(&name.value, methods.iter().map(String::as_str)) {
            Some(meant) => format!("write `{meant}`"),
            None if contracts.is_empty() => "add the file that has it below `contracts:`".to_owned(),
            None => "write `pkg.Service/Method`, of a contract below `contracts:`".to_owned(),
        };
        reader.error("unknown-method", name.span, format!("no contract has a method `{}`", name.value), help);
    }
    found
}
