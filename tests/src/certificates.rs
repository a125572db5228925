//! Certificates for tests.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    // Without a name of its own it would look self-signed to OpenSSL.
    params.distinguished_name.push(DnType::CommonName, "Authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn write_signed(folder: &Path, file: &str, name: &str, issuer: &CertifiedIssuer<'_, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    std::fs::write(folder.join(format!("{file}.pem")), certificate.pem()).expect("a file");
    std::fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).expect("a file");
}

/// An authority, and a certificate for each of the first `count` instances of a cluster, as PEM files: `ca.pem`, `1.pem`, `1.key`, …
///
/// # Panics
/// When they cannot be made or written.
pub fn write_member_certificates(folder: &Path, cluster: &str, count: usize) {
    let authority = authority();
    std::fs::write(folder.join("ca.pem"), authority.pem()).expect("a file");
    for id in 1..=count {
        write_signed(folder, &id.to_string(), &format!("{id}.{cluster}"), &authority);
    }
}

/// An authority, certificates for `localhost` and `orders.test`, and one of another authority, as PEM files.
///
/// # Panics
/// When they cannot be made or written.
pub fn write_certificates(folder: &Path) {
    let (ours, other) = (authority(), authority());
    std::fs::write(folder.join("ca.pem"), ours.pem()).expect("a file");
    std::fs::write(folder.join("other-ca.pem"), other.pem()).expect("a file");
    for (name, issuer) in [("server", &ours), ("client", &ours), ("stranger", &other)] {
        write_signed(folder, name, "localhost", issuer);
    }
    write_signed(folder, "named", "orders.test", &ours);
}
