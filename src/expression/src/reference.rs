//! The reference of all functions, made from their table.

use crate::functions::{Function, all};

/// The reference in Markdown, a section for each group of functions.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Functions of expressions\n\n\
         Written by `crossdock eval --functions`. What each costs is work in proportion to it; the examples are tests.\n",
    );
    let mut group = "";
    for function in all() {
        if function.group != group {
            group = function.group;
            page.push_str(&format!(
                "\n## {group}\n\n| function | gives | costs | example |\n| --- | --- | --- | --- |\n"
            ));
        }
        page.push_str(&row(function));
    }
    page
}

fn row(function: &Function) -> String {
    let forms: Vec<String> = function.forms(false).into_iter().chain(function.forms(true)).collect();
    let examples: Vec<String> =
        function.examples.iter().map(|(source, value)| format!("`{source}` is `{value}`")).collect();
    let cells = [forms.join("<br>"), function.meaning.to_owned(), function.cost.to_owned(), examples.join("<br>")];
    // A bar ends a cell of a table.
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}
