//! How a schema registry is reached.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crossdock_message::Limits;
use crossdock_settings::{Node, Reader, Secret};
use crossdock_tls::ClientTlsSettings;
use crossdock_transport::Endpoint;

use super::RegistrySettings;

/// A schema registry, as checked. Contains a login, which must never be shown.
#[derive(Clone)]
pub(crate) struct RegistryAccess {
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: Option<ClientTlsSettings>,
    pub(crate) login: Option<RegistryLogin>,
    /// On reading values.
    pub(crate) limits: Arc<Limits>,
    /// Equal for equal settings, the login and the limits included.
    pub(crate) fingerprint: u64,
}

/// A login, as checked.
#[derive(Clone)]
pub(crate) enum RegistryLogin {
    Password { username: String, password: Secret },
    Token(Secret),
}

impl fmt::Debug for RegistryAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.endpoint.host, self.endpoint.port)
    }
}

impl RegistryAccess {
    pub(super) fn read(
        settings: &RegistrySettings,
        limits: &Arc<Limits>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let endpoint = Endpoint::read(&settings.url, reader)?;
        let login = match (&settings.username, &settings.password, &settings.token) {
            (None, None, None) => None,
            (Some(username), Some(password), None) => {
                Some(RegistryLogin::Password { username: username.clone(), password: password.value.clone() })
            }
            (None, None, Some(token)) => Some(RegistryLogin::Token(token.value.clone())),
            _ => {
                let help = "write `username` and `password`, or `token`";
                reader.error("login", node.span, "the login of a schema registry is incomplete or ambiguous", help);
                return None;
            }
        };
        if login.is_some() && !endpoint.secure {
            let message = "a login to a schema registry in plain text needs `https`";
            reader.error("login", settings.url.span, message, "write `https://host:port`, or remove the login");
            return None;
        }
        for secret in [&settings.password, &settings.token].into_iter().flatten().filter(|secret| secret.value.literal)
        {
            let help = "write it as `${env:NAME}` or `${file:PATH}`".to_owned();
            let text = "the file contains a password or token in plain text";
            reader.diagnostics.warning("literal-secret", secret.span, text, Some(help));
        }
        let mut hasher = DefaultHasher::new();
        (&settings.url.value, &settings.username).hash(&mut hasher);
        format!("{:?} {limits:?}", settings.tls).hash(&mut hasher);
        for secret in [&settings.password, &settings.token].into_iter().flatten() {
            secret.value.reveal().hash(&mut hasher);
        }
        let (tls, limits, fingerprint) = (settings.tls.clone(), Arc::clone(limits), hasher.finish());
        Some(Self { endpoint, tls, login, limits, fingerprint })
    }
}
