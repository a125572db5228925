//! Where a service is reached, and what every request to it carries.

use std::net::IpAddr;

use crossdock_settings::{Named, Reader, Secret, Spanned};

/// Where a service is reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Over TLS.
    pub secure: bool,
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `Host` of requests.
    pub authority: http::HeaderValue,
    /// Stands before every path; empty or starting with `/`, never ending with it.
    pub base: String,
}

impl Endpoint {
    /// Reads an address from settings; nothing where an error was reported.
    pub fn read(url: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Self> {
        let read = Self::parse(&url.value);
        if read.is_none() {
            let message = format!("`{}` is not the address of a service", url.value);
            let help = "write `http://host:port` or `https://host:port/base`, without query or user";
            reader.error("url", url.span, message, help);
        }
        read
    }

    /// Reads `http://host:port/base`; nothing for anything else.
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
}

impl Endpoint {
    /// The host's name, where each of its addresses is an endpoint of its own: not of an address, and not of `localhost`, whose two
    /// addresses are one machine (RFC 6761 §6.3).
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let lower = self.host.trim_end_matches('.').to_ascii_lowercase();
        let is_address = self.host.parse::<IpAddr>().is_ok();
        let is_local = lower == "localhost" || lower.ends_with(".localhost");
        (!is_address && !is_local).then_some(&self.host)
    }
}

/// Headers whose values open doors: a literal one in a file is likely a mistake.
const SECRET_HEADERS: &[&str] = &["authorization", "proxy-authorization", "cookie", "x-api-key"];

/// The headers that settings give to every request; nothing where an error was reported.
pub fn static_headers(
    headers: &Named<Spanned<Secret>>,
    reader: &mut Reader<'_>,
) -> Option<Vec<(http::HeaderName, http::HeaderValue)>> {
    let mut checked = Vec::new();
    for (name, value) in &headers.0 {
        let lower = name.value.to_ascii_lowercase();
        if SECRET_HEADERS.contains(&lower.as_str()) && value.value.literal {
            let help = format!("write `{}: ${{env:NAME}}` or `${{file:PATH}}`", name.value);
            let message = format!("the secret `{}` stands in the file itself", name.value);
            reader.diagnostics.warning("literal-secret", value.span, message, Some(help));
        }
        let parsed =
            (http::HeaderName::from_bytes(lower.as_bytes()), http::HeaderValue::from_str(value.value.reveal()));
        let (Ok(header), Ok(mut secret)) = parsed else {
            reader.error(
                "header-name",
                name.span,
                format!("`{}` or its value cannot stand in a header", name.value),
                "",
            );
            return None;
        };
        if is_hop_by_hop(header.as_str()) || matches!(header.as_str(), "host" | "content-length" | "content-type") {
            reader.error(
                "header-reserved",
                name.span,
                format!("`{lower}` is set by the protocol itself"),
                "leave it out",
            );
            return None;
        }
        secret.set_sensitive(true);
        checked.push((header, secret));
    }
    Some(checked)
}

/// Fields that only concern one connection (RFC 9110 §7.6.1).
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
