//! Certificates for tests.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    // With the same name as the certificates it signs, OpenSSL would take them for self-signed.
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

/// Writes a certificate authority and a certificate for each of the instances 1 to `count` of a cluster as PEM files: `ca.pem`, `1.pem`,
/// `1.key`, …
///
/// # Panics
/// If a file cannot be written.
pub fn write_member_certificates(folder: &Path, cluster: &str, count: usize) {
    let authority = authority();
    std::fs::write(folder.join("ca.pem"), authority.pem()).expect("a file");
    for id in 1..=count {
        write_signed(folder, &id.to_string(), &format!("{id}.{cluster}"), &authority);
    }
}

/// Writes a certificate authority, its certificates for `localhost` (`server`, `client`) and `orders.test` (`named`), and a certificate of
/// another authority (`stranger`) as PEM files.
///
/// # Panics
/// If a file cannot be written.
pub fn write_certificates(folder: &Path) {
    let (ours, other) = (authority(), authority());
    std::fs::write(folder.join("ca.pem"), ours.pem()).expect("a file");
    std::fs::write(folder.join("other-ca.pem"), other.pem()).expect("a file");
    for (name, issuer) in [("server", &ours), ("client", &ours), ("stranger", &other)] {
        write_signed(folder, name, "localhost", issuer);
    }
    write_signed(folder, "named", "orders.test", &ours);
}
