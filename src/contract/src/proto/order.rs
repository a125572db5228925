//! Messages by their position in a file, as Confluent's wire format identifies them.

use prost::Message as _;

use super::descriptor;
use crate::model::{Contract, RecordId};

impl Contract {
    /// The message at a position in a `.proto` file: the index of a top-level message, then those of nested ones. Messages count in the order of their
    /// declaration; entries of maps do not.
    #[must_use]
    pub fn message_at(&self, file: &str, path: &[usize]) -> Option<RecordId> {
        let file = self.descriptor(file)?;
        let (first, rest) = path.split_first()?;
        let mut message = declared(&file.message_type).nth(*first)?;
        let mut name = qualified(&file.package, &message.name);
        for index in rest {
            message = declared(&message.nested_type).nth(*index)?;
            name = qualified(&name, &message.name);
        }
        self.find_record(&name)
    }

    /// The position of a message in a `.proto` file, as [`Contract::message_at`] takes it.
    #[must_use]
    pub fn position_of(&self, file: &str, name: &str) -> Option<Vec<usize>> {
        let file = self.descriptor(file)?;
        let mut messages = &file.message_type;
        let mut scope = file.package.clone();
        let mut path = Vec::new();
        loop {
            let found = declared(messages).enumerate().find(|(_, message)| {
                let of_message = qualified(&scope, &message.name);
                name == of_message || name.strip_prefix(&*of_message).is_some_and(|rest| rest.starts_with('.'))
            });
            let (index, message) = found?;
            path.push(index);
            scope = qualified(&scope, &message.name);
            if scope == name {
                return Some(path);
            }
            messages = &message.nested_type;
        }
    }

    fn descriptor(&self, file: &str) -> Option<descriptor::File> {
        let source = self.files.iter().find(|source| source.name == file)?;
        descriptor::File::decode(source.descriptor.clone()).ok()
    }
}

fn declared(messages: &[descriptor::Record]) -> impl Iterator<Item = &descriptor::Record> {
    messages.iter().filter(|message| !message.options.as_ref().is_some_and(|options| options.map_entry))
}

fn qualified(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}
