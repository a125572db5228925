//! Who may call what.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use crossdock_coordination::limits::NAME_BYTES_MAX;
use crossdock_settings::{Diagnostics, Named, NoPlaceholders, Reader, Spanned, parse, settings};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The most clients of a file.
const CLIENTS_MAX: usize = 10_000;
/// How a digest is written.
const PREFIX: &str = "sha256:";
/// Names that the gateway itself uses: a client that holds such a lock would take an entry or a key from the routes.
const RESERVED_LOCKS: [&str; 4] = ["entry ", "readers ", "replies ", "idempotency/"];
/// The queues of routes have messages as they were received, which a client cannot make.
const RESERVED_QUEUES: [&str; 1] = ["route "];

settings! {
    /// a client
    pub(crate) struct ClientSettings {
        /// The SHA-256 digest of its token, as `crossdock token` prints it: `sha256:…`. The token itself is not kept here.
        pub(crate) token: Option<Spanned<String>>,
        /// The SHA-256 digest of its TLS certificate in DER: `sha256:…`. The listener needs `tls: { client_ca }`.
        pub(crate) certificate: Option<Spanned<String>>,
        /// What it may do: `locks`, `sequences`, `enqueue`, `consume`, `state` or `operate`, each for all names, or for those that begin with a prefix:
        /// `locks:billing/`.
        pub(crate) scopes: Vec<Spanned<String>>,
    }

    /// a file of clients
    pub(crate) struct AccessSettings {
        /// The version of this format.
        pub(crate) version: u32,
        /// The clients, by name.
        pub(crate) clients: Named<ClientSettings>,
    }
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Locks,
    Sequences,
    Enqueue,
    Consume,
    State,
    Operate,
}

impl Action {
    const ALL: [Self; 6] = [Self::Locks, Self::Sequences, Self::Enqueue, Self::Consume, Self::State, Self::Operate];

    fn word(self) -> &'static str {
        match self {
            Self::Locks => "locks",
            Self::Sequences => "sequences",
            Self::Enqueue => "enqueue",
            Self::Consume => "consume",
            Self::State => "state",
            Self::Operate => "operate",
        }
    }
}

type Digest = [u8; 32];

/// A client.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Its name.
    pub(crate) name: String,
    /// The file of clients does not have it any more, or says something else about it.
    pub(crate) is_gone: CancellationToken,
    token: Option<Digest>,
    certificate: Option<Digest>,
    /// What it may do, for names with this prefix.
    scopes: Vec<(Action, String)>,
}

impl Caller {
    /// Whether it may do this with a name.
    ///
    /// # Errors
    /// PERMISSION_DENIED otherwise; INVALID_ARGUMENT for a name that nothing can have.
    pub(crate) fn check(&self, action: Action, name: &str) -> Result<(), Status> {
        // Prefixes of lists may be empty; they go nowhere else.
        if name.len() > NAME_BYTES_MAX || name.is_empty() && action != Action::State {
            return Err(Status::invalid_argument(format!("a name has 1 to {NAME_BYTES_MAX} bytes")));
        }
        let reserved: &[&str] = match action {
            Action::Locks | Action::Operate => &RESERVED_LOCKS,
            Action::Enqueue | Action::Consume => &RESERVED_QUEUES,
            Action::Sequences | Action::State => &[],
        };
        if reserved.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(Status::permission_denied(format!(
                "names such as `{name}` belong to the routes of the gateway"
            )));
        }
        if self.scopes.iter().any(|(of, prefix)| *of == action && name.starts_with(prefix.as_str())) {
            return Ok(());
        }
        let (client, word) = (&self.name, action.word());
        Err(Status::permission_denied(format!("the client `{client}` has no scope `{word}` for `{name}`")))
    }

    /// Whether it may do this with at least some names: for calls about a session, whose requests were checked.
    ///
    /// # Errors
    /// PERMISSION_DENIED otherwise.
    pub(crate) fn check_any(&self, action: Action) -> Result<(), Status> {
        if self.scopes.iter().any(|(of, _)| *of == action) {
            return Ok(());
        }
        Err(Status::permission_denied(format!("the client `{}` has no scope `{}`", self.name, action.word())))
    }

    /// The label of its sessions.
    pub(crate) fn label(&self, label: &str) -> String {
        format!("client {}: {label}", self.name)
    }

    /// Whether a session is one of its own.
    pub(crate) fn owns(&self, label: &str) -> bool {
        label
            .strip_prefix("client ")
            .and_then(|label| label.strip_prefix(&*self.name))
            .is_some_and(|rest| rest.starts_with(": "))
    }
}

/// A file of clients cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// What is wrong with it, in readable form.
    #[error("{0}")]
    Invalid(String),
}

impl Caller {
    fn is_same(&self, other: &Self) -> bool {
        (&self.name, self.token, self.certificate, &self.scopes)
            == (&other.name, other.token, other.certificate, &other.scopes)
    }
}

/// The clients of a file.
#[derive(Debug, Clone, Default)]
pub struct Access {
    clients: Vec<Arc<Caller>>,
}

impl Access {
    /// Reads a file of clients.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let text = std::fs::read_to_string(path)?;
        Self::parse(&path.display().to_string(), &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self, AccessError> {
        let mut diagnostics = Diagnostics::new();
        let source = diagnostics.add_source(name, text);
        let read = parse(source, &mut diagnostics).and_then(|node| {
            let mut reader = Reader::new(&mut diagnostics, &NoPlaceholders);
            let settings = crossdock_settings::FromNode::from_node(&node, &mut reader)?;
            check(settings, &node, &mut reader)
        });
        match read {
            Some(access) if !diagnostics.has_errors() => Ok(access),
            _ => Err(AccessError::Invalid(diagnostics.render(false))),
        }
    }

    /// Replaces the clients. Streams of those that are the same go on.
    pub(crate) fn replace(&mut self, new: Self) {
        let old = std::mem::replace(self, new);
        for client in old.clients {
            match self.clients.iter_mut().find(|new| new.is_same(&client)) {
                Some(new) => *new = client,
                None => client.is_gone.cancel(),
            }
        }
    }

    /// How many clients there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The client with a token, or a certificate. All clients are compared, in constant time for each.
    pub(crate) fn identify(&self, token: Option<&str>, certificate: Option<&Digest>) -> Option<Arc<Caller>> {
        let token = token.map(|token| digest(token.as_bytes()));
        let is_same = |known: &Option<Digest>, given: Option<&Digest>| {
            known.as_ref().zip(given).is_some_and(|(known, given)| known.ct_eq(given).into())
        };
        let mut found = None;
        for client in &self.clients {
            if is_same(&client.token, token.as_ref()) | is_same(&client.certificate, certificate) {
                found = Some(Arc::clone(client));
            }
        }
        found
    }
}

fn check(settings: AccessSettings, node: &crossdock_settings::Node, reader: &mut Reader<'_>) -> Option<Access> {
    if settings.version != 1 {
        reader.error("version", node.span, "the version of a file of clients is 1", "write `version: 1`");
        return None;
    }
    if settings.clients.0.len() > CLIENTS_MAX {
        reader.error("clients", node.span, format!("there can be at most {CLIENTS_MAX} clients"), "");
        return None;
    }
    let mut clients: Vec<Arc<Caller>> = Vec::new();
    for (name, client) in settings.clients.0 {
        let span = name.span;
        let name = name.value;
        if name.is_empty() || name.len() > 100 || name.contains(": ") {
            reader.error("client", span, "the name of a client has 1 to 100 bytes, without `: `", "use a shorter name");
            return None;
        }
        let [token, certificate] =
            [client.token, client.certificate].map(|text| text.map(|text| digest_of(&text, reader)));
        if [token, certificate].contains(&Some(None)) {
            return None;
        }
        let (token, certificate) = (token.flatten(), certificate.flatten());
        if token.is_none() && certificate.is_none() {
            let help = "add `token: \"sha256:…\"`, which `crossdock token` prints, or `certificate`";
            reader.error("client", span, format!("the client `{name}` has neither `token` nor `certificate`"), help);
            return None;
        }
        let is_known = |digest: Option<Digest>, of: fn(&Caller) -> Option<Digest>| {
            digest.is_some() && clients.iter().any(|other| of(other) == digest)
        };
        if is_known(token, |of| of.token) || is_known(certificate, |of| of.certificate) {
            reader.error(
                "client",
                span,
                format!("the client `{name}` is identified as another one is"),
                "use a token of its own",
            );
            return None;
        }
        let mut scopes = Vec::new();
        for scope in client.scopes {
            let (word, prefix) = scope.value.split_once(':').unwrap_or((&scope.value, ""));
            let Some(action) = Action::ALL.into_iter().find(|action| action.word() == word) else {
                let words = Action::ALL.map(Action::word).join(", ");
                reader.error(
                    "scope",
                    scope.span,
                    format!("there is no scope `{word}`"),
                    format!("write one of {words}"),
                );
                return None;
            };
            scopes.push((action, prefix.to_owned()));
        }
        if scopes.is_empty() {
            let help = "add `scopes: [ locks ]`, or remove the client";
            reader.error("client", span, format!("the client `{name}` may do nothing"), help);
            return None;
        }
        clients.push(Arc::new(Caller { name, is_gone: CancellationToken::new(), token, certificate, scopes }));
    }
    Some(Access { clients })
}

/// `None` if an error was reported.
fn digest_of(text: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Digest> {
    let hex = text.value.strip_prefix(PREFIX).filter(|hex| hex.len() == 64 && hex.is_ascii());
    let bytes = hex.and_then(|hex| {
        (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()).collect::<Option<Vec<_>>>()
    });
    let digest = bytes.and_then(|bytes| Digest::try_from(bytes).ok());
    if digest.is_none() {
        let message = "this is no SHA-256 digest: `sha256:` and 64 hexadecimal digits";
        reader.error("digest", text.span, message, "write what `crossdock token` prints");
    }
    digest
}

/// The SHA-256 digest of bytes.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// A token made of 32 random bytes, and how a file of clients names it.
#[must_use]
pub fn new_token(random: &[u8; 32]) -> (String, String) {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let token = hex(random);
    let digest = format!("{PREFIX}{}", hex(&digest(token.as_bytes())));
    (token, digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(scopes: &str) -> (String, Result<Access, AccessError>) {
        let (token, digest) = new_token(&[7; 32]);
        let text = format!("version: 1\nclients:\n  shop: {{ token: \"{digest}\", scopes: {scopes} }}\n");
        (token, Access::parse("access.yaml", &text))
    }

    #[test]
    fn a_client_is_known_by_its_token_and_may_do_what_its_scopes_say() {
        let (token, access) = client("[ \"locks:stock/\", sequences ]");
        let access = access.expect("a file");
        assert!(access.identify(Some("another"), None).is_none() && access.identify(None, None).is_none());
        assert!(access.identify(None, Some(&[7; 32])).is_none(), "it has no certificate");
        let caller = access.identify(Some(&token), None).expect("the client");
        assert!(caller.check(Action::Locks, "stock/7").is_ok() && caller.check(Action::Sequences, "a").is_ok());
        assert!(
            caller.check(Action::Sequences, "").is_err() && caller.check(Action::Sequences, &"a".repeat(256)).is_err()
        );
        assert!(caller.check(Action::Locks, "stoc").is_err() && caller.check(Action::Enqueue, "stock/").is_err());
        assert!(caller.owns(&caller.label("a: b")) && !caller.owns("client shop2: a") && !caller.owns("instance 1"));
        let (token, access) = client("[ locks, enqueue, consume ]");
        let caller = access.expect("a file").identify(Some(&token), None).expect("the client");
        for (action, name) in
            [(Action::Locks, "entry broker/a"), (Action::Locks, "idempotency/a/b"), (Action::Enqueue, "route a")]
        {
            assert!(caller.check(action, name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_client_that_is_changed_or_removed_is_gone() {
        let read = |scopes: &str| client(scopes).1.expect("a file");
        let mut access = read("[ locks ]");
        let caller = Arc::clone(&access.clients[0]);
        access.replace(read("[ locks ]"));
        assert!(Arc::ptr_eq(&caller, &access.clients[0]) && !caller.is_gone.is_cancelled());
        access.replace(read("[ sequences ]"));
        assert!(caller.is_gone.is_cancelled() && !access.clients[0].is_gone.is_cancelled());
    }

    #[test]
    fn mistakes_in_a_file_are_explained() {
        let refused = |access: Result<Access, AccessError>, expected: &str| {
            let problem = access.expect_err("a mistake").to_string();
            assert!(problem.contains(expected), "{problem}");
        };
        refused(client("[ lock ]").1, "write one of locks, sequences");
        refused(client("[]").1, "may do nothing");
        let parse = |clients: &str| Access::parse("access.yaml", &format!("version: 1\nclients: {clients}\n"));
        refused(parse("{ a: { scopes: [ locks ] } }"), "neither `token` nor `certificate`");
        refused(parse("{ a: { token: secret, scopes: [ locks ] } }"), "crossdock token");
        let (_, digest) = new_token(&[7; 32]);
        let twice = format!("{{ token: \"{digest}\", scopes: [ locks ] }}");
        refused(parse(&format!("{{ a: {twice}, b: {twice} }}")), "as another one is");
        refused(Access::parse("access.yaml", "version: 2\nclients: {}\n"), "version: 1");
    }
}
