//! Bearer tokens (RFC 6750, RFC 7628).

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crossdock_settings::{Node, Reader};
use rdkafka::client::OAuthToken;
use serde_json::Value;

use super::TokenSettings;

/// How long the program may run.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
const COMMAND_INTERVAL: Duration = Duration::from_millis(10);
/// The longest token, in bytes.
const TOKEN_LEN_MAX: usize = 64 << 10;
/// The principal of a token that names none. It is the brokers that decide who sent it.
const UNKNOWN_PRINCIPAL: &str = "crossdock";

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenSource {
    origin: Origin,
    /// How long a token is used that does not say when it expires.
    lifetime: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Origin {
    File(String),
    Command(Vec<String>),
}

impl TokenSource {
    pub(super) fn read(settings: TokenSettings, node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let origin = match (settings.file, settings.command) {
            (Some(file), command) if command.is_empty() => Origin::File(file),
            (None, command) if !command.is_empty() => Origin::Command(command),
            _ => {
                let help = "write `file: PATH` or `command: [PROGRAM, ARGUMENT]`";
                reader.error("token", node.span, "a token comes either from a file or from a command", help);
                return None;
            }
        };
        Some(Self { origin, lifetime: settings.lifetime.0 })
    }

    /// A current token. Blocks.
    ///
    /// # Errors
    /// Why there is none; never contains a part of a token.
    pub(crate) fn token(&self) -> Result<OAuthToken, String> {
        let text = match &self.origin {
            Origin::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("the token file `{path}` cannot be read: {error}"))?,
            Origin::Command(command) => output_of(command)?,
        };
        let token = text.trim();
        if token.is_empty() || token.len() > TOKEN_LEN_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token is empty, too long, or contains other characters than printable ASCII".to_owned());
        }
        let claims = claims(token);
        let text_of =
            |name: &str| claims.as_ref()?.get(name)?.as_str().filter(|text| !text.contains('\0')).map(str::to_owned);
        let expiry = claims.as_ref().and_then(|claims| claims.get("exp")?.as_f64());
        #[expect(clippy::disallowed_methods, reason = "tokens expire by the wall clock")]
        let now = SystemTime::now();
        let by_default = now.checked_add(self.lifetime).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        let lifetime_ms = match expiry {
            Some(seconds) => (seconds * 1000.0) as i64,
            None => by_default.and_then(|at| i64::try_from(at.as_millis()).ok()).unwrap_or(i64::MAX),
        };
        let principal_name = text_of("sub").unwrap_or_else(|| UNKNOWN_PRINCIPAL.to_owned());
        Ok(OAuthToken { token: token.to_owned(), principal_name, lifetime_ms })
    }
}

/// The claims of a JSON Web Token (RFC 7519 §3); `None` for other tokens. The signature is the brokers' business.
fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn output_of(command: &[String]) -> Result<String, String> {
    let [program, arguments @ ..] = command else { return Err("the token command is empty".to_owned()) };
    let failed = |problem: &dyn std::fmt::Display| format!("the token command `{program}` failed: {problem}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&error))?;
    // Read elsewhere, so that the program neither blocks on a full pipe nor keeps this thread.
    let output = child.stdout.take().map(|output| {
        std::thread::spawn(move || {
            let mut text = String::new();
            output.take(TOKEN_LEN_MAX as u64 + 2).read_to_string(&mut text).map(|_| text)
        })
    });
    let until = Instant::now() + COMMAND_TIMEOUT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::park_timeout(COMMAND_INTERVAL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(&"it did not end in time"));
            }
            Err(error) => return Err(failed(&error)),
        }
    };
    if !status.success() {
        return Err(failed(&status));
    }
    let text = output.and_then(|reading| reading.join().ok()).ok_or_else(|| failed(&"it printed nothing"))?;
    text.map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_command(command: &[&str]) -> Result<OAuthToken, String> {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        TokenSource { origin: Origin::Command(command), lifetime: Duration::from_secs(60) }.token()
    }

    #[test]
    fn a_token_says_who_it_is_for_and_when_it_expires() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"gateway","exp":1900000000}"#);
        let token = from_command(&["echo", &format!("e30.{claims}.sig")]).expect("a token");
        assert_eq!((&*token.principal_name, token.lifetime_ms), ("gateway", 1_900_000_000_000));
        let opaque = from_command(&["echo", "opaque"]).expect("a token");
        assert_eq!((&*opaque.token, &*opaque.principal_name), ("opaque", UNKNOWN_PRINCIPAL));
        assert!(opaque.lifetime_ms > 1_700_000_000_000);
    }

    #[test]
    fn a_problem_never_shows_a_token() {
        for command in [&["false"][..], &["echo"], &["echo", "two secrets"], &["/nowhere/secret-program"], &[]] {
            let problem = from_command(command).err().expect("no token");
            assert!(!problem.contains("two secrets"), "{problem}");
        }
        let source = TokenSource { origin: Origin::File("/nowhere".into()), lifetime: Duration::ZERO };
        assert!(source.token().err().is_some_and(|problem| problem.contains("/nowhere")));
    }
}
