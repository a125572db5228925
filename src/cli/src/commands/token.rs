//! `crossdock token`.

use crossdock_api_server::new_token;

/// Prints a new token, and how the file of clients names it.
pub(super) fn token() {
    let (token, digest) = new_token(&rand::random());
    println!("token:  {token}");
    println!("digest: {digest}");
    eprintln!("\ngive the token to the client, and write the digest into the file of clients:\n");
    eprintln!("  NAME: {{ token: \"{digest}\", scopes: [ locks ] }}");
}
