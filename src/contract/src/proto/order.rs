//! Messages by their position in a file, as Confluent's wire format identifies them.

use prost::Message as _;

use super::descriptor::{File, Record};
use crate::model::{Contract, RecordId};

impl Contract {
    /// The messages of a `.proto` file with their positions: the index of a top-level message, then those of nested ones. Messages count in the order of
    /// their declaration; entries of maps do not, as for Confluent's client for Java.
    #[must_use]
    pub fn messages_of(&self, file: &str) -> Vec<(Vec<usize>, RecordId)> {
        let mut found = Vec::new();
        let source = self.files.iter().find(|source| source.name == file);
        let file = source.and_then(|source| File::decode(source.descriptor.clone()).ok()).unwrap_or_default();
        self.collect(&file.message_type, &file.package, &[], &mut found);
        found
    }

    /// Recurses as deep as messages are nested, which was bounded when the contract was read.
    fn collect(&self, messages: &[Record], scope: &str, path: &[usize], found: &mut Vec<(Vec<usize>, RecordId)>) {
        let is_entry = |message: &&Record| message.options.as_ref().is_some_and(|options| options.map_entry);
        for (index, message) in messages.iter().filter(|message| !is_entry(message)).enumerate() {
            let name = if scope.is_empty() { message.name.clone() } else { format!("{scope}.{}", message.name) };
            let path = [path, &[index]].concat();
            if let Some(id) = self.find_record(&name) {
                found.push((path.clone(), id));
            }
            self.collect(&message.nested_type, &name, &path, found);
        }
    }
}
