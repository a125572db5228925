import org.apache.camel.ExchangePattern;
import org.apache.camel.builder.RouteBuilder;
import org.apache.camel.main.Main;
import org.springframework.amqp.rabbit.connection.CachingConnectionFactory;

/** The routes of the benchmark in Camel, written as in its manual, with acknowledgements and publisher confirms. */
public final class Bridge {
    public static void main(String[] arguments) throws Exception {
        String mode = arguments[0];
        int port = Integer.parseInt(arguments[1]);
        CachingConnectionFactory broker = new CachingConnectionFactory("127.0.0.1", Integer.parseInt(arguments[2]));
        broker.setUsername("guest");
        broker.setPassword("guest");
        broker.setChannelCacheSize(64);
        // Required by `confirm` of camel-spring-rabbitmq.
        broker.setPublisherConfirmType(CachingConnectionFactory.ConfirmType.SIMPLE);
        Main main = new Main();
        main.bind("broker", broker);
        main.addInitialProperty("camel.server.enabled", "true");
        main.addInitialProperty("camel.server.host", "127.0.0.1");
        main.addInitialProperty("camel.server.port", Integer.toString(port));
        String out = "spring-rabbitmq:default?connectionFactory=#broker&routingKey=" + arguments[4] + "&confirm=enabled";
        String in = "spring-rabbitmq:default?connectionFactory=#broker&queues=" + arguments[3]
            + "&autoDeclare=false&prefetchCount=256&concurrentConsumers=8&acknowledgeMode=AUTO";
        main.configure().addRoutesBuilder(new RouteBuilder() {
            @Override
            public void configure() {
                switch (mode) {
                    case "intake" -> from("platform-http:/take?httpMethodRestrict=POST")
                        .to(ExchangePattern.InOnly, out).setHeader("CamelHttpResponseCode", constant(202)).setBody(constant(""));
                    case "bridge" -> from(in).removeHeaders("*").to(ExchangePattern.InOnly, out);
                    default -> from(in).removeHeaders("*").setHeader("CamelHttpMethod", constant("POST"))
                        .setHeader("Content-Type", constant("application/json"))
                        .to("http://127.0.0.1:" + arguments[5] + "/echo?maxTotalConnections=256&connectionsPerRoute=256");
                }
            }
        });
        main.run();
    }
}
