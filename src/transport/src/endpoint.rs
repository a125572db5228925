//! Endpoints of services, and the headers that are set on every request.

use std::net::IpAddr;

use crossdock_settings::{Named, Reader, Secret, Spanned};

/// The address of a service.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Whether connections use TLS.
    pub secure: bool,
    /// The host name or IP address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The value of the `Host` field.
    pub authority: http::HeaderValue,
    /// Prefix of every path: empty, or starting with `/`; never ending with `/`.
    pub base: String,
}

impl Endpoint {
    /// Parses the URL of a service. Reports an error and returns `None` if it is invalid.
    pub fn read(url: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Self> {
        let read = Self::parse(&url.value);
        if read.is_none() {
            let message = format!("`{}` is not a valid service URL", url.value);
            let help = "write `http://host:port` or `https://host:port/base`, without user, query or fragment";
            reader.error("url", url.span, message, help);
        }
        read
    }

    /// Parses `http://host:port/base` or `https://host:port/base`; `None` for anything else.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        if uri.query().is_some() || authority.as_str().contains('@') || authority.host().is_empty() || url.contains('#')
        {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self {
            secure,
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            host,
            authority: http::HeaderValue::from_str(authority.as_str()).ok()?,
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The host name whose addresses are separate endpoints. `None` for an IP address, and for `localhost`, whose two addresses are the same
    /// machine (RFC 6761 §6.3).
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let lower = self.host.trim_end_matches('.').to_ascii_lowercase();
        let is_address = self.host.parse::<IpAddr>().is_ok();
        let is_local = lower == "localhost" || lower.ends_with(".localhost");
        (!is_address && !is_local).then_some(&self.host)
    }
}

/// Headers that carry credentials: a literal value in a file is likely a mistake.
const SECRET_HEADERS: &[&str] = &["authorization", "proxy-authorization", "cookie", "x-api-key"];

/// Checks the headers that settings add to every request. Reports an error and returns `None` if one is invalid.
pub fn static_headers(
    headers: &Named<Spanned<Secret>>,
    reader: &mut Reader<'_>,
) -> Option<Vec<(http::HeaderName, http::HeaderValue)>> {
    let mut checked = Vec::new();
    for (name, value) in &headers.0 {
        let lower = name.value.to_ascii_lowercase();
        if SECRET_HEADERS.contains(&lower.as_str()) && value.value.literal {
            let help = format!("write `{}: ${{env:NAME}}` or `${{file:PATH}}`", name.value);
            let message = format!("the secret `{}` is written in plain text", name.value);
            reader.diagnostics.warning("literal-secret", value.span, message, Some(help));
        }
        let parsed =
            (http::HeaderName::from_bytes(lower.as_bytes()), http::HeaderValue::from_str(value.value.reveal()));
        let (Ok(header), Ok(mut secret)) = parsed else {
            reader.error(
                "header-name",
                name.span,
                format!("`{}` or its value is not a valid header field", name.value),
                "",
            );
            return None;
        };
        if is_hop_by_hop(header.as_str()) || matches!(header.as_str(), "host" | "content-length" | "content-type") {
            reader.error(
                "header-reserved",
                name.span,
                format!("`{lower}` cannot be set: the protocol sets it"),
                "remove it",
            );
            return None;
        }
        secret.set_sensitive(true);
        checked.push((header, secret));
    }
    Some(checked)
}

/// Whether a field applies to a single connection (RFC 9110 §7.6.1).
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}
