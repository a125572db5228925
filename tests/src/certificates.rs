//! Certificates for tests.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// An authority, a certificate for `localhost`, and one of another authority, as PEM files.
///
/// # Panics
/// When they cannot be made or written.
pub fn write_certificates(folder: &Path) {
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // Without a name of its own it would look self-signed to OpenSSL.
        params.distinguished_name.push(DnType::CommonName, "Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    };
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
    let (ours, other) = (authority(), authority());
    write("ca.pem", &ours.pem());
    write("other-ca.pem", &other.pem());
    for (name, issuer) in [("server", &ours), ("client", &ours), ("stranger", &other)] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        write(&format!("{name}.pem"), &params.signed_by(&key, issuer).expect("a certificate").pem());
        write(&format!("{name}.key"), &key.serialize_pem());
    }
}
