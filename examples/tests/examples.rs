//! Runs each example as its README says, on free ports.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crossdock_tests::{Reply, call, crossdock, repository, until};

/// A process that says `… 127.0.0.1:PORT` on its first line of output that names a port; ended with the test.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(command: &mut Command, from_stderr: bool, sign: &str) -> Self {
        let (out, err) = if from_stderr { (Stdio::null(), Stdio::piped()) } else { (Stdio::piped(), Stdio::null()) };
        let mut child = command.stdout(out).stderr(err).spawn().expect("the process starts");
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let lines: Box<dyn std::io::Read + Send> = if from_stderr {
            Box::new(child.stderr.take().expect("its output"))
        } else {
            Box::new(child.stdout.take().expect("its output"))
        };
        let sign = sign.to_owned();
        std::thread::spawn(move || {
            let mut told = false;
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                if !told && line.contains(&sign) {
                    let address = line
                        .split("127.0.0.1:")
                        .nth(1)
                        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
                    told = sender.send(address).is_ok();
                }
            }
        });
        let port =
            receiver.recv_timeout(std::time::Duration::from_secs(20)).expect("the process listens").expect("a port");
        Self { child, address: format!("127.0.0.1:{port}") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example's service and a gateway before it.
fn start(example: &str, variable: &str) -> (Process, Process) {
    let folder = repository().join("examples").join(example);
    let service =
        Process::start(Command::new("python3").args(["service.py", "0"]).current_dir(&folder), false, "listens");
    let mut gateway = Command::new(crossdock());
    gateway.args(["run", "--config", "config"]).current_dir(&folder);
    gateway.env("EXAMPLE_PUBLIC", "127.0.0.1:0").env(variable, format!("http://{}", service.address));
    let gateway = Process::start(&mut gateway, true, "listens");
    (service, gateway)
}

fn is(reply: &Reply, status: u16, body: &str) {
    assert_eq!((reply.status, reply.body.as_str()), (status, body), "{reply:?}");
}

#[test]
fn rest_to_legacy_xml() {
    let (_service, gateway) = start("rest-to-legacy-xml", "EXAMPLE_CLAIMS");
    is(
        &call(&gateway.address, "GET", "/v1/claims/C-17", ""),
        200,
        r#"{"id":"C-17","amount":1234567890123456.70,"currency":"EUR","open":true,"parts":["085","12a"]}"#,
    );
    let reply = call(&gateway.address, "GET", "/v1/claims/none", "");
    assert_eq!(reply.status, 404);
    assert!(reply.body.contains("there is no claim none") && !reply.body.contains("CLM0417"), "{reply:?}");
    is(&call(&gateway.address, "POST", "/v1/claims/C-17/notes", r#"{"text":"seen & <noted>"}"#), 201, r#"{"notes":1}"#);
    assert_eq!(call(&gateway.address, "POST", "/v1/claims/C-17/notes", r#"{"text":""}"#).status, 400);
}

#[test]
fn content_based_routing() {
    let (service, gateway) = start("content-based-routing", "EXAMPLE_SERVICES");
    is(
        &call(&gateway.address, "POST", "/v1/orders", r#"{"id":"o-1","customer":"c-7","region":"eu","total":99.90}"#),
        200,
        r#"{"by":"fulfilment-new","order":{"id":"o-1","customer":{"id":"c-7","tier":"gold"},"total":99.90,"priority":true}}"#,
    );
    is(
        &call(&gateway.address, "POST", "/v1/orders", r#"{"id":"o-2","customer":"c-8","region":"us","total":5000.00}"#),
        200,
        r#"{"by":"fulfilment-old","order":{"id":"o-2","customer":{"id":"c-8","tier":"plain"},"total":5000.00,"priority":true}}"#,
    );
    until("both copies at the audit service", || {
        let seen = call(&service.address, "GET", "/seen", "").body;
        let seen: Vec<(String, String)> = serde_json::from_str(&seen).expect("JSON");
        seen.iter().filter(|(path, _)| path == "/audit").count() == 2
    });
}
