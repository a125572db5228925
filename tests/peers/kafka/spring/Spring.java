import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.ConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.core.ProducerFactory;
import org.springframework.kafka.listener.ContainerProperties;
import org.springframework.kafka.listener.KafkaMessageListenerContainer;
import org.springframework.kafka.requestreply.ReplyingKafkaTemplate;
import org.springframework.messaging.handler.annotation.SendTo;

/**
 * A requester and a responder of Spring Kafka.
 *
 * <pre>
 * Spring.java BROKERS serve TOPIC              replies to requests with their values until it is killed
 * Spring.java BROKERS ask TOPIC REPLIES VALUE  sends a request and prints the value of its reply
 * </pre>
 */
public final class Spring {
    static String brokers;
    static String topic;

    public static void main(String[] arguments) throws Exception {
        brokers = arguments[0];
        topic = arguments[2];
        if (arguments[1].equals("serve")) {
            System.setProperty("topic", topic);
            new AnnotationConfigApplicationContext(Responder.class);
            System.out.println("serves at 127.0.0.1:1");
            Thread.currentThread().join();
        }
        ask(arguments[3], arguments[4]);
        System.exit(0);
    }

    static void ask(String replies, String value) throws Exception {
        var properties = new ContainerProperties(replies);
        properties.setGroupId(replies + "-" + ProcessHandle.current().pid());
        var container = new KafkaMessageListenerContainer<byte[], byte[]>(consumers("latest"), properties);
        var template = new ReplyingKafkaTemplate<byte[], byte[], byte[]>(producers(), container);
        template.start();
        if (!template.waitForAssignment(Duration.ofSeconds(20))) {
            throw new IllegalStateException("no partitions were assigned");
        }
        var request = new ProducerRecord<byte[], byte[]>(topic, "key".getBytes(StandardCharsets.UTF_8), value.getBytes(StandardCharsets.UTF_8));
        request.headers().add("content-type", "application/json".getBytes(StandardCharsets.UTF_8));
        ConsumerRecord<byte[], byte[]> reply = template.sendAndReceive(request, Duration.ofSeconds(20)).get();
        System.out.println(new String(reply.value(), StandardCharsets.UTF_8));
    }

    static ConsumerFactory<byte[], byte[]> consumers(String start) {
        return new DefaultKafkaConsumerFactory<>(Map.of("bootstrap.servers", brokers, "auto.offset.reset", start),
            new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static ProducerFactory<byte[], byte[]> producers() {
        return new DefaultKafkaProducerFactory<>(Map.of("bootstrap.servers", brokers), new ByteArraySerializer(), new ByteArraySerializer());
    }

    @Configuration
    @EnableKafka
    public static class Responder {
        @Bean
        public ConcurrentKafkaListenerContainerFactory<byte[], byte[]> kafkaListenerContainerFactory() {
            var factory = new ConcurrentKafkaListenerContainerFactory<byte[], byte[]>();
            factory.setConsumerFactory(consumers("earliest"));
            factory.setReplyTemplate(new KafkaTemplate<>(producers()));
            return factory;
        }

        @Bean
        public Echo echo() {
            return new Echo();
        }
    }

    public static class Echo {
        @KafkaListener(id = "echo", groupId = "${topic}", topics = "${topic}")
        @SendTo
        public byte[] echo(byte[] request) {
            return request;
        }
    }
}
