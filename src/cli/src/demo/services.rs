//! Sample services: a legacy XML service and a JSON service. They record the last request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::Bytes;
use crossdock_message::{Limits, Value, json, xml};

/// The last body that a service received.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Option<String>>>);

impl Seen {
    fn keep(&self, body: &Bytes) {
        self.keep_text(String::from_utf8_lossy(body).into_owned());
    }

    pub(super) fn keep_text(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// Takes the body received since the previous call.
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The running sample services.
pub(super) struct Samples {
    pub(super) legacy: SocketAddr,
    pub(super) pricing: SocketAddr,
    pub(super) legacy_seen: Seen,
    pub(super) pricing_seen: Seen,
}

impl Samples {
    /// Starts both on free loopback ports; they run until the process exits.
    pub(super) fn start() -> std::io::Result<Self> {
        let (legacy_seen, pricing_seen) = (Seen::default(), Seen::default());
        let seen = web::Data::new(legacy_seen.clone());
        let legacy = HttpServer::new(move || {
            App::new().app_data(seen.clone()).route("/orders.asmx", web::post().to(legacy_order))
        });
        let seen = web::Data::new(pricing_seen.clone());
        let pricing = HttpServer::new(move || App::new().app_data(seen.clone()).route("/price", web::post().to(price)));
        let legacy = legacy.workers(1).disable_signals().bind("127.0.0.1:0")?;
        let pricing = pricing.workers(1).disable_signals().bind("127.0.0.1:0")?;
        let unbound = || std::io::Error::other("the listener has no address");
        let addresses = (legacy.addrs().first().copied(), pricing.addrs().first().copied());
        actix_rt::spawn(legacy.run());
        actix_rt::spawn(pricing.run());
        Ok(Self {
            legacy: addresses.0.ok_or_else(unbound)?,
            pricing: addresses.1.ok_or_else(unbound)?,
            legacy_seen,
            pricing_seen,
        })
    }
}

fn xml_response(body: String) -> HttpResponse {
    HttpResponse::Ok().content_type("text/xml; charset=utf-8").body(body)
}

/// Returns an order by its number, as a legacy service does: in XML, and always with status 200.
async fn legacy_order(seen: web::Data<Seen>, body: Bytes) -> HttpResponse {
    seen.keep(&body);
    let order_number = xml::read(&body, &Limits::default()).ok().and_then(|value| match value.get("OrderNo")? {
        Value::List(items) => items.first()?.get("$text")?.scalar_text(),
        _ => None,
    });
    match order_number.as_deref() {
        Some("1001") => xml_response(
            "<?xml version=\"1.0\"?><o:OrderDocument xmlns:o=\"urn:legacy:orders\" version=\"2\">\
             <o:Status>OPEN</o:Status><o:OrderNo>1001</o:OrderNo><o:Total currency=\"EUR\">1249.90</o:Total>\
             <o:Line no=\"1\"><o:Sku>085</o:Sku><o:Qty>2</o:Qty></o:Line></o:OrderDocument>"
                .to_owned(),
        ),
        _ => xml_response(
            "<?xml version=\"1.0\"?><o:OrderDocument xmlns:o=\"urn:legacy:orders\" version=\"2\">\
             <o:Status>NOT FOUND</o:Status></o:OrderDocument>"
                .to_owned(),
        ),
    }
}

/// Prices a basket: echoes it, with a quote that a double cannot represent.
async fn price(seen: web::Data<Seen>, body: Bytes) -> HttpResponse {
    seen.keep(&body);
    let Ok(basket) = json::read(&body, &Limits::default()) else {
        return HttpResponse::BadRequest().finish();
    };
    let mut reply = crossdock_message::Record::new();
    reply.set("quote", Value::UInt(18_446_744_073_709_551_615));
    reply.set("basket", basket.get("basket").cloned().unwrap_or(Value::Null));
    match json::write(&Value::Record(reply)) {
        Ok(body) => HttpResponse::Ok().content_type("application/json").body(body),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}
