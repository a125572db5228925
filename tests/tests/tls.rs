//! Mutual TLS on listeners and services.

use crossdock_tests::{Backend, Gateway, call, exchange, write_certificates};

#[test]
fn client_and_server_authenticate_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificates(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let backend = Backend::start();
    let secure = Gateway::start_with(
        &format!(
            "public: {{ http: {{ bind: \"127.0.0.1:0\", tls: {{ cert: \"{}\", key: \"{}\", client_ca: \"{}\" }} }} }}",
            at("server.pem"),
            at("server.key"),
            at("ca.pem")
        ),
        &format!(
            "version: 1
services: {{ echo: {{ http: {{ url: \"http://{}\", operations: {{ post: {{ post: /echo }} }} }} }} }}
routes: {{ echo: {{ from: {{ http: {{ listen: public, post: /secure }} }}, steps: [ {{ call: echo.post }} ] }} }}
",
            backend.address
        ),
    );
    let port = secure.public().rsplit(':').next().expect("a port").to_owned();
    let service = |name: &str, tls: &str| {
        format!(
            "  {name}: {{ http: {{ url: \"https://localhost:{port}\", operations: {{ post: {{ post: /secure }} }}, tls: {{ {tls} }} }} }}\n"
        )
    };
    let identity =
        |name: &str| format!("cert: \"{}\", key: \"{}\"", at(&format!("{name}.pem")), at(&format!("{name}.key")));
    let ca = format!("ca: \"{}\"", at("ca.pem"));
    let names = ["good", "unknown", "stranger", "distrusted", "misnamed"];
    let routes: String = names
        .iter()
        .map(|name| format!("  {name}: {{ from: {{ http: {{ listen: public, post: /{name} }} }}, steps: [ {{ call: {name}.post }} ] }}\n"))
        .collect();
    let front = Gateway::start(&format!(
        "version: 1\nservices:\n{}{}{}{}{}routes:\n{routes}",
        service("good", &format!("{ca}, {}", identity("client"))),
        service("unknown", &ca),
        service("stranger", &format!("{ca}, {}", identity("stranger"))),
        service("distrusted", &format!("ca: \"{}\", {}", at("other-ca.pem"), identity("client"))),
        service("misnamed", &format!("{ca}, {}, server_name: another.example", identity("client"))),
    ));
    for _ in 0..3 {
        let reply = call(&front.public(), "POST", "/good", "{\"n\":1.10}");
        assert_eq!((reply.status, reply.body.as_str()), (200, "{\"n\":1.10}"), "{reply:?}");
    }
    assert_eq!(backend.requests(), 3);
    for name in &names[1..] {
        let reply = call(&front.public(), "POST", &format!("/{name}"), "{}");
        assert_eq!(reply.status, 503, "{name}: {reply:?}");
    }
    assert_eq!(backend.requests(), 3, "no request passes without a valid certificate");
    // Plaintext HTTP to a TLS listener gets no response and does not affect other connections.
    let (replies, _) = exchange(&secure.public(), b"GET /secure HTTP/1.1\r\nHost: h\r\n\r\n", 1);
    assert!(replies.is_empty(), "{replies:?}");
    assert_eq!(call(&front.public(), "POST", "/good", "{}").status, 200);
}

#[test]
fn an_unusable_certificate_is_reported_at_startup() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    let settings = "version: 1\nlisteners: { public: { http: { bind: \"127.0.0.1:0\", tls: { cert: /nowhere.pem, key: /nowhere.key } } } }\n";
    std::fs::write(folder.path().join("crossdock.yaml"), settings).expect("settings");
    let mut run = std::process::Command::new(crossdock_tests::crossdock());
    let output = run.args(["run", "--config"]).arg(folder.path()).output().expect("it ends");
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("the certificates in `/nowhere.pem` cannot be used"), "{shown}");
}
