//! Route files of the tests.

use std::fmt::Display;

use crate::repository;

/// Reads `tests/routes/NAME.yaml` and replaces its placeholders, such as `@BROKER@`, with values.
///
/// # Panics
/// If the file cannot be read, a placeholder has no value, or a value has no placeholder.
#[must_use]
pub fn routes(name: &str, values: &[(&str, &dyn Display)]) -> String {
    let path = repository().join("tests/routes").join(format!("{name}.yaml"));
    let template = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fill_in(&template, values).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
}

/// Replaces the placeholders of a template, in which `@` delimits names and has no other use. Values may contain `@`.
fn fill_in(template: &str, values: &[(&str, &dyn Display)]) -> Result<String, String> {
    let parts: Vec<&str> = template.split('@').collect();
    if parts.len().is_multiple_of(2) {
        return Err("a placeholder has no closing `@`".to_owned());
    }
    for (name, _) in values {
        if !parts.iter().skip(1).step_by(2).any(|part| part == name) {
            return Err(format!("no placeholder @{name}@"));
        }
    }
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index.is_multiple_of(2) {
            text.push_str(part);
            continue;
        }
        let value = values.iter().find(|(name, _)| name == part);
        let (_, value) = value.ok_or_else(|| format!("no value for @{part}@"))?;
        text.push_str(&value.to_string());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced() {
        let filled = fill_in("url: \"@URL@\", queue: @QUEUE@-@QUEUE@", &[("URL", &"amqp://a@b"), ("QUEUE", &7)]);
        assert_eq!(filled, Ok("url: \"amqp://a@b\", queue: 7-7".to_owned()));
        assert_eq!(fill_in("version: 1", &[]), Ok("version: 1".to_owned()));
    }

    #[test]
    fn mismatches_of_placeholders_and_values_are_errors() {
        assert_eq!(fill_in("a: @A@", &[]), Err("no value for @A@".to_owned()));
        assert_eq!(fill_in("a: @A@", &[("A", &1), ("B", &2)]), Err("no placeholder @B@".to_owned()));
        assert_eq!(fill_in("a: @A", &[("A", &1)]), Err("a placeholder has no closing `@`".to_owned()));
    }
}
