use crossdock_message::{Body, ByteString, Code, Format, Limits, Message, Record, Value, json};
use crossdock_ports::{Binding, BodyBinding};

use super::*;

fn message(content_type: &'static str, body: &str) -> Message {
    let mut message = Message::new("m1".into(), "test".into());
    message.content_type = Some(ByteString::from_static(content_type));
    message.body = Body::raw(bytes(body).into(), Format::of_media_type(content_type));
    message
}

fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

fn meter() -> Meter {
    Meter::new(std::time::Instant::now() + std::time::Duration::from_secs(60))
}

fn names() -> Names {
    Names {
        variables: ["req", "res", "header", "msg", "line"].map(ByteString::from_static).to_vec(),
        unbound: vec![],
        of_services: vec!["res".into()],
        ..Names::default()
    }
}

/// Evaluates an expression with a JSON request, an XML reply, a header and a bound name.
fn evaluate(source: &str) -> Result<String, crossdock_message::Fault> {
    let mut request = message(
        "application/json",
        r#"{"n":12345678901234567.89,"big":18446744073709551615,"lines":[{"sku":"085","qty":2},{"sku":"b","qty":3}],"o":{"z":1,"a":1.50},"nul":null,"empty":[]}"#,
    );
    request.params = [("id", Value::from("A 7"))].into_iter().collect::<Record>();
    request.headers.append("x-tenant", "t1").expect("a header");
    let reply = message("text/xml", r#"<r xmlns="urn:a" id="9"><s>open</s><l>1</l><l>2</l><amount>10.50</amount></r>"#);
    let binding = Binding { body: BodyBinding::Fields, params: vec!["id".into()] };
    let request = Request { message: request, binding: binding.into() };
    let limits = Limits::default();
    let variables = [(ByteString::from_static("line"), Value::Int(4).into())];
    let meter = meter();
    let scope = Scope {
        request: &request,
        current: &request.message,
        reply: Some(&reply),
        variables: &variables,
        item: None,
        host: &FixedHost::default(),
        meter: &meter,
        limits: &limits,
    };
    let expression = Expression::compile(source, &names()).unwrap_or_else(|errors| panic!("{source}: {errors:?}"));
    let value = expression.evaluate(&scope)?;
    Ok(String::from_utf8(json::write(&value).expect("writable")).expect("UTF-8"))
}

#[test]
fn expressions_are_evaluated_exactly() {
    for (source, expected) in [
        ("req.n", "12345678901234567.89"),
        ("req.big", "18446744073709551615"),
        ("req.id", "\"A 7\""),
        ("req.o", r#"{"z":1,"a":1.50}"#),
        ("req.lines[0].sku", "\"085\""),
        ("req['lines'][1]['qty']", "3"),
        ("req.lines.map(l, l.sku)", r#"["085","b"]"#),
        ("req.lines.filter(l, l.qty > 2)", r#"[{"sku":"b","qty":3}]"#),
        ("size(req.lines) > 0 && req.n > 10", "true"),
        ("req.n == decimal('12345678901234567.890')", "true"),
        ("req.n > decimal('12345678901234567.88')", "true"),
        ("has(req.note)", "false"),
        ("has(req.o.a) && !has(req.o.b)", "true"),
        ("has(req.note) ? req.note : 'none'", "\"none\""),
        ("req.nul == null", "true"),
        ("req.empty", "[]"),
        ("text(res.s)", "\"open\""),
        ("attr(res, 'id')", "\"9\""),
        ("res.l.map(x, int(text(x)))", "[1,2]"),
        ("decimal(text(res.amount))", "10.50"),
        ("res['$root']", "\"{urn:a}r\""),
        ("header['x-tenant']", "\"t1\""),
        ("msg.id + '/' + msg.source", "\"m1/test\""),
        ("line * 2", "8"),
        ("'a'", "\"a\""),
        ("true", "true"),
        ("req.id.lowerAscii().replace(' ', '-')", "\"a-7\""),
        ("string(req.lines[0].qty) + 'x'", "\"2x\""),
        ("size(req)", "7"),
        ("12345678901234567.89", "12345678901234567.89"),
        ("1.10", "1.10"),
        ("-7", "-7"),
        ("1.5 == req.o.a && req.o.a == 1.5 && 1 < req.o.a && !(2 <= req.o.a)", "true"),
        ("req.o.a in [1, 1.5] && 1.5 in [req.o.a] && !(req.o.a in [1])", "true"),
        ("[1.5, 1] == [req.o.a, req.o.z] && 1 == req.o.z", "true"),
        ("req.big == 18446744073709551615u && req.big > 5 && 5 < req.big", "true"),
        ("req.o.a * 2", "3.00"),
        ("req.n + 0.11", "12345678901234568.00"),
        ("req.lines[1].qty / 2", "1.5"),
        ("req.lines[0].qty / 2", "1"),
        ("int(req.lines[1].qty) / 2", "1"),
        ("req.o.a > 1.49999999999999999999", "true"),
        ("sum(req.lines.map(l, l.qty))", "5"),
        ("sum(req.lines.map(l, l.qty * 0.10))", "0.50"),
        ("{'z': req.o.a, 'a': [1, {'b': null}]}", r#"{"z":1.50,"a":[1,{"b":null}]}"#),
        ("req.lines.map(l, req.lines.filter(m, m.qty > l.qty).map(m, m.sku))", r#"[["b"],[]]"#),
        ("req.?o.?a.orValue(7)", "1.50"),
        ("req.?nothing.orValue(7)", "7"),
        ("req.lines.sortBy(l, -l.qty).map(l, l.sku)", r#"["b","085"]"#),
        // In the view of an XML document, a missing element is an empty list.
        ("res.nothing", "[]"),
        ("size(res.nothing) + size(res.l)", "2"),
        ("res.l.map(x, size(x.inner))", "[0,0]"),
        ("has(res.nothing)", "false"),
    ] {
        assert_eq!(evaluate(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn a_missing_value_is_the_fault_of_its_sender() {
    let fault = evaluate("req.customer.id").expect_err("missing");
    assert_eq!((fault.code, &*fault.message), (Code::InvalidArgument, "`req.customer` is missing"));
    let fault = evaluate("req.o.b + 1").expect_err("missing");
    assert_eq!((fault.code, &*fault.message), (Code::InvalidArgument, "`b` is missing"));
    let fault = evaluate("res['@nothing']").expect_err("missing");
    assert_eq!((fault.code, fault.reason.as_str()), (Code::Internal, "FIELD_MISSING"));
    let fault = evaluate("text(res.l)").expect_err("two elements");
    assert!(fault.message.contains("exactly one element"), "{fault}");
}

#[test]
fn exhausting_the_budget_with_headers_is_the_fault_of_their_sender() {
    let request = Request { message: message("application/json", "{}"), binding: Binding::default().into() };
    let reply = message("application/json", "{}");
    let limits = Limits::default();
    for (reply, code) in [(None, Code::InvalidArgument), (Some(&reply), Code::Internal)] {
        let meter = Meter::exhausted(std::time::Instant::now() + std::time::Duration::from_secs(60));
        let scope = Scope {
            request: &request,
            current: reply.unwrap_or(&request.message),
            reply,
            variables: &[],
            item: None,
            host: &FixedHost::default(),
            meter: &meter,
            limits: &limits,
        };
        let path = Path { root: "header".into(), steps: vec![PathStep::Field("x-a".into())] };
        let fault = scope.find(&path).expect_err("there is no budget left");
        assert_eq!((fault.code, fault.reason.as_str()), (code, "TOO_MUCH_WORK"), "{fault}");
    }
}

#[test]
fn faults_never_contain_message_data() {
    for source in [
        "req.o[req.lines[0].sku]",
        "req.o[req.id]",
        "attr(res, req.id)",
        "req.lines[0].sku + 1",
        "int(req.lines[0].sku + 'secret')",
        "req.id > 1",
        "req.lines[0].sku / 0",
    ] {
        let fault = evaluate(source).expect_err(source);
        assert!(!fault.message.contains("085") && !fault.message.contains("A 7"), "{fault}");
    }
}

#[test]
fn errors_have_a_position_and_help() {
    let cases = [
        ("req.a +", 7..7, "unexpected end"),
        ("rq.a", 0..2, "no `rq` here"),
        ("req.a == open", 9..13, "no `open` here"),
        ("sise(req.a)", 0..4, "no function `sise`"),
        ("msg.nothing", 4..11, "no field `nothing`"),
        ("req.a = 1", 6..7, "`=` is not an operator"),
        ("req.a and req.b", 6..9, "`and` is not an operator"),
        ("'open", 0..1, "not terminated"),
        ("header.a > 1", 0..12, "cannot compare"),
        ("", 0..0, "missing"),
    ];
    for (source, range, problem) in cases {
        let errors = Expression::compile(source, &names()).expect_err(source);
        assert!(errors[0].problem.contains(problem), "{source}: {errors:?}");
        assert_eq!(errors[0].range, range, "{source}: {errors:?}");
        assert!(!errors[0].help.is_empty(), "{source}: {errors:?}");
    }
    let long = vec!["1"; 20_000].join("+");
    assert!(Expression::compile(&long, &names()).is_err());
    assert!(Expression::compile(&vec!["1"; 500].join("+"), &names()).is_err());
    let names = Names {
        unbound: vec![("res".into(), "call a service first")],
        variables: vec!["req".into()],
        of_services: vec![],
        ..Names::default()
    };
    assert_eq!(Expression::compile("res.a", &names).expect_err("no reply yet")[0].help, "call a service first");
}

#[test]
fn the_body_cannot_set_a_parameter() {
    let mut request = message("application/json", r#"{"id":"from the body","x":1}"#);
    request.params = [("id", Value::from("from the path"))].into_iter().collect::<Record>();
    let request =
        Request { message: request, binding: Binding { params: vec!["id".into()], ..Binding::default() }.into() };
    let limits = Limits::default();
    let scope = Scope {
        request: &request,
        current: &request.message,
        reply: None,
        variables: &[],
        item: None,
        host: &FixedHost::default(),
        meter: &meter(),
        limits: &limits,
    };
    let read = |source: &str| Expression::compile(source, &names()).expect(source).evaluate(&scope);
    assert_eq!(read("req.id"), Ok(Value::from("from the path")));
    assert_eq!(read("req.x").expect_err("set twice").reason.as_str(), "FIELD_TWICE");
}

#[test]
fn a_fault_does_not_contain_a_resolved_secret() {
    let expression = Expression::compile_shown("req.id + 1 + 'S3CRET'", "req.id + 1 + '${env:TOKEN}'", &names());
    let request =
        Request { message: message("application/json", "{\"id\":\"a\"}"), binding: Binding::default().into() };
    let limits = Limits::default();
    let scope = Scope {
        request: &request,
        current: &request.message,
        reply: None,
        variables: &[],
        item: None,
        host: &FixedHost::default(),
        meter: &meter(),
        limits: &limits,
    };
    let fault = expression.expect("good").evaluate(&scope).expect_err("text and number");
    assert!(!fault.message.contains("S3CRET") && fault.message.contains("env:TOKEN"), "{fault}");
}

#[test]
fn work_on_large_data_is_limited() {
    let list = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    let body = format!("{{\"xs\":[{}],\"ys\":[{}]}}", list(8_000), list(8_000));
    let request = Request { message: message("application/json", &body), binding: Binding::default().into() };
    let limits = Limits::default();
    let scope = Scope {
        request: &request,
        current: &request.message,
        reply: None,
        variables: &[],
        item: None,
        host: &FixedHost::default(),
        meter: &meter(),
        limits: &limits,
    };
    let expensive = Expression::compile("req.xs.filter(x, !(x in req.ys))", &names()).expect("good");
    assert_eq!(expensive.evaluate(&scope).expect_err("too much work").reason.as_str(), "TOO_MUCH_WORK");
    let cheap = Expression::compile("size(req.xs.filter(x, x > 10))", &names()).expect("good");
    let another = Scope { meter: &meter(), ..scope };
    assert_eq!(cheap.evaluate(&another), Ok(Value::Int(7989)));
}
